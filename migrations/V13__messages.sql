-- Messages: who sent what to whom, who has it, who acknowledged it. The journal keeps the facts for good; the payloads lie in
-- partitions by the hour in which they expire, and leave the disk with their hour.

CREATE TABLE message_log (
    position       bigint      PRIMARY KEY DEFAULT nextval('journal_position'),
    xid            xid8        NOT NULL DEFAULT pg_current_xact_id(),
    recorded_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind           text        NOT NULL CONSTRAINT message_log_kind CHECK (kind IN ('accepted', 'pushed', 'acknowledged', 'expired')),
    message        bigint,
    device         text,
    msg_id         uuid,
    sender         text,
    recipient      text,
    client_msg_id  text,
    ttl_s          bigint,
    expires_at     timestamptz,
    payload_sha256 bytea,
    payload_bytes  integer,
    detail         jsonb,
    CONSTRAINT message_log_subject CHECK (CASE kind
        WHEN 'accepted' THEN num_nulls(msg_id, sender, recipient, ttl_s, expires_at, payload_sha256, payload_bytes) = 0 AND message IS NULL
        WHEN 'expired' THEN num_nonnulls(message, device, msg_id, sender, recipient) = 0 AND detail IS NOT NULL
        ELSE num_nulls(message, device) = 0 AND num_nonnulls(msg_id, sender, recipient) = 0 END)
);
COMMENT ON TABLE message_log IS 'journal: the life of every message. For one recipient positions become visible in their order, because whoever accepts a message for it holds its lock until the commit';
COMMENT ON COLUMN message_log.position IS 'place in the order of all journals; that of an accepted entry is the message''s number';
COMMENT ON COLUMN message_log.xid IS 'transaction that wrote the row';
COMMENT ON COLUMN message_log.recorded_at IS 'database clock';
COMMENT ON COLUMN message_log.kind IS 'accepted: it is on disk. pushed: first handed to a socket of this device. acknowledged: by this device. expired: an hour of payloads was dropped';
COMMENT ON COLUMN message_log.message IS 'pushed, acknowledged: position of the message''s accepted entry';
COMMENT ON COLUMN message_log.device IS 'pushed, acknowledged: the recipient''s device as it names itself, empty where it does not';
COMMENT ON COLUMN message_log.msg_id IS 'accepted: the identity that clients see';
COMMENT ON COLUMN message_log.sender IS 'accepted: wayfarer_id of the sender, as proven';
COMMENT ON COLUMN message_log.recipient IS 'accepted: wayfarer_id of the recipient';
COMMENT ON COLUMN message_log.client_msg_id IS 'accepted: the sender''s own identity of the message, NULL when it gave none; a second one is the same message';
COMMENT ON COLUMN message_log.ttl_s IS 'accepted: seconds to live as asked for, before the limit';
COMMENT ON COLUMN message_log.expires_at IS 'accepted: from this moment of the database clock on it is handed to nobody; whole seconds';
COMMENT ON COLUMN message_log.payload_sha256 IS 'accepted: SHA-256 of the decoded payload, 32 bytes';
COMMENT ON COLUMN message_log.payload_bytes IS 'accepted: decoded length of the payload, bytes';
COMMENT ON COLUMN message_log.detail IS 'expired: {"hour", "messages", "bytes"} of the dropped partition; messages is estimated when it was large';
-- No index over xid: no projection follows this journal, and each message would pay for it.
CREATE UNIQUE INDEX message_log_msg_id ON message_log (msg_id) WHERE msg_id IS NOT NULL;
CREATE UNIQUE INDEX message_log_client_msg_id ON message_log (sender, client_msg_id) WHERE client_msg_id IS NOT NULL;
CREATE UNIQUE INDEX message_log_device ON message_log (message, device, kind) WHERE message IS NOT NULL;
CREATE INDEX message_log_queue ON message_log (recipient, position) WHERE recipient IS NOT NULL;
CREATE INDEX message_log_sent ON message_log (sender, recorded_at) WHERE sender IS NOT NULL;
SELECT quipu_make_journal('message_log');

