-- Makes event numbers last: a batch takes one slot per offered event instead of 16,384 slots. 45 bits are
-- 3.5e13 slots: enough for 1,000 commits a second of 11 events each for a hundred years. Sightings store the
-- second of the first sighting instead of a batch.

-- Functions that insert_event_batch calls have new arguments.
CREATE OR REPLACE FUNCTION quipu_oldest_binary() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 22';
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

-- The four functions that are created here are needed by this migration; the current text of all functions is
-- in functions/.
CREATE FUNCTION quipu_event_number(created_at bigint, slot bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    (quipu_month_number(created_at) << 45) | slot;
CREATE OR REPLACE FUNCTION quipu_partition_bound(family text, month date, unbounded text) RETURNS text LANGUAGE sql IMMUTABLE RETURN
    CASE WHEN month IS NULL THEN unbounded
         WHEN family = 'events' THEN quipu_month_start(month)::text
         ELSE quipu_event_number(quipu_month_start(month), 0)::text END;
DROP FUNCTION quipu_event_number(bigint, integer, bigint), quipu_event_batch(bigint);
COMMENT ON COLUMN events.number IS 'short number of the event: quipu_event_number(created_at, slot), with a slot from ingest_log.batch to batch + slots - 1 of its batch';

-- Seconds in 32 bits, until 2156: counted from 2088-01-19 03:14:08 UTC, which is 2^31 seconds after the start
-- of 2020.
CREATE FUNCTION quipu_seen_at(seen integer) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN to_timestamp(seen::bigint + 3725320448);
CREATE FUNCTION quipu_seen(at timestamptz) RETURNS integer LANGUAGE sql STABLE PARALLEL SAFE RETURN
    (floor(extract(epoch FROM at))::bigint - 3725320448)::integer;

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

-- Both have an argument more now.
DROP FUNCTION quipu_record_vanishing(bigint[], bytea[], bytea[], bigint[], integer[], text[]);
DROP FUNCTION quipu_record_requests(bigint[], bytea[], bigint[], integer[], text[]);
