-- Messages: sending and acknowledging, devices, tokens, and the hours of payloads.

-- Stores one batch of sent messages, acknowledgements and deliveries to devices (pushes). The same batch may
-- be sent again: what is stored already is not stored twice and gets the same answer as before.
--   msg_ids … payloads   one element for each sent message. ttls: lifetimes as requested, lives: after the
--                        limit, both in seconds; generations: 1 or 2
--   ack_…                one element for each acknowledgement by a device of the recipient. ack_pushed_us: when
--                        the message was pushed to that device, NULL if it was not
--   push_…               one element for each push: number of the message, device, and time
-- Times are microseconds since 1970 by this server's clock.
-- Returns a row per send and per ack: its place from 0, and the message. status: accepted, repeated (same
-- client_msg_id, same message), mismatch (same client_msg_id, other message), acknowledged, unknown (no such
-- message for this recipient).
CREATE OR REPLACE FUNCTION quipu_append_messages(
    msg_ids uuid[], senders text[], recipients text[], client_msg_ids text[], ttls bigint[], lives bigint[], sha256s bytea[],
    sizes integer[], generations smallint[], payloads text[],
    ack_msg_ids uuid[], ack_recipients text[], ack_devices text[], ack_pushed_us bigint[],
    push_messages bigint[], push_devices text[], push_us bigint[])
RETURNS TABLE (is_send boolean, place integer, status text, number bigint, id uuid, received_s bigint, expires_s bigint)
LANGUAGE plpgsql AS $$
DECLARE
    moment timestamptz; this_second timestamptz;
    numbers bigint[]; done bigint[]; is_all boolean; acked bigint[];