CREATE TABLE message_payloads (
    expires_at timestamptz NOT NULL,
    message    bigint      NOT NULL,
    generation smallint    NOT NULL CONSTRAINT message_payloads_generation CHECK (generation IN (1, 2)),
    payload    text        NOT NULL,
    PRIMARY KEY (expires_at, message)
) PARTITION BY RANGE (expires_at);
COMMENT ON TABLE message_payloads IS 'journal: what messages say, in a partition for each hour of expiry, which is dropped when the hour is over; message_log records it';
COMMENT ON COLUMN message_payloads.expires_at IS 'as in message_log';
COMMENT ON COLUMN message_payloads.message IS 'position of the message''s accepted entry';
COMMENT ON COLUMN message_payloads.generation IS 'generation of the wire protocol it was sent in: 1 any text, 2 base64url without padding';
COMMENT ON COLUMN message_payloads.payload IS 'payload_b64 exactly as it was sent';
SELECT quipu_make_journal('message_payloads');

CREATE TABLE message_positions (
    recipient text   NOT NULL,
    device    text   NOT NULL,
    position  bigint NOT NULL,
    PRIMARY KEY (recipient, device)
) WITH (fillfactor = 70);
COMMENT ON TABLE message_positions IS 'working: where a device goes on reading; without a row it reads past everything it acknowledged before';
COMMENT ON COLUMN message_positions.recipient IS 'wayfarer_id';
COMMENT ON COLUMN message_positions.device IS 'as in message_log';
COMMENT ON COLUMN message_positions.position IS 'every message up to here is acknowledged by this device, or expired';
SELECT quipu_make_changeable('message_positions');

CREATE TABLE message_tokens (
    position     bigint      PRIMARY KEY DEFAULT nextval('journal_position'),
    xid          xid8        NOT NULL DEFAULT pg_current_xact_id(),
    recorded_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind         text        NOT NULL CONSTRAINT message_tokens_kind CHECK (kind IN ('created', 'revoked')),
    token_sha256 bytea       NOT NULL CONSTRAINT message_tokens_sha256 CHECK (octet_length(token_sha256) = 32),
    wayfarer_id  text        NOT NULL,
    device       text,
    label        text        NOT NULL DEFAULT '',
    expires_at   timestamptz
);
COMMENT ON TABLE message_tokens IS 'journal: bearer tokens that prove a wayfarer_id, created and revoked; the tokens themselves are stored nowhere';
COMMENT ON COLUMN message_tokens.position IS 'place in the order of all journals';
COMMENT ON COLUMN message_tokens.xid IS 'transaction that wrote the row';
COMMENT ON COLUMN message_tokens.recorded_at IS 'database clock';
COMMENT ON COLUMN message_tokens.kind IS 'created, or revoked: from then on it proves nothing';
COMMENT ON COLUMN message_tokens.token_sha256 IS 'SHA-256 of the token, 32 bytes';
COMMENT ON COLUMN message_tokens.wayfarer_id IS 'whose it is';
COMMENT ON COLUMN message_tokens.device IS 'the one device it is good for, NULL for all of them';
COMMENT ON COLUMN message_tokens.label IS 'the operator''s words';
COMMENT ON COLUMN message_tokens.expires_at IS 'from this moment of the database clock on it proves nothing; NULL: it does not end by itself';
CREATE INDEX message_tokens_xid ON message_tokens (xid);
CREATE UNIQUE INDEX message_tokens_once ON message_tokens (token_sha256, kind);
CREATE INDEX message_tokens_owner ON message_tokens (wayfarer_id);
SELECT quipu_make_journal('message_tokens');

-- Commits what clients asked for, each group in one statement. It may be sent again: what was done before is answered as before.
--   sends  msg_ids … payloads   one element a message; ttl_s as asked for, lives_s after the limit; generations 1 or 2
--   acks   ack_…                one element an acknowledgement, by the message's recipient
--   pushes push_…               one element a first hand-over, messages by number
-- Returns a row for each send and each ack: its place from 0, and the message. status: accepted, repeated (the same client_msg_id and
-- the same message), mismatch (another message), acknowledged, unknown (no such message for this recipient).
CREATE FUNCTION quipu_append_messages(
    msg_ids uuid[], senders text[], recipients text[], client_msg_ids text[], ttls bigint[], lives bigint[], sha256s bytea[],
    sizes integer[], generations smallint[], payloads text[],
    ack_msg_ids uuid[], ack_recipients text[], ack_devices text[],
    push_messages bigint[], push_devices text[])
