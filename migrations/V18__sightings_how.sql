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
