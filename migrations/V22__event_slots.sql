-- Makes event numbers last: a batch takes one slot per offered event instead of 16,384 slots. 45 bits are
-- 3.5e13 slots: enough for 1,000 commits a second of 11 events each for a hundred years. Sightings store the
-- second of the first sighting instead of a batch.

-- Functions that insert_event_batch calls have new arguments.
CREATE OR REPLACE FUNCTION quipu_oldest_binary() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 22';
DROP FUNCTION quipu_close_batch(integer, uuid, text, jsonb, bytea[], bigint[], integer[], bigint[], bigint, bigint, integer[], integer[],
    bigint[], bigint[], integer[], boolean[], bigint);
DROP FUNCTION IF EXISTS insert_event_batch(uuid, text, jsonb, bytea[], bytea[], bigint[], integer[], text[], text[], bytea[], bytea[],
    integer[], integer[], bigint[], bigint[], integer[], boolean[], bigint);
DROP VIEW events_relays;

-- Slots. The numbers of stored events do not change: batch b of the old form had the slots b * 16384 to b *
-- 16384 + 16383. New slots follow the last batch that stored an event. Batches after it own no slots,
-- although they may have used up most of the old numbers.
CREATE SEQUENCE event_slot;
COMMENT ON SEQUENCE event_slot IS 'the last slot that quipu_draw_slots() has drawn';
SELECT setval('event_slot', ((SELECT coalesce(max(batch), 0)::bigint FROM ingest_log WHERE stored > 0) + 1) << 14);
DROP SEQUENCE ingest_batch;

CREATE FUNCTION quipu_slots_max() RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN (1::bigint << 45) - 1;
COMMENT ON FUNCTION quipu_slots_max() IS 'the greatest possible slot: an event number has 45 bits for the slot';

-- Draws `wanted` consecutive slots and returns the first.
CREATE FUNCTION quipu_draw_slots(wanted integer) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE first bigint;
BEGIN
    IF wanted NOT BETWEEN 1 AND 16384 THEN
        RAISE EXCEPTION 'a batch draws 1 to 16384 slots, not %', wanted USING ERRCODE = 'program_limit_exceeded';
    END IF;
    BEGIN
        PERFORM pg_advisory_xact_lock(hashtextextended('quipu/slots', 0));
        first := nextval('event_slot');
        IF wanted > 1 THEN PERFORM setval('event_slot', first + wanted - 1); END IF;
        -- Leaving the block by an exception releases the lock at once instead of at the commit; a sequence
        -- does not roll back.
        RAISE EXCEPTION USING ERRCODE = 'QS001', MESSAGE = 'slots are drawn';
    EXCEPTION WHEN SQLSTATE 'QS001' THEN NULL;
    END;
    IF first + wanted - 1 > quipu_slots_max() THEN
        RAISE EXCEPTION 'the numbers for events are used up: slot % is beyond the last one, %', first + wanted - 1, quipu_slots_max()
            USING ERRCODE = 'QS002', HINT = 'nothing more can be stored in this database; what is stored stays readable';
    END IF;
    RETURN first;