RETURNS TABLE (is_send boolean, place integer, status text, number bigint, id uuid, received_s bigint, expires_s bigint)
LANGUAGE plpgsql AS $$
DECLARE
    moment timestamptz; this_second timestamptz;
    done bigint[]; numbers bigint[]; ends timestamptz[];
BEGIN
    IF cardinality(msg_ids) > 0 THEN
        -- Held until the commit, taken in one order: a recipient's messages become visible in the order of their positions.
        PERFORM pg_advisory_xact_lock(k.key)
        FROM (SELECT DISTINCT hashtextextended('quipu/message/' || r, 0) AS key FROM unnest(recipients) r ORDER BY 1) k;
        moment := clock_timestamp();
        this_second := date_trunc('second', moment);
        WITH o AS MATERIALIZED (
            SELECT * FROM unnest(msg_ids, senders, recipients, client_msg_ids, ttls, lives, sha256s, sizes, generations, payloads)
                WITH ORDINALITY AS o (msg_id, sender, recipient, client_msg_id, ttl, life, sha256, size, generation, payload, nth)),
        fresh AS (
            INSERT INTO message_log AS m (recorded_at, kind, msg_id, sender, recipient, client_msg_id, ttl_s, expires_at, payload_sha256, payload_bytes)
            SELECT moment, 'accepted', o.msg_id, o.sender, o.recipient, o.client_msg_id, o.ttl, this_second + make_interval(secs => o.life), o.sha256, o.size
            FROM o ORDER BY o.nth
            ON CONFLICT DO NOTHING
            RETURNING m.position, m.msg_id, m.expires_at),
        said AS (
            INSERT INTO message_payloads (expires_at, message, generation, payload)
            SELECT f.expires_at, f.position, o.generation, o.payload FROM fresh f JOIN o ON o.msg_id = f.msg_id)
        SELECT array_agg(o.nth), array_agg(f.position), array_agg(f.expires_at) INTO done, numbers, ends
        FROM fresh f JOIN o ON o.msg_id = f.msg_id;
        RETURN QUERY
        SELECT true, (u.nth - 1)::integer, 'accepted', u.number, msg_ids[u.nth], extract(epoch FROM this_second)::bigint, extract(epoch FROM u.ends)::bigint
        FROM unnest(done, numbers, ends) AS u (nth, number, ends);
        -- The others are there: from an earlier attempt of this very call, or under the same client_msg_id.
        IF coalesce(cardinality(done), 0) < cardinality(msg_ids) THEN
            RETURN QUERY
            SELECT true, (o.nth - 1)::integer,
                   CASE WHEN l.msg_id = o.msg_id THEN 'accepted'
                        WHEN (l.recipient, l.payload_sha256, l.ttl_s) = (o.recipient, o.sha256, o.ttl) THEN 'repeated' ELSE 'mismatch' END,
                   l.position, l.msg_id, extract(epoch FROM date_trunc('second', l.recorded_at))::bigint, extract(epoch FROM l.expires_at)::bigint
            FROM unnest(msg_ids, senders, recipients, client_msg_ids, ttls, sha256s)
                 WITH ORDINALITY AS o (msg_id, sender, recipient, client_msg_id, ttl, sha256, nth)
            CROSS JOIN LATERAL (
                SELECT m.* FROM message_log m WHERE m.msg_id = o.msg_id
                UNION ALL
                SELECT m.* FROM message_log m WHERE m.sender = o.sender AND m.client_msg_id = o.client_msg_id
                LIMIT 1) l
            WHERE o.nth <> ALL (coalesce(done, '{}'));
        END IF;
    END IF;

    IF cardinality(ack_msg_ids) > 0 THEN
        RETURN QUERY
        WITH asked AS MATERIALIZED (
            SELECT o.nth, o.device, o.msg_id,
                   (SELECT l.position FROM message_log l WHERE l.msg_id = o.msg_id AND l.recipient = o.recipient LIMIT 1) AS message
            FROM unnest(ack_msg_ids, ack_recipients, ack_devices) WITH ORDINALITY AS o (msg_id, recipient, device, nth)),
        made AS (
            INSERT INTO message_log (kind, message, device)
            SELECT DISTINCT 'acknowledged', a.message, a.device FROM asked a WHERE a.message IS NOT NULL ORDER BY 2, 3
            ON CONFLICT DO NOTHING)
        SELECT false, (a.nth - 1)::integer, CASE WHEN a.message IS NULL THEN 'unknown' ELSE 'acknowledged' END, a.message, a.msg_id, NULL::bigint, NULL::bigint
        FROM asked a;
    END IF;

    IF cardinality(push_messages) > 0 THEN
        INSERT INTO message_log (kind, message, device)
        SELECT DISTINCT 'pushed', p.message, p.device FROM unnest(push_messages, push_devices) AS p (message, device) ORDER BY 2, 3
        ON CONFLICT DO NOTHING;
    END IF;
