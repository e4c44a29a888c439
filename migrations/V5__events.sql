-- The archive: Nostr events, who showed them to us, and the batches they came in.

CREATE SEQUENCE ingest_batch AS integer;
CREATE TABLE ingest_log (
    position       bigint      PRIMARY KEY DEFAULT nextval('journal_position'),
    xid            xid8        NOT NULL DEFAULT pg_current_xact_id(),
    recorded_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    batch          integer     NOT NULL CONSTRAINT ingest_log_batch UNIQUE,
    command        uuid        NOT NULL CONSTRAINT ingest_log_command UNIQUE,
    source         text        NOT NULL CONSTRAINT ingest_log_source CHECK (source IN ('relay', 'import')),
    offered        integer     NOT NULL,
    stored         integer     NOT NULL,
    sighted        integer     NOT NULL,
    kinds          integer[]   NOT NULL,
    kind_counts    integer[]   NOT NULL,
    relays         integer[]   NOT NULL,
    relay_counts   integer[]   NOT NULL,
    created_at_min bigint,
    created_at_max bigint,
    refused        jsonb       NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE ingest_log IS 'journal: one row for each committed batch of Nostr events; events and sightings carry its batch number';
COMMENT ON COLUMN ingest_log.position IS 'place in the order of all journals';
COMMENT ON COLUMN ingest_log.xid IS 'transaction that wrote the row, its events and its sightings';
COMMENT ON COLUMN ingest_log.recorded_at IS 'database clock';
COMMENT ON COLUMN ingest_log.batch IS 'number of the batch; it stands in bits 14 to 44 of the numbers of its events';
COMMENT ON COLUMN ingest_log.command IS 'identity of the group commit, looked up before it is ever sent again';
COMMENT ON COLUMN ingest_log.source IS 'relay: from relays. import: from a file';
COMMENT ON COLUMN ingest_log.offered IS 'verified events offered, new or not';
COMMENT ON COLUMN ingest_log.stored IS 'events that were new';
COMMENT ON COLUMN ingest_log.sighted IS 'sightings that were new';
COMMENT ON COLUMN ingest_log.kinds IS 'distinct kinds of the stored events, ascending';
COMMENT ON COLUMN ingest_log.kind_counts IS 'how many of each, in the order of kinds';
COMMENT ON COLUMN ingest_log.relays IS 'relays.number of the new sightings, distinct, ascending';
COMMENT ON COLUMN ingest_log.relay_counts IS 'how many new sightings of each, in the order of relays';
COMMENT ON COLUMN ingest_log.created_at_min IS 'oldest created_at among stored events and new sightings, unix seconds; NULL when there is none';
COMMENT ON COLUMN ingest_log.created_at_max IS 'newest, likewise';
COMMENT ON COLUMN ingest_log.refused IS 'what was offered beside them and refused, by reason: {"bad_signature": n, …}';
CREATE INDEX ingest_log_xid ON ingest_log (xid);
SELECT quipu_make_journal('ingest_log');
GRANT USAGE ON SEQUENCE ingest_batch TO quipu;

-- An event's short name. Its high bits are the month of created_at, so that sightings, which carry nothing else of the event,
-- can be partitioned by the same months; then the batch, then the place in the batch.
--   created_at in unix seconds; months count from January 1970 and end with 4095; place from 0 to 16383
CREATE FUNCTION quipu_month_number(created_at bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    least(4095, (date_part('year', to_timestamp(least(created_at, 10000000000)) AT TIME ZONE 'UTC') - 1970) * 12
              + date_part('month', to_timestamp(least(created_at, 10000000000)) AT TIME ZONE 'UTC') - 1)::bigint;
CREATE FUNCTION quipu_event_number(created_at bigint, batch integer, place bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    (quipu_month_number(created_at) << 45) | (batch::bigint << 14) | place;
CREATE FUNCTION quipu_event_batch(number bigint) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    ((number >> 14) & 2147483647)::integer;
GRANT EXECUTE ON FUNCTION quipu_month_number(bigint), quipu_event_number(bigint, integer, bigint), quipu_event_batch(bigint) TO PUBLIC;

CREATE TABLE events (
    created_at bigint  NOT NULL,
    number     bigint  NOT NULL,
    kind       integer NOT NULL,
    id         bytea   NOT NULL CONSTRAINT events_id CHECK (octet_length(id) = 32),
    pubkey     bytea   NOT NULL CONSTRAINT events_pubkey_length CHECK (octet_length(pubkey) = 32),
    sig        bytea   NOT NULL CONSTRAINT events_sig CHECK (octet_length(sig) = 64),
    tagvalues  text[],
    tags       jsonb,
    content    text,
    raw        bytea,
    PRIMARY KEY (created_at, id)
) PARTITION BY RANGE (created_at);
COMMENT ON TABLE events IS 'journal: signed Nostr events, each stored once, by month of created_at. id = sha256(… created_at …), so (created_at, id) is unique exactly when id is';
COMMENT ON COLUMN events.created_at IS 'as signed, unix seconds';
COMMENT ON COLUMN events.number IS 'our short name: quipu_event_number(created_at, ingest_log.batch, place in the batch)';
COMMENT ON COLUMN events.kind IS 'as signed, 0 to 65535';
COMMENT ON COLUMN events.id IS 'SHA-256 of the signed serialization (NIP-01), 32 bytes';
COMMENT ON COLUMN events.pubkey IS 'author, 32 bytes';
COMMENT ON COLUMN events.sig IS 'BIP-340 signature over id, verified before it was stored, 64 bytes';
COMMENT ON COLUMN events.tagvalues IS 'k:value of each single-letter tag''s first value, in order; uncut here, cut in the index only';
COMMENT ON COLUMN events.tags IS 'as signed; where raw is set, NUL reads as U+2400';
COMMENT ON COLUMN events.content IS 'as signed; where raw is set, NUL reads as U+2400';
COMMENT ON COLUMN events.raw IS 'the event''s JSON exactly as signed, only where it holds NUL, which text and jsonb cannot';

-- Numbers grow in the order of insertion, so a BRIN index finds one in a month at almost no cost.
CREATE INDEX events_number ON events USING brin (number) WITH (pages_per_range = 16);

CREATE TABLE sightings (
    event bigint  NOT NULL,
    relay integer NOT NULL,
    batch integer NOT NULL,
    PRIMARY KEY (event, relay)
) PARTITION BY RANGE (event);
COMMENT ON TABLE sightings IS 'journal: which relay showed us which event, first time only; events_relays is its readable form';
COMMENT ON COLUMN sightings.event IS 'events.number, whose high bits are the month';
COMMENT ON COLUMN sightings.relay IS 'relays.number';
COMMENT ON COLUMN sightings.batch IS 'ingest_log.batch in which the relay first showed it';

-- lz4 where the server has it: TOASTed content and tags decompress several times faster.
DO $$ BEGIN
    ALTER TABLE events ALTER COLUMN content SET COMPRESSION lz4, ALTER COLUMN tags SET COMPRESSION lz4,
                       ALTER COLUMN tagvalues SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported OR invalid_parameter_value THEN NULL;
END $$;

-- A row may leave these two tables only in the transaction that wrote its erasure.
CREATE FUNCTION quipu_refuse_unrecorded_delete() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE recorded boolean; uncovered boolean;
BEGIN
    SELECT EXISTS (SELECT FROM erasure WHERE xid = pg_current_xact_id() AND kind <> 'month') INTO recorded;
    IF recorded AND TG_ARGV[0] = 'events' THEN
        SELECT EXISTS (
            SELECT FROM gone g WHERE NOT EXISTS (
                SELECT FROM erasure e WHERE e.xid = pg_current_xact_id()
                AND ((e.kind = 'event' AND e.event_id = g.id) OR (e.kind = 'pubkey' AND e.pubkey = g.pubkey AND g.created_at <= e.until))))
        INTO uncovered;
    ELSIF recorded THEN
        -- Sightings go while their event is still there to say whose they are.
        SELECT EXISTS (
            SELECT FROM gone g WHERE NOT EXISTS (
                SELECT FROM events v JOIN erasure e ON e.xid = pg_current_xact_id()
                AND ((e.kind = 'event' AND e.event_id = v.id) OR (e.kind = 'pubkey' AND e.pubkey = v.pubkey AND v.created_at <= e.until))
                WHERE v.number = g.event))
        INTO uncovered;
    END IF;
    IF NOT recorded OR uncovered THEN
        RAISE EXCEPTION 'journal % only grows: DELETE is refused', TG_TABLE_NAME
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'single facts leave by `quipu erase`, which records each of them in the same transaction';
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION quipu_make_event_journal(journal regclass, family text) RETURNS void LANGUAGE plpgsql AS $$
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
REVOKE ALL ON FUNCTION quipu_make_event_journal(regclass, text) FROM PUBLIC;
SELECT quipu_make_event_journal('events', 'events');
SELECT quipu_make_event_journal('sightings', 'sightings');

CREATE FUNCTION quipu_month_start(month date) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN extract(epoch FROM month::timestamp)::bigint;

-- Where a month of one of the two tables begins: in seconds for events, in event numbers for sightings.
CREATE FUNCTION quipu_partition_bound(family text, month date, unbounded text) RETURNS text LANGUAGE sql IMMUTABLE RETURN
    CASE WHEN month IS NULL THEN unbounded
         WHEN family = 'events' THEN quipu_month_start(month)::text
         ELSE quipu_event_number(quipu_month_start(month), 0, 0)::text END;

-- One partition of both tables over the months [low, high); NULL is unbounded. The tables are made beside the
-- parent and attached, so that writers wait only for the moment of attaching.
CREATE FUNCTION quipu_attach_partition(suffix text, low date, high date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE family text; partition text;
BEGIN
    FOREACH family IN ARRAY ARRAY['events', 'sightings'] LOOP
        partition := family || '_' || suffix;
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', partition, family);
        PERFORM quipu_make_event_journal(partition::regclass, family);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', family, partition,
                       quipu_partition_bound(family, low, 'MINVALUE'), quipu_partition_bound(family, high, 'MAXVALUE'));
    END LOOP;
END $$;
REVOKE ALL ON FUNCTION quipu_attach_partition(text, date, date) FROM PUBLIC;

-- The last month that has a partition of its own, read from the catalog.
CREATE FUNCTION quipu_last_month() RETURNS date LANGUAGE sql STABLE AS $$
    SELECT max(to_date(substring(c.relname FROM 'events_y(\d{4}m\d{2})$'), 'YYYY"m"MM'))
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'events'::regclass
$$;

-- Months up to two years ahead of `now`. Rows that wait in the far-future partition move to their month;
-- nothing is lost or changed on the way, and the count is checked. Called by the service, about once a day.
CREATE FUNCTION quipu_ensure_months(now_s bigint) RETURNS integer
-- Whoever reads for long is not waited for: everybody else would queue up behind the lock. The caller tries again later.
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
        EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', family, family || '_future');
        EXECUTE format('ALTER TABLE %I RENAME TO %I', family || '_future', family || '_old_future');
    END LOOP;
    WHILE month <= wanted LOOP
        PERFORM quipu_attach_partition('y' || to_char(month, 'YYYY"m"MM'), month, (month + interval '1 month')::date);
        made := made + 1;
        month := (month + interval '1 month')::date;
    END LOOP;
    PERFORM quipu_attach_partition('future', month, NULL);
    FOREACH family IN ARRAY ARRAY['events', 'sightings'] LOOP
        EXECUTE format('INSERT INTO %I SELECT * FROM %I', family, family || '_old_future');
        GET DIAGNOSTICS after = ROW_COUNT;
        EXECUTE format('SELECT count(*) FROM %I', family || '_old_future') INTO before;
        IF before <> after THEN RAISE EXCEPTION 'moving %: % rows became %', family, before, after; END IF;
        EXECUTE format('DROP TABLE %I', family || '_old_future');
    END LOOP;
    RETURN made;
END $$;
REVOKE ALL ON FUNCTION quipu_ensure_months(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_ensure_months(bigint) TO quipu;

-- From the month of the first Nostr events to a fixed month; later ones are the service's to add.
DO $$
DECLARE month date := '2020-11-01';
BEGIN
    PERFORM quipu_attach_partition('past', NULL, month);
    WHILE month < '2027-01-01' LOOP
        PERFORM quipu_attach_partition('y' || to_char(month, 'YYYY"m"MM'), month, (month + interval '1 month')::date);
        month := (month + interval '1 month')::date;
    END LOOP;
    PERFORM quipu_attach_partition('future', month, NULL);
END $$;

CREATE VIEW events_relays AS
SELECT e.id AS event_id, r.url AS relay_url, l.recorded_at AS seen_at, e.created_at
FROM sightings s
JOIN events e ON e.number = s.event
JOIN relays r ON r.number = s.relay
JOIN ingest_log l ON l.batch = s.batch;
COMMENT ON VIEW events_relays IS 'which relay showed which event, and when we first saw it there; a condition on created_at keeps a query to its months';
GRANT SELECT ON events_relays TO quipu, quipu_reader;

-- k:value of each single-letter tag's first value, in order.
CREATE FUNCTION tags_to_tagvalues(tags jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN (
    SELECT array_agg((t ->> 0) || ':' || (t ->> 1) ORDER BY n)
    FROM jsonb_array_elements(tags) WITH ORDINALITY AS x (t, n)
    WHERE length(t ->> 0) = 1 AND t ->> 1 IS NOT NULL);

-- What the tag index holds: values of up to 256 bytes as they are, longer ones as their first 50 characters and a hash,
-- because an index entry has a size limit and an event has none.
CREATE FUNCTION tagvalues_index(tagvalues text[]) RETURNS text[] LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF pg_column_size(tagvalues) <= 256 THEN RETURN tagvalues; END IF;
    RETURN ARRAY(SELECT CASE WHEN octet_length(v) <= 256 THEN v ELSE left(v, 50) || '#' || encode(sha256(convert_to(v, 'UTF8')), 'hex') END
                 FROM unnest(tagvalues) v);
END $$;
GRANT EXECUTE ON FUNCTION tags_to_tagvalues(jsonb), tagvalues_index(text[]) TO PUBLIC;
