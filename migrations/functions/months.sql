-- Monthly partitions of events and sightings, in schema partitions.

CREATE OR REPLACE FUNCTION quipu_make_event_journal(journal regclass, family text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER refuse_change BEFORE UPDATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION quipu_refuse_change()', journal);
    EXECUTE format('CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION quipu_refuse_change()', journal);
    EXECUTE format('CREATE TRIGGER refuse_delete AFTER DELETE ON %s REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION quipu_refuse_unrecorded_delete(%L)', journal, family);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER refuse_change', journal);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER refuse_truncate', journal);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER refuse_delete', journal);
    EXECUTE format('GRANT SELECT, INSERT ON %s TO quipu', journal);
    EXECUTE format('GRANT SELECT ON %s TO quipu_reader', journal);
END $$;
COMMENT ON FUNCTION quipu_make_event_journal(regclass, text) IS 'as quipu_make_journal, for journals of events, jobs and blobs, whose rows an erasure may remove; family: events, sightings, jobs or blobs';
REVOKE ALL ON FUNCTION quipu_make_event_journal(regclass, text) FROM PUBLIC;

CREATE OR REPLACE FUNCTION quipu_partition_bound(family text, month date, unbounded text) RETURNS text LANGUAGE sql IMMUTABLE RETURN
    CASE WHEN month IS NULL THEN unbounded
         WHEN family = 'events' THEN quipu_month_start(month)::text
         ELSE quipu_event_number(quipu_month_start(month), 0)::text END;
COMMENT ON FUNCTION quipu_partition_bound(text, date, text) IS 'lower bound of a month''s partition of events (unix seconds) or sightings (event number)';

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
COMMENT ON FUNCTION quipu_attach_partition(text, date, date) IS 'creates and attaches one partition each of events and sightings, for the months from low (inclusive) to high (exclusive)';
REVOKE ALL ON FUNCTION quipu_attach_partition(text, date, date) FROM PUBLIC;

-- Read from the catalog.
CREATE OR REPLACE FUNCTION quipu_last_month() RETURNS date LANGUAGE sql STABLE AS $$
    SELECT max(to_date(substring(c.relname FROM 'events_y([0-9]{4}m[0-9]{2})$'), 'YYYY"m"MM'))
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'events'::regclass
$$;
COMMENT ON FUNCTION quipu_last_month() IS 'the last month with its own partition';

-- Creates the months up to two years after `now_s`. Rows of the partition of the far future that belong to
-- them move there unchanged, and their number is checked. The service calls this about once a day.
CREATE OR REPLACE FUNCTION quipu_ensure_months(now_s bigint) RETURNS integer
-- Does not wait for a long read, because all other sessions would queue behind the lock. The caller tries
-- again later, and ends the reading sessions after a minute.
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '500ms' AS $$
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
COMMENT ON FUNCTION quipu_ensure_months(bigint) IS 'creates partitions for the months up to two years ahead; returns their number';
REVOKE ALL ON FUNCTION quipu_ensure_months(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_ensure_months(bigint) TO quipu;
