-- Messages: one that is acknowledged right after it was handed over has one entry for both, a batch takes fewer statements, and
-- wayfarers stand in the indexes by their hash: a name takes 64 bytes, and these two indexes were a third of what a message cost.

ALTER TABLE message_log ADD COLUMN pushed_at timestamptz;
COMMENT ON COLUMN message_log.pushed_at IS 'pushed, acknowledged: when the message was handed to a socket of this device; NULL: it was not, or another entry says it, or (pushed, before this column was there) at recorded_at';
COMMENT ON COLUMN message_log.kind IS 'accepted: it is on disk. pushed: handed to a socket of this device, which did not acknowledge it at once. acknowledged: by this device. expired: an hour of payloads was dropped';

DROP INDEX message_log_queue, message_log_sent;
CREATE INDEX message_log_queue ON message_log (hashtextextended(recipient, 0), position) WHERE recipient IS NOT NULL;
CREATE INDEX message_log_sent ON message_log (hashtextextended(sender, 0), recorded_at) WHERE sender IS NOT NULL;

-- The same rules as before, in one expression that is read once a statement.
ALTER TABLE message_log DROP CONSTRAINT message_log_kind, DROP CONSTRAINT message_log_subject, ADD CONSTRAINT message_log_subject CHECK (CASE kind
    WHEN 'accepted' THEN msg_id IS NOT NULL AND sender IS NOT NULL AND recipient IS NOT NULL AND ttl_s IS NOT NULL
        AND expires_at IS NOT NULL AND payload_sha256 IS NOT NULL AND payload_bytes IS NOT NULL AND message IS NULL AND pushed_at IS NULL
    WHEN 'acknowledged' THEN message IS NOT NULL AND device IS NOT NULL AND msg_id IS NULL AND sender IS NULL AND recipient IS NULL
    WHEN 'pushed' THEN message IS NOT NULL AND device IS NOT NULL AND msg_id IS NULL AND sender IS NULL AND recipient IS NULL
    WHEN 'expired' THEN message IS NULL AND device IS NULL AND msg_id IS NULL AND sender IS NULL AND recipient IS NULL AND detail IS NOT NULL
    ELSE false END);

DROP FUNCTION quipu_append_messages(uuid[], text[], text[], text[], bigint[], bigint[], bytea[], integer[], smallint[], text[],
    uuid[], text[], text[], bigint[], text[]);

-- Commits what clients asked for. It may be sent again: what was done before is answered as before.
--   sends  msg_ids … payloads   one element a message; ttl_s as asked for, lives_s after the limit; generations 1 or 2
--   acks   ack_…                one element an acknowledgement, by the message's recipient; when it was handed over, NULL for not
--   pushes push_…               one element a hand-over, messages by number, and when; microseconds since 1970 of this server's clock
-- Returns a row for each send and each ack: its place from 0, and the message. status: accepted, repeated (the same client_msg_id and
-- the same message), mismatch (another message), acknowledged, unknown (no such message for this recipient).
CREATE FUNCTION quipu_append_messages(
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
        -- Held until the commit, taken in one order: a recipient's messages become visible in the order of their positions.
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
        -- The others are there: from an earlier attempt of this very call, or under the same client_msg_id.
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
GRANT EXECUTE ON FUNCTION quipu_append_messages(uuid[], text[], text[], text[], bigint[], bigint[], bytea[], integer[], smallint[], text[],
    uuid[], text[], text[], bigint[], bigint[], text[], bigint[]) TO quipu;

-- Where devices go on reading: moves each position up to the first message that is neither acknowledged nor expired.
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
    CROSS JOIN LATERAL (SELECT max(l.position) AS top FROM message_log l
                        WHERE hashtextextended(l.recipient, 0) = hashtextextended(d.recipient, 0) AND l.recipient = d.recipient) t
    LEFT JOIN message_positions o USING (recipient, device)
    WHERE t.top IS NOT NULL
    ORDER BY d.recipient, d.device
    ON CONFLICT (recipient, device) DO UPDATE SET position = excluded.position WHERE p.position < excluded.position
$$;

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
                   ELSE jsonb_strip_nulls(jsonb_build_object('device', m.device, 'pushed_at', m.pushed_at)) END
FROM message_log m LEFT JOIN message_log a ON a.position = m.message
UNION ALL
SELECT position, xid, recorded_at, 'messages', 'token_' || kind, wayfarer_id, jsonb_build_object('label', label, 'device', device, 'expires_at', expires_at)
FROM message_tokens;
