-- Partitions are in a schema of their own: `\dt` lists the tables, without a hundred months of events and of
-- sightings and the hours of payloads. Queries name the partitioned tables, as before. New partitions are created
-- by functions/months.sql and functions/messages.sql.

-- `quipu retention` of an older binary looks for months in schema public.
CREATE OR REPLACE FUNCTION quipu_oldest_binary() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 28';

CREATE SCHEMA partitions;
COMMENT ON SCHEMA partitions IS 'partitions of events, sightings and message_payloads; queries name these tables';
-- A query of the partitioned table needs no privilege here; a query that names one partition does.
GRANT USAGE ON SCHEMA partitions TO quipu, quipu_reader, quipu_messages_reader;

-- No partition is created, and no row is written, while the partitions move.
SELECT pg_advisory_xact_lock(hashtextextended(l, 0)) FROM unnest(ARRAY['quipu/months', 'quipu/message_hours']) l;
LOCK TABLE events, sightings, message_payloads IN ACCESS EXCLUSIVE MODE;
DO $$
DECLARE partition regclass;
BEGIN
    -- A month that `quipu retention` has detached and not dropped yet is found by its name.
    FOR partition IN
        SELECT c.oid FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
          AND (c.relname ~ '^(events|sightings)_(past|future|y\d{4}m\d{2})$'
               OR EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid
                          AND i.inhparent IN ('events'::regclass, 'sightings'::regclass, 'message_payloads'::regclass)))
        ORDER BY c.relname LOOP
        EXECUTE format('ALTER TABLE %s SET SCHEMA partitions', partition);
    END LOOP;
END $$;
