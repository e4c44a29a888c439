-- Partitions are in a schema of their own: `\dt` lists the tables, without a hundred months of events and of
-- sightings and the hours of payloads. Queries name the partitioned tables, as before.

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

CREATE OR REPLACE FUNCTION quipu_attach_partition(suffix text, low date, high date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE family text; partition text;
BEGIN
    FOREACH family IN ARRAY ARRAY['events', 'sightings'] LOOP
        partition := format('partitions.%I', family || '_' || suffix);
        -- Created beside the parent and then attached, so that writers wait only for the moment of attaching.
        EXECUTE format('CREATE TABLE %s (LIKE %I INCLUDING ALL)', partition, family);
        PERFORM quipu_make_event_journal(partition::regclass, family);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %s FOR VALUES FROM (%s) TO (%s)', family, partition,
                       quipu_partition_bound(family, low, 'MINVALUE'), quipu_partition_bound(family, high, 'MAXVALUE'));
    END LOOP;
END $$;

-- Creates the months up to two years after `now_s`. Rows of the partition of the far future that belong to
-- them move there unchanged, and their number is checked. The service calls this about once a day.
CREATE OR REPLACE FUNCTION quipu_ensure_months(now_s bigint) RETURNS integer
-- Does not wait for a long read, because all other sessions would queue behind the lock. The caller tries
-- again later.
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    wanted date := date_trunc('month', to_timestamp(least(now_s, 4102444800)) AT TIME ZONE 'UTC' + interval '2 years')::date;
    month date; made integer := 0; family text; before bigint; after bigint;
BEGIN
    IF quipu_last_month() >= wanted THEN RETURN 0; END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('quipu/months', 0));
    month := (quipu_last_month() + interval '1 month')::date;
    IF month > wanted THEN RETURN 0; END IF;
    FOREACH family IN ARRAY ARRAY['events', 'sightings'] LOOP
        EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', family);
        EXECUTE format('ALTER TABLE %I DETACH PARTITION partitions.%I', family, family || '_future');
        EXECUTE format('ALTER TABLE partitions.%I RENAME TO %I', family || '_future', family || '_old_future');
    END LOOP;
    WHILE month <= wanted LOOP
        PERFORM quipu_attach_partition('y' || to_char(month, 'YYYY"m"MM'), month, (month + interval '1 month')::date);
        made := made + 1;
        month := (month + interval '1 month')::date;
    END LOOP;
    PERFORM quipu_attach_partition('future', month, NULL);
    FOREACH family IN ARRAY ARRAY['events', 'sightings'] LOOP
        EXECUTE format('INSERT INTO %I SELECT * FROM partitions.%I', family, family || '_old_future');
        GET DIAGNOSTICS after = ROW_COUNT;
        EXECUTE format('SELECT count(*) FROM partitions.%I', family || '_old_future') INTO before;
        IF before <> after THEN RAISE EXCEPTION 'moving %: % rows became %', family, before, after; END IF;
        EXECUTE format('DROP TABLE partitions.%I', family || '_old_future');
    END LOOP;
    RETURN made;
END $$;

CREATE OR REPLACE FUNCTION quipu_ensure_message_hours(until_s bigint) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    hour timestamptz := date_trunc('hour', clock_timestamp());
    -- At most 400 days ahead: the longest lifetime is a year, and hours are created in advance.
    last timestamptz := least(to_timestamp(until_s), clock_timestamp() + interval '400 days');
    name text; made integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('quipu/message_hours', 0));
    WHILE hour <= last LOOP
        name := 'partitions.message_payloads_' || to_char(hour AT TIME ZONE 'UTC', 'YYYYMMDD"h"HH24');
        IF to_regclass(name) IS NULL THEN
            EXECUTE format('CREATE TABLE %s (LIKE message_payloads INCLUDING ALL)', name);
            PERFORM quipu_make_journal(name::regclass, 'quipu_messages_reader');
            EXECUTE format('ALTER TABLE message_payloads ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)', name, hour, hour + interval '1 hour');
            made := made + 1;
        END IF;
        hour := hour + interval '1 hour';
    END LOOP;
    RETURN made;
END $$;

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