END $$;
COMMENT ON FUNCTION quipu_draw_slots(integer) IS 'draws 1 to 16384 consecutive slots for the events of a batch; returns the first';
REVOKE ALL ON FUNCTION quipu_draw_slots(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_draw_slots(integer) TO quipu;

-- The number of an event: the month of created_at in the high bits, the slot in the low bits.
CREATE FUNCTION quipu_event_number(created_at bigint, slot bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    (quipu_month_number(created_at) << 45) | slot;
COMMENT ON FUNCTION quipu_event_number(bigint, bigint) IS 'events.number: month of created_at (unix seconds) in the high bits, slot in the low 45';
CREATE FUNCTION quipu_event_slot(number bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN number & 35184372088831;
COMMENT ON FUNCTION quipu_event_slot(bigint) IS 'slot of an event number, from ingest_log.batch to batch + slots - 1 of the batch that stored the event';
CREATE OR REPLACE FUNCTION quipu_partition_bound(family text, month date, unbounded text) RETURNS text LANGUAGE sql IMMUTABLE RETURN
    CASE WHEN month IS NULL THEN unbounded
         WHEN family = 'events' THEN quipu_month_start(month)::text
         ELSE quipu_event_number(quipu_month_start(month), 0)::text END;
DROP FUNCTION quipu_event_number(bigint, integer, bigint), quipu_event_batch(bigint);
GRANT EXECUTE ON FUNCTION quipu_slots_max(), quipu_event_number(bigint, bigint), quipu_event_slot(bigint) TO PUBLIC;
COMMENT ON COLUMN events.number IS 'short number of the event: quipu_event_number(created_at, slot), with a slot from ingest_log.batch to batch + slots - 1 of its batch';

-- Seconds in 32 bits, until 2156: counted from 2088-01-19 03:14:08 UTC, which is 2^31 seconds after the start
-- of 2020.
CREATE FUNCTION quipu_seen_at(seen integer) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN to_timestamp(seen::bigint + 3725320448);
CREATE FUNCTION quipu_seen(at timestamptz) RETURNS integer LANGUAGE sql STABLE PARALLEL SAFE RETURN
    (floor(extract(epoch FROM at))::bigint - 3725320448)::integer;
COMMENT ON FUNCTION quipu_seen_at(integer) IS 'the time that sightings.seen encodes, to the second';
COMMENT ON FUNCTION quipu_seen(timestamptz) IS 'a time encoded for sightings.seen: whole seconds, 2020 to 2156';
GRANT EXECUTE ON FUNCTION quipu_seen_at(integer), quipu_seen(timestamptz) TO PUBLIC;

CREATE FUNCTION pg_temp.seen_in(of_batch integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE at timestamptz;
BEGIN
    SELECT l.recorded_at INTO at FROM ingest_log l WHERE l.batch = of_batch;
    RETURN quipu_seen(at);
END $$;
ALTER TABLE sightings ALTER COLUMN batch TYPE integer USING pg_temp.seen_in(batch);
ALTER TABLE sightings RENAME COLUMN batch TO seen;
COMMENT ON COLUMN sightings.seen IS 'time of the first sighting, database clock: quipu_seen_at(seen)';

-- ingest_log.batch becomes the first slot. The view `journal` shows it and follows the rename.
ALTER TABLE ingest_log ADD COLUMN slots integer NOT NULL DEFAULT 0, ADD COLUMN first_slot bigint;
ALTER TABLE ingest_log ALTER COLUMN first_slot TYPE bigint USING CASE WHEN stored > 0 THEN batch::bigint << 14 END,
    ALTER COLUMN slots TYPE integer USING CASE WHEN stored > 0 THEN 16384 ELSE 0 END;
DO $$ BEGIN
    EXECUTE 'CREATE OR REPLACE VIEW journal AS ' || regexp_replace(pg_get_viewdef('journal'), '\((ingest_log\.)?batch\)::text', 'first_slot::text');
END $$;
ALTER TABLE ingest_log DROP COLUMN batch;
ALTER TABLE ingest_log RENAME COLUMN first_slot TO batch;
ALTER TABLE ingest_log ADD CONSTRAINT ingest_log_batch UNIQUE (batch);
COMMENT ON TABLE ingest_log IS 'journal: one row for each committed batch that stored an event or a sighting; found from the numbers of its events';
COMMENT ON COLUMN ingest_log.batch IS 'the first of its slots; NULL when it stored only sightings';
COMMENT ON COLUMN ingest_log.slots IS 'number of slots drawn: the numbers of its events have the slots batch to batch + slots - 1. Batches from before V22 have 16384';
COMMENT ON COLUMN ingest_log.refused IS 'number of events refused in the same batch, by reason: {"bad_signature": n, …}. The sums per relay are in relay_log, kind observed, detail.what = refused';

ALTER TABLE vanish_requests ALTER COLUMN batch TYPE bigint USING batch::bigint << 14;
ALTER TABLE reading ALTER COLUMN batch TYPE bigint USING batch::bigint << 14;

CREATE VIEW events_relays AS
SELECT e.id AS event_id, r.url AS relay_url, quipu_seen_at(s.seen) AS seen_at, e.created_at,
       CASE WHEN s.compared THEN 'compared' ELSE 'shown' END AS how
FROM sightings s
JOIN events e ON e.number = s.event
JOIN relays r ON r.number = s.relay;
COMMENT ON VIEW events_relays IS 'which relay has which event, when Quipu first learnt it (to the second), and how: shown (the relay sent it) or compared (a comparison of ids, NIP-77, showed it; before V18 these count as shown). A condition on created_at limits a query to its months';
GRANT SELECT ON events_relays TO quipu, quipu_reader;

-- Records requests to vanish. Every implementation calls it with the numbers of the events that its batch
-- stored; `first` as in quipu_close_batch, tags as JSON text.
DROP FUNCTION quipu_record_vanishing(bigint[], bytea[], bytea[], bigint[], integer[], text[]);
CREATE FUNCTION quipu_record_vanishing(
    first bigint, stored bigint[], ids bytea[], pubkeys bytea[], created_ats bigint[], kinds integer[], tags text[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF stored IS NULL OR 62 <> ALL (kinds) THEN RETURN; END IF;
    INSERT INTO vanish_requests (request, pubkey, created_at, relays, batch)
    SELECT o.id, o.pubkey, o.created_at, quipu_vanish_relays(o.tags::jsonb), first
    FROM unnest(ids, pubkeys, created_ats, kinds, tags) WITH ORDINALITY AS o (id, pubkey, created_at, kind, tags, place)
    JOIN unnest(stored) AS s (number) ON quipu_event_slot(s.number) - first = o.place - 1
    WHERE o.kind = 62 ORDER BY o.id
    ON CONFLICT DO NOTHING;
END $$;

-- Records deletions and expirations. Implementations that store tags call it with the numbers of the events
-- that their batch stored.
DROP FUNCTION quipu_record_requests(bigint[], bytea[], bigint[], integer[], text[]);
CREATE FUNCTION quipu_record_requests(
    first bigint, stored bigint[], pubkeys bytea[], created_ats bigint[], kinds integer[], tags text[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF stored IS NULL THEN RETURN; END IF;
    WITH asking AS MATERIALIZED (
        -- Few events have such requests, so the text is searched before it is parsed. JSON may also write a
        -- letter as \u0065.
        SELECT s.number, o.pubkey, o.created_at, o.kind, o.tags::jsonb AS tags
        FROM unnest(pubkeys, created_ats, kinds, tags) WITH ORDINALITY AS o (pubkey, created_at, kind, tags, place)
        JOIN unnest(stored) AS s (number) ON quipu_event_slot(s.number) - first = o.place - 1
        WHERE o.kind = 5 OR strpos(o.tags, '"expiration"') > 0 OR strpos(o.tags, '\u00') > 0),
    named AS (
        INSERT INTO deletions (target, request, created_at, pubkey, by_address)
        SELECT t.target, a.number, a.created_at, a.pubkey, t.by_address
        FROM asking a CROSS JOIN LATERAL quipu_deletion_targets(a.pubkey, a.tags) t WHERE a.kind = 5 ORDER BY 1, 2)
    INSERT INTO expirations (event, expires_at)
    SELECT a.number, quipu_expires_at(a.tags) FROM asking a WHERE quipu_expires_at(a.tags) IS NOT NULL ORDER BY 1;
END $$;

-- Ends every batch of events: writes its sightings, the relays' progress, and its entry in ingest_log.
--   first            ingest_log.batch: the first slot of the batch; NULL when it drew none
--   stored_numbers   numbers of the new events
--   oldest, newest   least and greatest created_at of the new events
--   other arguments  as passed to insert_event_batch
-- Returns the number of new sightings.
CREATE FUNCTION quipu_close_batch(
    first bigint, command uuid, source text, refused jsonb, ids bytea[], created_ats bigint[], kinds integer[],
    stored_numbers bigint[], oldest bigint, newest bigint, seen_places integer[], seen_relays integer[],
    known_numbers bigint[], known_created_ats bigint[], known_relays integer[], known_compared boolean[], known_as_of bigint)
RETURNS integer
-- Planned once, because planning took most of the time of a small batch. A generic plan does not know the
-- lengths of lists, so the statements join no two lists (the plan might compare all pairs), never scan a
-- small partition in full (it grows), and give bounds that exclude partitions without opening them.
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    -- For each place, the number of a new event, 0 for other events.
    numbers bigint[] := array_fill(0::bigint, ARRAY[cardinality(ids)]);
    stored bigint;
    low bigint; high bigint; low_number bigint; high_number bigint;
    sighted integer := 0;
    is_untouched boolean;
    now_seen integer := quipu_seen(clock_timestamp());
    relay_list integer[]; relay_counts integer[]; relay_compared integer[]; kind_list integer[]; kind_counts integer[];
BEGIN
    IF cardinality(seen_relays) + cardinality(known_relays) > 0 THEN
        -- Locks held until the commit and taken in one order: no other batch adds sightings of these relays
        -- meanwhile.
        PERFORM pg_advisory_xact_lock(k.key)
        FROM (SELECT DISTINCT hashtextextended('quipu/sightings/' || r, 0) AS key FROM unnest(seen_relays || known_relays) r ORDER BY 1) k;
        FOREACH stored IN ARRAY coalesce(stored_numbers, '{}') LOOP
            numbers[quipu_event_slot(stored) - first + 1] := stored;
        END LOOP;
        SELECT min(c), max(c) INTO low, high FROM unnest(created_ats || known_created_ats) c;
        low_number := quipu_month_number(low) << 45;
        high_number := (quipu_month_number(high) + 1) << 45;
        SELECT quipu_is_untouched(known_as_of, min(c), max(c)) INTO is_untouched FROM unnest(known_created_ats) c;
        -- A separate statement, so that it sees rows that another transaction has just committed.
        WITH found AS MATERIALIZED (
            SELECT n.number, n.relay, min(n.created_at) AS created_at, nullif(bool_and(n.compared), false) AS compared
            FROM (SELECT numbers[s.place + 1] AS number, s.relay, created_ats[s.place + 1] AS created_at, false AS compared
                  FROM unnest(seen_places, seen_relays) AS s (place, relay) WHERE numbers[s.place + 1] <> 0
                  UNION ALL
                  -- Events that other batches stored after the lookup.
                  SELECT e.number, s.relay, e.created_at, false
                  FROM unnest(seen_places, seen_relays) AS s (place, relay)
                  CROSS JOIN LATERAL (SELECT e.number, e.created_at FROM events e
                                      WHERE e.created_at = created_ats[s.place + 1] AND e.id = ids[s.place + 1]
                                        AND e.created_at BETWEEN low AND high LIMIT 1) e
                  WHERE numbers[s.place + 1] = 0
                  UNION ALL
                  SELECT k.number, k.relay, k.created_at, k.compared
                  FROM unnest(known_numbers, known_created_ats, known_relays, known_compared) AS k (number, created_at, relay, compared)
                  WHERE is_untouched OR (SELECT e.number FROM events e
                                         WHERE e.created_at = k.created_at AND e.number = k.number
                                           AND e.created_at BETWEEN low AND high LIMIT 1) IS NOT NULL) n
            -- A subquery with LIMIT uses the index for each sighting; NOT EXISTS may become a join with the
            -- whole month.
            WHERE (SELECT s.relay FROM sightings s WHERE s.event = n.number AND s.relay = n.relay
                   AND s.event >= low_number AND s.event < high_number LIMIT 1) IS NULL
            GROUP BY n.number, n.relay),
        shown AS (
            INSERT INTO sightings (event, relay, seen, compared)
            SELECT f.number, f.relay, now_seen, f.compared FROM found f ORDER BY f.number, f.relay),
        by_relay AS (
            SELECT f.relay, count(*)::integer AS n, count(f.compared)::integer AS compared, min(f.created_at) AS low,
                   max(f.created_at) AS high
            FROM found f GROUP BY f.relay),
        progress AS (
            INSERT INTO relay_progress (relay, last_created_at) SELECT b.relay, b.high FROM by_relay b ORDER BY b.relay
            ON CONFLICT (relay) DO UPDATE SET last_created_at = excluded.last_created_at
            WHERE relay_progress.last_created_at < excluded.last_created_at)
        SELECT coalesce(sum(b.n), 0)::integer, array_agg(b.relay ORDER BY b.relay), array_agg(b.n ORDER BY b.relay),
               CASE WHEN sum(b.compared) > 0 THEN array_agg(b.compared ORDER BY b.relay) END,
               least(oldest, min(b.low)), greatest(newest, max(b.high))
        INTO sighted, relay_list, relay_counts, relay_compared, oldest, newest FROM by_relay b;
    END IF;

    -- A batch that changed nothing is not recorded; otherwise relays would decide how fast the journal grows.
    IF stored_numbers IS NULL AND sighted = 0 THEN RETURN 0; END IF;

    SELECT array_agg(k.kind ORDER BY k.kind), array_agg(k.n ORDER BY k.kind) INTO kind_list, kind_counts
    FROM (SELECT kinds[quipu_event_slot(n) - first + 1] AS kind, count(*)::integer AS n FROM unnest(stored_numbers) n GROUP BY 1) k;
    INSERT INTO ingest_log (batch, slots, command, source, offered, stored, sighted, kinds, kind_counts, relays, relay_counts,
                            relay_compared, created_at_min, created_at_max, refused)
    VALUES (CASE WHEN stored_numbers IS NOT NULL THEN first END, CASE WHEN stored_numbers IS NOT NULL THEN cardinality(ids) ELSE 0 END,
            command, source, greatest(cardinality(ids), cardinality(seen_places) + cardinality(known_numbers)),
            coalesce(cardinality(stored_numbers), 0), sighted,
            coalesce(kind_list, '{}'), coalesce(kind_counts, '{}'), coalesce(relay_list, '{}'), coalesce(relay_counts, '{}'),
            coalesce(relay_compared, '{}'), oldest, newest, refused);
    RETURN sighted;
END $$;
GRANT EXECUTE ON FUNCTION quipu_close_batch(bigint, uuid, text, jsonb, bytea[], bigint[], integer[], bigint[], bigint, bigint, integer[], integer[],
    bigint[], bigint[], integer[], boolean[], bigint) TO quipu;
COMMENT ON FUNCTION quipu_close_batch IS 'ends a batch of events: its sightings, the progress of relays, and its entry in ingest_log';
COMMENT ON FUNCTION quipu_record_vanishing IS 'records the requests to vanish among stored events';
COMMENT ON FUNCTION quipu_record_requests IS 'records the deletion requests and expirations among stored events';