END $$;
GRANT EXECUTE ON FUNCTION quipu_append_messages(uuid[], text[], text[], text[], bigint[], bigint[], bytea[], integer[], smallint[], text[],
    uuid[], text[], text[], bigint[], text[]) TO quipu;

-- Where devices go on reading: moves each position up to the first message that is neither acknowledged nor expired.
CREATE FUNCTION quipu_move_message_positions(recipients text[], devices text[]) RETURNS void LANGUAGE sql AS $$
    INSERT INTO message_positions AS p (recipient, device, position)
    SELECT d.recipient, d.device, coalesce(
        (SELECT l.position - 1 FROM message_log l
         WHERE l.recipient = d.recipient AND l.position > coalesce(o.position, 0) AND l.expires_at > clock_timestamp()
           AND (SELECT a.position FROM message_log a
                WHERE a.message = l.position AND a.device = d.device AND a.kind = 'acknowledged' LIMIT 1) IS NULL
         ORDER BY l.position LIMIT 1),
        (SELECT max(l.position) FROM message_log l WHERE l.recipient = d.recipient))
    FROM (SELECT DISTINCT * FROM unnest(recipients, devices) AS d (recipient, device) ORDER BY 1, 2) d
    LEFT JOIN message_positions o USING (recipient, device)
    WHERE (SELECT l.position FROM message_log l WHERE l.recipient = d.recipient LIMIT 1) IS NOT NULL
    ORDER BY d.recipient, d.device
    ON CONFLICT (recipient, device) DO UPDATE SET position = excluded.position WHERE p.position < excluded.position
$$;
GRANT EXECUTE ON FUNCTION quipu_move_message_positions(text[], text[]) TO quipu;

