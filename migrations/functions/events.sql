-- Events and sightings: their numbers, what a batch begins and ends with, and the guard of their rows.

-- Months count from January 1970 and end with 4095. An event's number has its month in the high bits, so that
-- sightings, which have only the number, can be partitioned by the same months.
CREATE OR REPLACE FUNCTION quipu_month_number(created_at bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    least(4095, (date_part('year', to_timestamp(least(created_at, 10000000000)) AT TIME ZONE 'UTC') - 1970) * 12
              + date_part('month', to_timestamp(least(created_at, 10000000000)) AT TIME ZONE 'UTC') - 1)::bigint;
COMMENT ON FUNCTION quipu_month_number(bigint) IS 'months from January 1970 to a created_at in unix seconds';

CREATE OR REPLACE FUNCTION quipu_month_start(month date) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN extract(epoch FROM month::timestamp)::bigint;
COMMENT ON FUNCTION quipu_month_start(date) IS 'first second of a month, unix seconds';

CREATE OR REPLACE FUNCTION quipu_slots_max() RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN (1::bigint << 45) - 1;
COMMENT ON FUNCTION quipu_slots_max() IS 'the greatest possible slot: an event number has 45 bits for the slot';

-- Draws `wanted` consecutive slots and returns the first.
CREATE OR REPLACE FUNCTION quipu_draw_slots(wanted integer) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
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
CREATE OR REPLACE FUNCTION quipu_event_number(created_at bigint, slot bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    (quipu_month_number(created_at) << 45) | slot;
COMMENT ON FUNCTION quipu_event_number(bigint, bigint) IS 'events.number: month of created_at (unix seconds) in the high bits, slot in the low 45';

CREATE OR REPLACE FUNCTION quipu_event_slot(number bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN number & 35184372088831;
COMMENT ON FUNCTION quipu_event_slot(bigint) IS 'slot of an event number, from ingest_log.batch to batch + slots - 1 of the batch that stored the event';

-- The last month, 4095, has no end.
CREATE OR REPLACE FUNCTION quipu_number_since(number bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    extract(epoch FROM make_timestamp(1970 + (number >> 45)::integer / 12, 1 + (number >> 45)::integer % 12, 1, 0, 0, 0))::bigint;
COMMENT ON FUNCTION quipu_number_since(bigint) IS 'created_at of the first second of the month of an event number';

CREATE OR REPLACE FUNCTION quipu_number_until(number bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN number >> 45 >= quipu_month_number(9223372036854775807) THEN 9223372036854775807
         ELSE quipu_number_since(number + (1::bigint << 45)) - 1 END;
COMMENT ON FUNCTION quipu_number_until(bigint) IS 'created_at of the last second of the month of an event number';

-- Seconds in 32 bits, until 2156: counted from 2088-01-19 03:14:08 UTC, which is 2^31 seconds after the start
-- of 2020.
CREATE OR REPLACE FUNCTION quipu_seen_at(seen integer) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN to_timestamp(seen::bigint + 3725320448);
COMMENT ON FUNCTION quipu_seen_at(integer) IS 'the time that sightings.seen encodes, to the second';

CREATE OR REPLACE FUNCTION quipu_seen(at timestamptz) RETURNS integer LANGUAGE sql STABLE PARALLEL SAFE RETURN
    (floor(extract(epoch FROM at))::bigint - 3725320448)::integer;
COMMENT ON FUNCTION quipu_seen(timestamptz) IS 'a time encoded for sightings.seen: whole seconds, 2020 to 2156';

CREATE OR REPLACE FUNCTION tags_to_tagvalues(tags jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN (
    SELECT array_agg((t ->> 0) || ':' || (t ->> 1) ORDER BY n)
    FROM jsonb_array_elements(tags) WITH ORDINALITY AS x (t, n)
    WHERE length(t ->> 0) = 1 AND t ->> 1 IS NOT NULL);
COMMENT ON FUNCTION tags_to_tagvalues(jsonb) IS 'k:value of each single-letter tag''s first value, in order';

-- STRICT lets PostgreSQL conclude from `tagvalues_index(tagvalues) @> …` that tagvalues IS NOT NULL, the
-- condition of the partial index. The length is that of the characters: pg_column_size() of a stored value is its
-- size after compression, so a row could be compared with another text than the one in its index entry. A change
-- of the result needs a new index.
CREATE OR REPLACE FUNCTION tagvalues_index(tagvalues text[]) RETURNS text[] LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    IF octet_length(array_to_string(tagvalues, '')) <= 256 THEN RETURN tagvalues; END IF;
    RETURN ARRAY(SELECT CASE WHEN octet_length(v) <= 256 THEN v ELSE left(v, 50) || '#' || encode(sha256(convert_to(v, 'UTF8')), 'hex') END
                 FROM unnest(tagvalues) v);
END $$;
COMMENT ON FUNCTION tagvalues_index(text[]) IS 'entries of the index on events.tagvalues: values of up to 256 bytes unchanged, longer values as their first 50 characters, # and a SHA-256';

CREATE OR REPLACE FUNCTION quipu_covers(x erasure, id bytea, pubkey bytea, created_at bigint, event_kind integer) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE x.kind WHEN 'event' THEN x.event_id = id
                WHEN 'pubkey' THEN x.pubkey = pubkey AND created_at <= x.until
                WHEN 'vanish' THEN x.pubkey = pubkey AND created_at <= x.until AND event_kind <> 62
                ELSE false END;
COMMENT ON FUNCTION quipu_covers(erasure, bytea, bytea, bigint, integer) IS 'whether an erasure excludes this event';

-- Builds erasure.detail: removed rows of events, removed rows of sightings, and how many of these sightings
-- were learnt by comparing ids.
CREATE OR REPLACE FUNCTION quipu_erasure_detail(events bigint, sightings bigint, compared bigint) RETURNS jsonb LANGUAGE sql IMMUTABLE RETURN
    jsonb_strip_nulls(jsonb_build_object('events', events, 'sightings', sightings, 'compared', nullif(compared, 0)));
COMMENT ON FUNCTION quipu_erasure_detail(bigint, bigint, bigint) IS 'erasure.detail: number of removed events and sightings, and how many of these sightings were learnt by comparing ids (absent for 0)';

-- Trigger of events, sightings and the journals of jobs and blobs. A row may be deleted only in the transaction that recorded its
-- erasure. The event of a sighting is looked up in its own month, so that the cost depends on the number of deleted rows.
CREATE OR REPLACE FUNCTION quipu_refuse_unrecorded_delete() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE mine erasure[]; uncovered boolean := false; left_event bigint;
BEGIN
    mine := ARRAY(SELECT x FROM erasure x WHERE x.xid = pg_current_xact_id() AND x.kind NOT IN ('month', 'past'));
    IF cardinality(mine) > 0 AND TG_ARGV[0] = 'events' THEN
        SELECT EXISTS (SELECT FROM gone g WHERE NOT EXISTS (
            SELECT FROM unnest(mine) x WHERE quipu_covers(x, g.id, g.pubkey, g.created_at, g.kind))) INTO uncovered;
    ELSIF cardinality(mine) > 0 AND TG_ARGV[0] = 'jobs' THEN
        SELECT EXISTS (SELECT FROM gone g WHERE NOT EXISTS (
            SELECT FROM unnest(mine) x WHERE x.kind IN ('job', 'jobs') AND g.job BETWEEN x.first_job AND x.last_job)) INTO uncovered;
    ELSIF cardinality(mine) > 0 AND TG_ARGV[0] = 'blobs' THEN
        SELECT EXISTS (SELECT FROM gone g WHERE NOT EXISTS (
            SELECT FROM unnest(mine) x WHERE x.kind = 'blob' AND x.sha256 = g.sha256)) INTO uncovered;
    ELSIF cardinality(mine) > 0 THEN
        -- Sightings are deleted before their events: the event tells which erasure covers a sighting.
        FOR left_event IN SELECT DISTINCT g.event FROM gone g LOOP
            PERFORM FROM events v, unnest(mine) x
            WHERE v.number = left_event AND v.created_at BETWEEN quipu_number_since(left_event) AND quipu_number_until(left_event)
              AND quipu_covers(x, v.id, v.pubkey, v.created_at, v.kind);
            uncovered := uncovered OR NOT FOUND;
        END LOOP;
    END IF;
    IF cardinality(mine) = 0 OR uncovered THEN
        RAISE EXCEPTION 'journal % only grows: DELETE is refused', TG_TABLE_NAME
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'single facts leave by `quipu erase`, which records each of them in the same transaction';
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION quipu_refuse_unrecorded_delete() IS 'trigger of events, sightings and journals of jobs and blobs: a row may be deleted only in the transaction that recorded its erasure';

-- True if every event that was looked up when `as_of` was the newest erasure still exists. May be false although
-- they exist.
--   low, high   least and greatest created_at of these events
-- `quipu retention` records a month before it drops its partitions.
CREATE OR REPLACE FUNCTION quipu_is_untouched(as_of bigint, low bigint, high bigint) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT NOT EXISTS (SELECT FROM erasure x WHERE x.position > as_of)
       AND NOT EXISTS (SELECT FROM erasure x WHERE x.kind = 'past' AND quipu_month_start(x.month) > low)
       AND NOT EXISTS (SELECT FROM erasure x WHERE x.kind = 'month' AND quipu_month_start(x.month) <= high
                       AND quipu_month_start((x.month + interval '1 month')::date) > low)
$$;
COMMENT ON FUNCTION quipu_is_untouched(bigint, bigint, bigint) IS 'whether no erasure since `as_of` concerns events with numbers from low to high';

-- Begins every batch of events. Takes the lock that an erasure holds exclusively, so that no event is stored while
-- an erasure removes it. Returns the places (from 0) of the events that an erasure excludes.
CREATE OR REPLACE FUNCTION quipu_open_batch(ids bytea[], pubkeys bytea[], created_ats bigint[], kinds integer[]) RETURNS integer[]
LANGUAGE plpgsql AS $$
BEGIN
    -- quipu_draw_slots draws at most as many slots.
    IF cardinality(ids) > 16384 THEN
        RAISE EXCEPTION 'a batch holds at most 16384 events, not %', cardinality(ids) USING ERRCODE = 'program_limit_exceeded';
    END IF;
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('quipu/erasure', 0));
    IF NOT EXISTS (SELECT FROM erasure) THEN RETURN '{}'; END IF;
    RETURN ARRAY(
        WITH offered AS MATERIALIZED (
            SELECT o.id, o.pubkey, o.created_at, o.kind, (o.place - 1)::integer AS place
            FROM unnest(ids, pubkeys, created_ats, kinds) WITH ORDINALITY AS o (id, pubkey, created_at, kind, place))
        SELECT o.place FROM offered o JOIN erasure x ON x.kind = 'event' AND x.event_id = o.id
        UNION
        SELECT o.place FROM offered o JOIN erasure x ON x.kind = 'pubkey' AND x.pubkey = o.pubkey
        WHERE quipu_covers(x, o.id, o.pubkey, o.created_at, o.kind)
        UNION
        SELECT o.place FROM offered o JOIN erasure x ON x.kind = 'vanish' AND x.pubkey = o.pubkey
        WHERE quipu_covers(x, o.id, o.pubkey, o.created_at, o.kind)
        UNION
        SELECT o.place FROM offered o JOIN erasure x ON x.kind = 'month' AND o.created_at >= quipu_month_start(x.month)
           AND o.created_at < quipu_month_start((x.month + interval '1 month')::date)
        UNION
        SELECT o.place FROM offered o JOIN erasure x ON x.kind = 'past' AND o.created_at < quipu_month_start(x.month));
END $$;
COMMENT ON FUNCTION quipu_open_batch(bytea[], bytea[], bigint[], integer[]) IS 'begins a batch of events; returns the places of the events that an erasure excludes';
REVOKE ALL ON FUNCTION quipu_open_batch(bytea[], bytea[], bigint[], integer[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_open_batch(bytea[], bytea[], bigint[], integer[]) TO quipu;

-- Ends every batch of events: writes its sightings, the relays' progress, and its entry in ingest_log.
--   first            the first slot that the batch drew, stored as ingest_log.batch; NULL when it drew none
--   command          id of the group commit, stored as ingest_log.command, by which its outcome is looked up
--   stored_numbers   numbers of the new events
--   oldest, newest   least and greatest created_at of the new events
--   other arguments  as passed to insert_event_batch
-- Returns the number of new sightings.
CREATE OR REPLACE FUNCTION quipu_close_batch(
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
COMMENT ON FUNCTION quipu_close_batch(bigint, uuid, text, jsonb, bytea[], bigint[], integer[], bigint[], bigint, bigint, integer[], integer[], bigint[], bigint[], integer[], boolean[], bigint) IS 'ends a batch of events: its sightings, the progress of relays, and its entry in ingest_log';
REVOKE ALL ON FUNCTION quipu_close_batch(bigint, uuid, text, jsonb, bytea[], bigint[], integer[], bigint[], bigint, bigint, integer[], integer[], bigint[], bigint[], integer[], boolean[], bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_close_batch(bigint, uuid, text, jsonb, bytea[], bigint[], integer[], bigint[], bigint, bigint, integer[], integer[], bigint[], bigint[], integer[], boolean[], bigint) TO quipu;
