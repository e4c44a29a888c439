-- Records how Quipu learnt that a relay has an event: the relay sent it, or a comparison of ids (NIP-77)
-- showed it.

-- insert_event_batch has new arguments.
CREATE OR REPLACE FUNCTION quipu_oldest_binary() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 18';
DROP FUNCTION IF EXISTS insert_event_batch(uuid, text, jsonb, bytea[], bytea[], bigint[], integer[], text[], text[], bytea[], bytea[],
    integer[], integer[], bigint[], bigint[], integer[], bigint);
DROP FUNCTION quipu_close_batch(integer, uuid, text, jsonb, bytea[], bigint[], integer[], bigint[], bigint, bigint, integer[], integer[],
    bigint[], bigint[], integer[], bigint);

-- NULL takes no space, so the usual row does not grow.
ALTER TABLE sightings ADD COLUMN compared boolean;
COMMENT ON COLUMN sightings.compared IS 'true: learnt by comparing ids (NIP-77), the relay did not send the event. NULL: the relay sent it; rows written before V18 are NULL in both cases. Describes the first sighting: a row does not change when the relay sends the event later';

ALTER TABLE ingest_log ADD COLUMN relay_compared integer[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN ingest_log.relay_compared IS 'how many sightings of relay_counts were learnt by comparing ids (NIP-77), in the order of relays; empty when there are none';

ALTER TABLE relay_totals ADD COLUMN compared bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN relay_totals.sightings IS 'number of distinct events that the relay is known to have';
COMMENT ON COLUMN relay_totals.compared IS 'how many of these sightings were learnt by comparing ids (NIP-77)';

-- Builds erasure.detail: removed rows of events, removed rows of sightings, and how many of these sightings
-- were learnt by comparing ids.
CREATE FUNCTION quipu_erasure_detail(events bigint, sightings bigint, compared bigint) RETURNS jsonb LANGUAGE sql IMMUTABLE RETURN
    jsonb_strip_nulls(jsonb_build_object('events', events, 'sightings', sightings, 'compared', nullif(compared, 0)));
COMMENT ON FUNCTION quipu_erasure_detail(bigint, bigint, bigint) IS 'erasure.detail: number of removed events and sightings, and how many of these sightings were learnt by comparing ids (absent for 0)';

CREATE OR REPLACE VIEW events_relays AS
SELECT e.id AS event_id, r.url AS relay_url, l.recorded_at AS seen_at, e.created_at,
       CASE WHEN s.compared THEN 'compared' ELSE 'shown' END AS how
FROM sightings s
JOIN events e ON e.number = s.event
JOIN relays r ON r.number = s.relay
JOIN ingest_log l ON l.batch = s.batch;
COMMENT ON VIEW events_relays IS 'which relay has which event, when Quipu first learnt it, and how: shown (the relay sent it) or compared (a comparison of ids, NIP-77, showed it; before V18 these count as shown). A condition on created_at limits a query to its months';
COMMENT ON TABLE sightings IS 'journal: which relay has which event, only the first sighting; events_relays is its readable form';
COMMENT ON COLUMN sightings.batch IS 'ingest_log.batch of the first sighting';

-- Ends every batch of events: writes its sightings, the relays' progress, and its entry in ingest_log.
--   this             number of the batch
--   stored_numbers   numbers of the new events
--   oldest, newest   least and greatest created_at of the new events
--   other arguments  as passed to insert_event_batch
-- Returns the number of new sightings.
CREATE FUNCTION quipu_close_batch(
    this integer, command uuid, source text, refused jsonb, ids bytea[], created_ats bigint[], kinds integer[],
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
    relay_list integer[]; relay_counts integer[]; relay_compared integer[]; kind_list integer[]; kind_counts integer[];
BEGIN
    IF cardinality(seen_relays) + cardinality(known_relays) > 0 THEN
        -- Locks held until the commit and taken in one order: no other batch adds sightings of these relays
        -- meanwhile.
        PERFORM pg_advisory_xact_lock(k.key)
        FROM (SELECT DISTINCT hashtextextended('quipu/sightings/' || r, 0) AS key FROM unnest(seen_relays || known_relays) r ORDER BY 1) k;
        FOREACH stored IN ARRAY coalesce(stored_numbers, '{}') LOOP
            numbers[(stored & 16383) + 1] := stored;
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
            INSERT INTO sightings (event, relay, batch, compared) SELECT f.number, f.relay, this, f.compared FROM found f ORDER BY f.number, f.relay),
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

    -- A batch without new rows is recorded only for its refusals.
    IF stored_numbers IS NULL AND sighted = 0 AND refused = '{}' THEN RETURN 0; END IF;

    SELECT array_agg(k.kind ORDER BY k.kind), array_agg(k.n ORDER BY k.kind) INTO kind_list, kind_counts
    FROM (SELECT kinds[(n & 16383) + 1] AS kind, count(*)::integer AS n FROM unnest(stored_numbers) n GROUP BY 1) k;
    INSERT INTO ingest_log (batch, command, source, offered, stored, sighted, kinds, kind_counts, relays, relay_counts,
                            relay_compared, created_at_min, created_at_max, refused)
    VALUES (this, command, source, greatest(cardinality(ids), cardinality(seen_places) + cardinality(known_numbers)),
            coalesce(cardinality(stored_numbers), 0), sighted,
            coalesce(kind_list, '{}'), coalesce(kind_counts, '{}'), coalesce(relay_list, '{}'), coalesce(relay_counts, '{}'),
            coalesce(relay_compared, '{}'), oldest, newest, refused);
    RETURN sighted;
END $$;
GRANT EXECUTE ON FUNCTION quipu_close_batch(integer, uuid, text, jsonb, bytea[], bigint[], integer[], bigint[], bigint, bigint, integer[], integer[],
    bigint[], bigint[], integer[], boolean[], bigint) TO quipu;