-- Hours of payloads, from this one up to `until_s`. Called by the service before it listens and every few minutes.
CREATE FUNCTION quipu_ensure_message_hours(until_s bigint) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    hour timestamptz := date_trunc('hour', clock_timestamp());
    -- 400 days, whatever is asked for: a year's longest life and room to prepare.
    last timestamptz := least(to_timestamp(until_s), clock_timestamp() + interval '400 days');
    name text; made integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('quipu/message_hours', 0));
    WHILE hour <= last LOOP
        name := 'message_payloads_' || to_char(hour AT TIME ZONE 'UTC', 'YYYYMMDD"h"HH24');
        IF to_regclass('public.' || name) IS NULL THEN
            EXECUTE format('CREATE TABLE %I (LIKE message_payloads INCLUDING ALL)', name);
            PERFORM quipu_make_journal(name::regclass);
            EXECUTE format('ALTER TABLE message_payloads ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, hour, hour + interval '1 hour');
            made := made + 1;
        END IF;
        hour := hour + interval '1 hour';
    END LOOP;
    RETURN made;
END $$;
REVOKE ALL ON FUNCTION quipu_ensure_message_hours(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_ensure_message_hours(bigint) TO quipu;

-- Drops the oldest hour of payloads that is over, with its record. Returns how many messages it held, NULL when no hour is over.
-- Whoever reads for long is not waited for: senders would queue up behind the lock. The caller tries again later.
CREATE FUNCTION quipu_drop_message_hour() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE name text; held bigint; size bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('quipu/message_hours', 0)) THEN RETURN NULL; END IF;
    SELECT c.relname INTO name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'message_payloads'::regclass
      AND c.relname < 'message_payloads_' || to_char((clock_timestamp() - interval '1 minute') AT TIME ZONE 'UTC', 'YYYYMMDD"h"HH24')
    ORDER BY c.relname LIMIT 1;
    IF name IS NULL THEN RETURN NULL; END IF;
    size := pg_total_relation_size(name::regclass);
    -- A count of up to 100,000 rows is exact; of more the statistics know enough for a record.
    EXECUTE format('SELECT count(*) FROM (SELECT FROM %I LIMIT 100001) h', name) INTO held;
    IF held > 100000 THEN
        SELECT greatest(held, c.reltuples::bigint) INTO held FROM pg_class c WHERE c.oid = name::regclass;
    END IF;
    BEGIN
        EXECUTE format('DROP TABLE %I', name);
    EXCEPTION WHEN lock_not_available THEN
        RETURN NULL;
    END;
    IF held > 0 THEN
        INSERT INTO message_log (kind, detail)
        VALUES ('expired', jsonb_build_object('hour', replace(name, 'message_payloads_', ''), 'messages', held, 'bytes', size));
    END IF;
    RETURN held;
END $$;
REVOKE ALL ON FUNCTION quipu_drop_message_hour() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_drop_message_hour() TO quipu;

-- All journals as one list.
CREATE OR REPLACE VIEW journal AS
SELECT position, xid, recorded_at, 'archive' AS room, 'ingested' AS kind, batch::text AS subject,
       jsonb_build_object('source', source, 'offered', offered, 'stored', stored, 'sighted', sighted, 'refused', refused) AS detail
FROM ingest_log
UNION ALL
SELECT l.position, l.xid, l.recorded_at, 'archive', 'relay_' || l.kind, coalesce(l.url, r.url, l.relay::text), l.detail
FROM relay_log l LEFT JOIN relays r ON r.number = l.relay
UNION ALL
SELECT s.position, s.xid, s.recorded_at, 'archive', 'window_' || s.outcome, coalesce(r.url, s.relay::text),
       s.detail || jsonb_build_object('since', s.since, 'until', s.until, 'events', s.events, 'requests', s.requests)
FROM sync_log s LEFT JOIN relays r ON r.number = s.relay
UNION ALL
SELECT position, xid, recorded_at, 'archive', 'relay_checked', relay_url,
       jsonb_build_object('generated_at', generated_at, 'nip11', nip11_id IS NOT NULL, 'nip66', nip66_id IS NOT NULL)
FROM relay_metadata
UNION ALL
SELECT position, xid, recorded_at, 'store', 'erased_' || kind,
       coalesce(encode(event_id, 'hex'), encode(pubkey, 'hex'), month::text), detail || jsonb_build_object('reason', reason)
FROM erasure
UNION ALL
SELECT position, xid, recorded_at, 'store', 'implementation_applied', name, jsonb_build_object('sha256', encode(procedures_sha256, 'hex'))
FROM implementation_log
UNION ALL
SELECT m.position, m.xid, m.recorded_at, 'messages', 'message_' || m.kind,
       coalesce(m.msg_id, a.msg_id)::text,
       CASE m.kind WHEN 'accepted' THEN jsonb_build_object('from', m.sender, 'to', m.recipient, 'bytes', m.payload_bytes, 'expires_at', m.expires_at)
                   WHEN 'expired' THEN m.detail
                   ELSE jsonb_build_object('device', m.device) END
FROM message_log m LEFT JOIN message_log a ON a.position = m.message
UNION ALL
SELECT position, xid, recorded_at, 'messages', 'token_' || kind, wayfarer_id, jsonb_build_object('label', label, 'device', device, 'expires_at', expires_at)
FROM message_tokens;