BEGIN
    IF cardinality(msg_ids) > 0 THEN
        -- Locks held until the commit and taken in one order: a recipient's messages become visible in the
        -- order of their positions.
        PERFORM pg_advisory_xact_lock(k.key)
        FROM (SELECT DISTINCT hashtextextended('quipu/message/' || r, 0) AS key FROM unnest(recipients) r ORDER BY 1) k;
        moment := clock_timestamp();
        this_second := date_trunc('second', moment);
        SELECT array_agg(nextval('journal_position')) INTO numbers FROM generate_subscripts(msg_ids, 1);
        WITH fresh AS (
            INSERT INTO message_log AS m (position, recorded_at, kind, msg_id, sender, recipient, client_msg_id, ttl_s, expires_at, payload_sha256, payload_bytes)
            SELECT o.number, moment, 'accepted', o.msg_id, o.sender, o.recipient, o.client_msg_id, o.ttl,
                   this_second + make_interval(secs => o.life), o.sha256, o.size
            FROM unnest(numbers, msg_ids, senders, recipients, client_msg_ids, ttls, lives, sha256s, sizes)
                 AS o (number, msg_id, sender, recipient, client_msg_id, ttl, life, sha256, size)
            -- Two batches that share keys wait for each other's entries. With one order they cannot deadlock.
            -- Of the messages of one batch with the same key, the first to arrive is stored.
            ORDER BY o.sender, o.client_msg_id, o.number
            ON CONFLICT DO NOTHING
            RETURNING m.position)
        SELECT array_agg(f.position) INTO done FROM fresh f;
        is_all := coalesce(cardinality(done), 0) = cardinality(msg_ids);
        INSERT INTO message_payloads (expires_at, message, generation, payload)
        SELECT this_second + make_interval(secs => o.life), o.number, o.generation, o.payload
        FROM unnest(numbers, lives, generations, payloads) AS o (number, life, generation, payload)
        WHERE is_all OR o.number = ANY (done);
        RETURN QUERY
        SELECT true, (o.nth - 1)::integer, 'accepted', o.number, o.msg_id, extract(epoch FROM this_second)::bigint,
               extract(epoch FROM this_second)::bigint + o.life
        FROM unnest(numbers, msg_ids, lives) WITH ORDINALITY AS o (number, msg_id, life, nth)
        WHERE is_all OR o.number = ANY (done);
        -- The other messages exist already: from an earlier attempt of this call, or under the same
        -- client_msg_id.
        IF NOT is_all THEN
            RETURN QUERY
            SELECT true, (o.nth - 1)::integer,
                   CASE WHEN l.msg_id = o.msg_id THEN 'accepted'
                        WHEN (l.recipient, l.payload_sha256, l.ttl_s) = (o.recipient, o.sha256, o.ttl) THEN 'repeated' ELSE 'mismatch' END,
                   l.position, l.msg_id, extract(epoch FROM date_trunc('second', l.recorded_at))::bigint, extract(epoch FROM l.expires_at)::bigint
            FROM unnest(numbers, msg_ids, senders, recipients, client_msg_ids, ttls, sha256s)
                 WITH ORDINALITY AS o (number, msg_id, sender, recipient, client_msg_id, ttl, sha256, nth)
            CROSS JOIN LATERAL (
                SELECT m.* FROM message_log m WHERE m.msg_id = o.msg_id
                UNION ALL
                SELECT m.* FROM message_log m WHERE m.sender = o.sender AND m.client_msg_id = o.client_msg_id
                LIMIT 1) l
            WHERE o.number <> ALL (coalesce(done, '{}'));
        END IF;
    END IF;

    IF cardinality(ack_msg_ids) > 0 OR cardinality(push_messages) > 0 THEN
        moment := clock_timestamp();
        SELECT array_agg((SELECT l.position FROM message_log l WHERE l.msg_id = o.msg_id AND l.recipient = o.recipient LIMIT 1) ORDER BY o.nth)
        INTO acked FROM unnest(ack_msg_ids, ack_recipients) WITH ORDINALITY AS o (msg_id, recipient, nth);
        INSERT INTO message_log (kind, message, device, pushed_at)
        SELECT f.kind, f.message, f.device, CASE WHEN min(f.us) IS NOT NULL THEN least(moment, timestamptz 'epoch' + min(f.us) * interval '1 microsecond') END
        FROM (SELECT 'acknowledged' AS kind, * FROM unnest(acked, ack_devices, ack_pushed_us) AS a (message, device, us)
              UNION ALL
              SELECT 'pushed', * FROM unnest(push_messages, push_devices, push_us)) f
        WHERE f.message IS NOT NULL
        GROUP BY f.kind, f.message, f.device ORDER BY f.message, f.device, f.kind
        ON CONFLICT DO NOTHING;
        RETURN QUERY
        SELECT false, (a.nth - 1)::integer, CASE WHEN a.message IS NULL THEN 'unknown' ELSE 'acknowledged' END, a.message, a.msg_id, NULL::bigint, NULL::bigint
        FROM unnest(acked, ack_msg_ids) WITH ORDINALITY AS a (message, msg_id, nth);
    END IF;
