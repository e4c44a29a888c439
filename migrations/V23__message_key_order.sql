-- Messages: a batch inserts in the order of its unique keys. Before, two writers with messages of one sender
-- inserted under (sender, client_msg_id) in the order of arrival, and a sender could cause deadlocks at will.

-- Commits sends, acknowledgements and hand-overs. May be sent again: rows that exist already give the same
-- answer as before.
--   sends  msg_ids … payloads   one element per message; ttls as requested, lives after the limit, in
--                               seconds; generations 1 or 2
--   acks   ack_…                one element per acknowledgement, by the message's recipient; time of the
--                               hand-over, NULL for none
--   pushes push_…               one element per hand-over: message number and time, microseconds since 1970
--                               by this server's clock
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