END $$;
COMMENT ON FUNCTION quipu_append_messages(uuid[], text[], text[], text[], bigint[], bigint[], bytea[], integer[], smallint[], text[], uuid[], text[], text[], bigint[], bigint[], text[], bigint[]) IS 'appends one batch of sent and acknowledged messages; returns the outcome of each';
REVOKE ALL ON FUNCTION quipu_append_messages(uuid[], text[], text[], text[], bigint[], bigint[], bytea[], integer[], smallint[], text[], uuid[], text[], text[], bigint[], bigint[], text[], bigint[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_append_messages(uuid[], text[], text[], text[], bigint[], bigint[], bytea[], integer[], smallint[], text[], uuid[], text[], text[], bigint[], bigint[], text[], bigint[]) TO quipu;

CREATE OR REPLACE FUNCTION quipu_newest_message(of text) RETURNS bigint
-- While the statistics are those of an empty table, the planner expects few messages and would read and sort all of
-- the recipient's messages.
LANGUAGE plpgsql STABLE SET enable_bitmapscan = off AS $$
BEGIN
    RETURN (SELECT m.position FROM message_log m
            WHERE hashtextextended(m.recipient, 0) = hashtextextended(of, 0) AND m.recipient = of
            ORDER BY m.position DESC LIMIT 1);
END $$;
COMMENT ON FUNCTION quipu_newest_message(text) IS 'position of a recipient''s newest message, by one index lookup';

-- Advances the read position of each device up to the first message that is neither acknowledged nor expired.
CREATE OR REPLACE FUNCTION quipu_move_message_positions(recipients text[], devices text[]) RETURNS void LANGUAGE sql AS $$
    INSERT INTO message_positions AS p (recipient, device, position)
    SELECT d.recipient, d.device, coalesce(
        (SELECT l.position - 1 FROM message_log l
         WHERE hashtextextended(l.recipient, 0) = hashtextextended(d.recipient, 0) AND l.recipient = d.recipient
           AND l.position > coalesce(o.position, 0) AND l.expires_at > clock_timestamp()
           AND (SELECT a.position FROM message_log a
                WHERE a.message = l.position AND a.device = d.device AND a.kind = 'acknowledged' LIMIT 1) IS NULL
         ORDER BY l.position LIMIT 1),
        t.top)
    FROM (SELECT DISTINCT * FROM unnest(recipients, devices) AS d (recipient, device) ORDER BY 1, 2) d
    CROSS JOIN LATERAL quipu_newest_message(d.recipient) AS t (top)
    LEFT JOIN message_positions o USING (recipient, device)
    WHERE t.top IS NOT NULL
    ORDER BY d.recipient, d.device
    ON CONFLICT (recipient, device) DO UPDATE SET position = excluded.position WHERE p.position < excluded.position
$$;
COMMENT ON FUNCTION quipu_move_message_positions(text[], text[]) IS 'advances the read positions of devices past the messages that they have acknowledged';
REVOKE ALL ON FUNCTION quipu_move_message_positions(text[], text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_move_message_positions(text[], text[]) TO quipu;

-- Registers device `shown` of recipient `of`, or records that a registered one was seen now. Returns the
-- device's read position. Returns NULL, and registers nothing, when `most` other devices of the recipient were
-- seen within 30 days; devices that were not are deleted first.
CREATE OR REPLACE FUNCTION quipu_show_message_device(of text, shown text, most integer) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE place bigint;
BEGIN
    -- Two devices that register at once are counted one after the other.
    PERFORM pg_advisory_xact_lock(hashtextextended('quipu/device/' || of, 0));
    UPDATE message_positions SET seen_at = clock_timestamp() WHERE recipient = of AND device = shown RETURNING position INTO place;
    IF place IS NOT NULL THEN
        RETURN place;
    END IF;
    DELETE FROM message_positions WHERE recipient = of AND seen_at < clock_timestamp() - interval '30 days';
    IF (SELECT count(*) FROM message_positions WHERE recipient = of) >= most THEN
        RETURN NULL;
    END IF;
    INSERT INTO message_positions AS p (recipient, device, position) VALUES (of, shown, 0)
    ON CONFLICT (recipient, device) DO UPDATE SET seen_at = excluded.seen_at RETURNING p.position INTO place;
    RETURN place;
END $$;
COMMENT ON FUNCTION quipu_show_message_device(text, text, integer) IS 'registers a device of a recipient; returns its read position, NULL when the recipient has too many devices';
REVOKE ALL ON FUNCTION quipu_show_message_device(text, text, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_show_message_device(text, text, integer) TO quipu;

-- Deletes up to `most` devices that were not seen for 30 days, and returns their number. Rows that are locked
-- are left for the next call. statement_timestamp() lets the index serve the condition; clock_timestamp() is
-- volatile and would not.
CREATE OR REPLACE FUNCTION quipu_forget_message_devices(most integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE forgotten integer;
BEGIN
    DELETE FROM message_positions WHERE ctid = ANY (ARRAY(
        SELECT p.ctid FROM message_positions p WHERE p.seen_at < statement_timestamp() - interval '30 days'
        ORDER BY p.seen_at LIMIT most FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    RETURN forgotten;
END $$;
COMMENT ON FUNCTION quipu_forget_message_devices(integer) IS 'deletes devices that were not seen for 30 days; returns their number';
REVOKE ALL ON FUNCTION quipu_forget_message_devices(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_forget_message_devices(integer) TO quipu;

-- The stored key; stores `drawn` as the key if there is none.
CREATE OR REPLACE FUNCTION quipu_message_challenge_key(drawn bytea) RETURNS bytea LANGUAGE plpgsql AS $$
DECLARE known bytea;
BEGIN
    SELECT k.key INTO known FROM message_challenge_key k;
    IF known IS NULL THEN
        INSERT INTO message_challenge_key (key) VALUES (drawn) ON CONFLICT DO NOTHING;
        SELECT k.key INTO known FROM message_challenge_key k;
    END IF;
    RETURN known;
END $$;
COMMENT ON FUNCTION quipu_message_challenge_key(bytea) IS 'the secret with which challenges are made and checked; stores the argument if there is none';
REVOKE ALL ON FUNCTION quipu_message_challenge_key(bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_message_challenge_key(bytea) TO quipu;

-- Creates bearer tokens, one for each element of the arrays. The same call may be repeated.
--   tokens      SHA-256 of each token
--   lives       seconds until it expires, NULL for never
--   challenges  SHA-256 of the challenge whose answer earned the token; NULL for a token that the operator made
--   mosts       how many valid tokens earned by challenges the wayfarer may have; not applied to the operator's
-- Returns one row for each token: its place in the arrays, from 0, and its status. recorded: it exists now.
-- used: another token was earned by the same challenge. over: the wayfarer has as many as it may have.
CREATE OR REPLACE FUNCTION quipu_create_message_tokens(
    tokens bytea[], wayfarers text[], devices text[], labels text[], lives bigint[], challenges bytea[], mosts integer[])
RETURNS TABLE (place integer, status text) LANGUAGE plpgsql AS $$
BEGIN
    -- Locks taken in one order, so that simultaneous proofs of one wayfarer are counted one after the other.
    PERFORM pg_advisory_xact_lock(k.key)
    FROM (SELECT DISTINCT hashtextextended('quipu/token/' || o.wayfarer, 0) AS key
          FROM unnest(wayfarers, challenges) AS o (wayfarer, challenge) WHERE o.challenge IS NOT NULL ORDER BY 1) k;
    RETURN QUERY
    WITH asked AS MATERIALIZED (
        SELECT o.*, row_number() OVER (PARTITION BY o.wayfarer, o.challenge IS NULL ORDER BY o.nth) + l.live > o.most AS is_over, l.is_there
        FROM unnest(tokens, wayfarers, devices, labels, lives, challenges, mosts)
             WITH ORDINALITY AS o (token, wayfarer, device, label, life, challenge, most, nth)
        CROSS JOIN LATERAL (
            SELECT (SELECT count(*) FROM message_tokens t
                    WHERE o.challenge IS NOT NULL AND t.wayfarer_id = o.wayfarer AND t.kind = 'created' AND t.challenge_sha256 IS NOT NULL
                      AND t.expires_at > clock_timestamp()
                      AND NOT EXISTS (SELECT FROM message_tokens r WHERE r.token_sha256 = t.token_sha256 AND r.kind = 'revoked')) AS live,
                   EXISTS (SELECT FROM message_tokens t WHERE t.token_sha256 = o.token AND t.kind = 'created') AS is_there) l),
    made AS (
        INSERT INTO message_tokens AS m (kind, token_sha256, wayfarer_id, device, label, expires_at, challenge_sha256)
        SELECT 'created', a.token, a.wayfarer, a.device, a.label, clock_timestamp() + make_interval(secs => a.life), a.challenge
        FROM asked a WHERE a.challenge IS NULL OR NOT a.is_over
        ORDER BY a.token
        ON CONFLICT DO NOTHING
        RETURNING m.token_sha256)
    SELECT (a.nth - 1)::integer,
           CASE WHEN a.is_there OR EXISTS (SELECT FROM made m WHERE m.token_sha256 = a.token) THEN 'recorded'
                WHEN a.challenge IS NOT NULL AND a.is_over THEN 'over' ELSE 'used' END
    FROM asked a;
END $$;
COMMENT ON FUNCTION quipu_create_message_tokens(bytea[], text[], text[], text[], bigint[], bytea[], integer[]) IS 'creates bearer tokens for messages; tokens for proofs within the limit and once per challenge';
REVOKE ALL ON FUNCTION quipu_create_message_tokens(bytea[], text[], text[], text[], bigint[], bytea[], integer[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_create_message_tokens(bytea[], text[], text[], text[], bigint[], bytea[], integer[]) TO quipu;

-- Creates at most 200 hours, because the transaction holds a lock on each and its indexes. The caller repeats it
-- until it creates fewer.
CREATE OR REPLACE FUNCTION quipu_ensure_message_hours(until_s bigint) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    hour timestamptz := date_trunc('hour', clock_timestamp());
    -- At most 400 days ahead: the longest lifetime (`max_ttl_s`) is 390 days, and hours are created in advance.
    last timestamptz := least(to_timestamp(until_s), clock_timestamp() + interval '400 days');
    existing name[]; name text; made integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('quipu/message_hours', 0));
    existing := ARRAY(SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                      WHERE i.inhparent = 'message_payloads'::regclass);
    WHILE hour <= last AND made < 200 LOOP
        name := 'message_payloads_' || to_char(hour AT TIME ZONE 'UTC', 'YYYYMMDD"h"HH24');
        IF name <> ALL (existing) THEN
            EXECUTE format('CREATE TABLE partitions.%I (LIKE message_payloads INCLUDING ALL)', name);
            PERFORM quipu_make_journal(format('partitions.%I', name)::regclass, 'quipu_messages_reader');
            EXECUTE format('ALTER TABLE message_payloads ATTACH PARTITION partitions.%I FOR VALUES FROM (%L) TO (%L)', name, hour, hour + interval '1 hour');
            made := made + 1;
        END IF;
        hour := hour + interval '1 hour';
    END LOOP;
    RETURN made;
END $$;
COMMENT ON FUNCTION quipu_ensure_message_hours(bigint) IS 'creates partitions of message_payloads up to the given hour of expiry, at most 400 days ahead and 200 a call; returns their number';
REVOKE ALL ON FUNCTION quipu_ensure_message_hours(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_ensure_message_hours(bigint) TO quipu;

-- Whether an expired hour of payloads still exists: after quipu_drop_message_hour returned NULL, a read delays it.
CREATE OR REPLACE FUNCTION quipu_has_expired_message_hour() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                   WHERE i.inhparent = 'message_payloads'::regclass
                     AND c.relname < 'message_payloads_' || to_char((clock_timestamp() - interval '1 minute') AT TIME ZONE 'UTC', 'YYYYMMDD"h"HH24'))
$$;
COMMENT ON FUNCTION quipu_has_expired_message_hour() IS 'whether an expired hour of payloads is not dropped yet';

-- Drops the oldest expired hour of payloads and records it. Returns the number of its messages, NULL when no
-- hour has expired or when a read delays it: senders would queue behind the lock. The caller tries again
-- later.
CREATE OR REPLACE FUNCTION quipu_drop_message_hour() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE partition regclass; name text; held bigint; size bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('quipu/message_hours', 0)) THEN RETURN NULL; END IF;
    SELECT c.oid, c.relname INTO partition, name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'message_payloads'::regclass
      AND c.relname < 'message_payloads_' || to_char((clock_timestamp() - interval '1 minute') AT TIME ZONE 'UTC', 'YYYYMMDD"h"HH24')
    ORDER BY c.relname LIMIT 1;
    IF partition IS NULL THEN RETURN NULL; END IF;
    size := pg_total_relation_size(partition);
    -- Up to 100,000 rows are counted; the number of more rows is an estimate.
    EXECUTE format('SELECT count(*) FROM (SELECT FROM %s LIMIT 100001) h', partition) INTO held;
    IF held > 100000 THEN
        SELECT greatest(held, c.reltuples::bigint) INTO held FROM pg_class c WHERE c.oid = partition;
    END IF;
    BEGIN
        EXECUTE format('DROP TABLE %s', partition);
    EXCEPTION WHEN lock_not_available THEN
        RETURN NULL;
    END;
    IF held > 0 THEN
        INSERT INTO message_log (kind, detail)
        VALUES ('expired', jsonb_build_object('hour', replace(name, 'message_payloads_', ''), 'messages', held, 'bytes', size));
    END IF;
    RETURN held;
END $$;
COMMENT ON FUNCTION quipu_drop_message_hour() IS 'drops the oldest expired hour of payloads; returns the number of its messages; NULL when no hour has expired, or readers of the oldest one delay its removal';
REVOKE ALL ON FUNCTION quipu_drop_message_hour() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_drop_message_hour() TO quipu;
