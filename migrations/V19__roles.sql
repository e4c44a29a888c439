-- Privileges: analysts cannot read messages or block writers, and external programs write only through three
-- procedures.

-- Roles belong to the whole server; an administrator creates them.
DO $$
DECLARE missing text;
BEGIN
    SELECT string_agg(r, ', ') INTO missing
    FROM unnest(ARRAY['quipu_messages_reader', 'quipu_writer']) r WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = r);
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'missing roles: %', missing USING ERRCODE = 'undefined_object',
            HINT = 'an administrator makes them with the script that `quipu setup-sql` prints';
    END IF;
END $$;
GRANT USAGE ON SCHEMA public TO quipu_messages_reader, quipu_writer;

-- As before, with the role that may read the table as an argument.
DROP FUNCTION quipu_make_journal(regclass);
CREATE FUNCTION quipu_make_journal(journal regclass, reader name DEFAULT 'quipu_reader') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON %s FOR EACH STATEMENT EXECUTE FUNCTION quipu_refuse_change()', journal);
    EXECUTE format('CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION quipu_refuse_change()', journal);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER refuse_change', journal);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER refuse_truncate', journal);
    EXECUTE format('GRANT SELECT, INSERT ON %s TO quipu', journal);
    EXECUTE format('GRANT SELECT ON %s TO %I', journal, reader);
END $$;
REVOKE ALL ON FUNCTION quipu_make_journal(regclass, name) FROM PUBLIC;
DROP FUNCTION quipu_make_changeable(regclass);
CREATE FUNCTION quipu_make_changeable(changeable regclass, reader name DEFAULT 'quipu_reader') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO quipu', changeable);
    EXECUTE format('GRANT SELECT ON %s TO %I', changeable, reader);
END $$;
REVOKE ALL ON FUNCTION quipu_make_changeable(regclass, name) FROM PUBLIC;

-- Only quipu_messages_reader may read messages, their metadata and the hashes of tokens, partitions included.
DO $$
DECLARE private regclass;
BEGIN
    FOR private IN SELECT c.oid FROM pg_class c
                   WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND c.relname LIKE 'message\_%' LOOP
        EXECUTE format('REVOKE ALL ON %s FROM quipu_reader', private);
        EXECUTE format('GRANT SELECT ON %s TO quipu_messages_reader', private);
    END LOOP;
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
        name := 'message_payloads_' || to_char(hour AT TIME ZONE 'UTC', 'YYYYMMDD"h"HH24');
        IF to_regclass('public.' || name) IS NULL THEN
            EXECUTE format('CREATE TABLE %I (LIKE message_payloads INCLUDING ALL)', name);
            PERFORM quipu_make_journal(name::regclass, 'quipu_messages_reader');
            EXECUTE format('ALTER TABLE message_payloads ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, hour, hour + interval '1 hour');
            made := made + 1;
        END IF;
        hour := hour + interval '1 hour';
    END LOOP;
    RETURN made;
END $$;

-- Ends sessions of the roles for people that block the service: with a transaction older than
-- `transaction_s_max` seconds, or with an advisory lock, which every role may take. A lock of quipu_writer
-- counts only after ten seconds. The service calls it every few seconds. Sessions of an administrator are
-- left alone. Returns the number of ended sessions.
CREATE FUNCTION quipu_end_obstructions(transaction_s_max integer) RETURNS integer LANGUAGE sql AS $$
    SELECT count(*) FILTER (WHERE pg_terminate_backend(a.pid))::integer
    FROM pg_stat_activity a
    WHERE a.datname = current_database() AND a.usename IN ('quipu_reader', 'quipu_messages_reader', 'quipu_writer')
      AND (a.xact_start < clock_timestamp() - make_interval(secs => transaction_s_max)
           -- The procedures that quipu_writer may call take such locks themselves, until its transaction
           -- ends.
           OR (a.pid IN (SELECT l.pid FROM pg_locks l WHERE l.locktype = 'advisory' AND l.database = a.datid)
               AND (a.usename <> 'quipu_writer'
                    OR coalesce(a.xact_start, a.state_change) < clock_timestamp() - least(make_interval(secs => transaction_s_max), '10 s'))))
$$;

-- As before, but without waiting: every role may take this lock, and the next tick covers the same entries.
CREATE OR REPLACE FUNCTION quipu_take_tick(cluster bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE drawn bigint; last tick%ROWTYPE; taken bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('quipu/tick', 0)) THEN RETURN NULL; END IF;
    SELECT last_value INTO drawn FROM journal_position;
    SELECT * INTO last FROM tick ORDER BY number DESC LIMIT 1;
    INSERT INTO tick (last_position, system_identifier)
    SELECT drawn, cluster
    WHERE last.number IS NULL OR drawn > last.last_position
       OR EXISTS (SELECT FROM pg_snapshot_xip(last.snapshot) x WHERE pg_visible_in_snapshot(x, pg_current_snapshot()))
       OR (last.taken_at < clock_timestamp() - interval '1 second'
           AND pg_snapshot_xmax(pg_current_snapshot())::text::bigint > pg_snapshot_xmax(last.snapshot)::text::bigint + 1)
    RETURNING number INTO taken;
    RETURN taken;
END $$;

-- Leaves volatile functions to the service alone; functions that only compute or read stay executable by
-- PUBLIC. Runs after migrations and procedures were applied.
CREATE FUNCTION quipu_close_functions() RETURNS void LANGUAGE plpgsql AS $$
DECLARE open regprocedure;
BEGIN
    FOR open IN SELECT p.oid FROM pg_proc p
                WHERE p.pronamespace = 'public'::regnamespace AND p.provolatile = 'v' AND p.prokind = 'f'
                  AND pg_has_role(current_user, p.proowner, 'member')
                  AND has_function_privilege('public', p.oid, 'EXECUTE') LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO quipu', open);
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', open);
    END LOOP;
END $$;
REVOKE ALL ON FUNCTION quipu_close_functions() FROM PUBLIC;

-- Events offered by `insert_event`. Their signatures are unverified, so they are not in `events`: a service
-- verifies them, stores the valid ones, and removes them from this table.
CREATE TABLE event_offers (
    number     bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    offered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    relay      integer     NOT NULL,
    bytes      integer     NOT NULL,
    event      jsonb       NOT NULL,
    failures   integer     NOT NULL DEFAULT 0,
    again_at   timestamptz NOT NULL DEFAULT '-infinity'
);
COMMENT ON TABLE event_offers IS 'working: events offered by insert_event that wait to be verified; truncating it loses offers, which their senders have to repeat';
COMMENT ON COLUMN event_offers.number IS 'order of processing: by arrival, or by the last failure';
COMMENT ON COLUMN event_offers.offered_at IS 'database clock';
COMMENT ON COLUMN event_offers.relay IS 'relays.number of the relay that sent it, as its sender claims';
COMMENT ON COLUMN event_offers.bytes IS 'size of the event''s text in bytes';
COMMENT ON COLUMN event_offers.event IS 'the event as NIP-01 writes it; unverified';
COMMENT ON COLUMN event_offers.failures IS 'how often storing it failed for another reason than a refusal';
COMMENT ON COLUMN event_offers.again_at IS 'time of the next attempt, database clock';
SELECT quipu_make_changeable('event_offers');

-- Whether a text is a relay's URL in Quipu's canonical form (base/relay_url.rs). Accepts less than `quipu
-- relays add`, which converts every spelling into this form: no international names, no `%2e`.
CREATE FUNCTION quipu_is_canonical_relay_url(url text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    part text[] := regexp_match(url, '^(wss?)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?((?:/[!$%&()*+,.0-9:;=@A-Z_a-z~-]+)*)(\?[!$%&()*+,./0-9:;=?@A-Z_a-z~-]+)?$');
    host text := part[2];
BEGIN
    IF part IS NULL OR octet_length(url) > 512 OR length(host) > 253 THEN RETURN false; END IF;
    IF ltrim(part[3], ':')::integer > 65535 OR (part[1], part[3]) IN (('ws', ':80'), ('wss', ':443')) THEN RETURN false; END IF;
    -- Every client resolves such segments.
    IF part[4] ~ '/\.{1,2}(/|$)' OR part[4] ~* '%2e' THEN RETURN false; END IF;
    IF host LIKE '[%' THEN
        BEGIN
            RETURN host(btrim(host, '[]')::inet) = btrim(host, '[]');
        EXCEPTION WHEN invalid_text_representation THEN RETURN false;
        END;
    END IF;
    -- If the last label is a number, the whole host is an IPv4 address.
    IF host ~ '(^|\.)(0x[0-9a-f]*|[0-9]+)$' THEN
        RETURN host ~ '^((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(\.|$)){4}$' AND host !~ '\.$';
    END IF;
    IF host ~ '(^|\.)(xn--|\.|$)' OR host ~ '[^.]{64}' THEN RETURN false; END IF;
    RETURN host !~ '(^|\.)onion$' OR host ~ '(^|\.)[a-z2-7]{54}[aiqy]d\.onion$';
END $$;

COMMENT ON FUNCTION quipu_oldest_binary() IS 'number of the newest migration that a binary must know to run on this schema';
COMMENT ON FUNCTION quipu_make_journal(regclass, name) IS 'turns a table into a journal: triggers refuse UPDATE, DELETE and TRUNCATE, the service may insert and read, the named role may read';
COMMENT ON FUNCTION quipu_make_changeable(regclass, name) IS 'grants of a projection or working table: the service may change it, the named role may read it';
COMMENT ON FUNCTION quipu_take_tick(bigint) IS 'stores the current snapshot as a tick, unless nothing was written since the previous tick; returns its number';
COMMENT ON FUNCTION quipu_record_relay_facts(uuid, integer[], integer[], text[], jsonb[]) IS 'appends facts about known relays to relay_log and updates relays';
COMMENT ON FUNCTION quipu_month_number(bigint) IS 'months from January 1970 to a created_at in unix seconds';
COMMENT ON FUNCTION quipu_refuse_unrecorded_delete() IS 'trigger of events and sightings: a row may be deleted only in the transaction that recorded its erasure';
COMMENT ON FUNCTION quipu_make_event_journal(regclass, text) IS 'as quipu_make_journal, for partitions of events and sightings, whose rows an erasure may remove';
COMMENT ON FUNCTION quipu_month_start(date) IS 'first second of a month, unix seconds';
COMMENT ON FUNCTION quipu_partition_bound(text, date, text) IS 'lower bound of a month''s partition of events (unix seconds) or sightings (event number)';
COMMENT ON FUNCTION quipu_attach_partition(text, date, date) IS 'creates and attaches one partition each of events and sightings, for the months from low (inclusive) to high (exclusive)';
COMMENT ON FUNCTION quipu_last_month() IS 'the last month with its own partition';
COMMENT ON FUNCTION quipu_ensure_months(bigint) IS 'creates partitions for the months up to two years ahead; returns their number';
COMMENT ON FUNCTION tags_to_tagvalues(jsonb) IS 'k:value of each single-letter tag''s first value, in order';
COMMENT ON FUNCTION ingest_log_between(pg_snapshot, pg_snapshot) IS 'entries of ingest_log that the second snapshot sees and the first does not';
COMMENT ON FUNCTION journal_between(pg_snapshot, pg_snapshot) IS 'entries of all journals that the second snapshot sees and the first does not';
COMMENT ON FUNCTION quipu_is_named(text) IS 'whether the operator named a relay with this source';
COMMENT ON FUNCTION quipu_relay_host(text) IS 'host of a relay''s URL';
COMMENT ON FUNCTION quipu_lock_candidates() IS 'takes the lock under which one transaction at a time changes candidates, so that a replay gives the same rows';
COMMENT ON FUNCTION quipu_end_obstructions(integer) IS 'ends sessions of the roles for people that hold an advisory lock or a transaction of more seconds than this; returns their number';
COMMENT ON FUNCTION quipu_close_functions() IS 'revokes EXECUTE on volatile functions from PUBLIC and grants it to the service; runs after migrations and procedures';
COMMENT ON FUNCTION quipu_is_canonical_relay_url(text) IS 'whether a text is a relay''s URL in canonical form';
COMMENT ON FUNCTION quipu_address(integer, bytea, jsonb) IS 'SHA-256 of the address (kind:pubkey:d) of a replaceable event; NULL for other kinds';
COMMENT ON FUNCTION quipu_deletion_targets(bytea, jsonb) IS 'targets of a deletion request (NIP-09): ids, and addresses of its author''s own events';
COMMENT ON FUNCTION quipu_expires_at(jsonb) IS 'unix second from which an event counts as expired (NIP-40); NULL when it does not expire';
COMMENT ON FUNCTION quipu_relay_key(text) IS 'a relay URL in the form used to compare it with requests to vanish';
COMMENT ON FUNCTION quipu_vanish_relays(jsonb) IS 'relays that a request to vanish (NIP-62) names';
COMMENT ON FUNCTION quipu_reaches(text[], text[]) IS 'whether a request to vanish covers one of this archive''s own URLs';
COMMENT ON FUNCTION quipu_covers(erasure, bytea, bytea, bigint, integer) IS 'whether an erasure excludes this event';
COMMENT ON FUNCTION quipu_number_since(bigint) IS 'created_at of the first second of the month of an event number';
COMMENT ON FUNCTION quipu_number_until(bigint) IS 'created_at of the last second of the month of an event number';
COMMENT ON FUNCTION quipu_open_batch(bytea[], bytea[], bigint[], integer[]) IS 'begins a batch of events; returns the places of the events that an erasure excludes';
COMMENT ON FUNCTION quipu_record_vanishing(bigint[], bytea[], bytea[], bigint[], integer[], text[]) IS 'records the requests to vanish among stored events';
COMMENT ON FUNCTION quipu_record_requests(bigint[], bytea[], bigint[], integer[], text[]) IS 'records the deletion requests and expirations among stored events';
COMMENT ON FUNCTION quipu_is_untouched(bigint, bigint, bigint) IS 'whether no erasure since `as_of` concerns events with numbers from low to high';
COMMENT ON FUNCTION quipu_ensure_message_hours(bigint) IS 'creates partitions of message_payloads up to the given hour of expiry, at most 400 days ahead; returns their number';
COMMENT ON FUNCTION quipu_drop_message_hour() IS 'drops the oldest expired hour of payloads; returns the number of its messages, NULL when no hour has expired';
COMMENT ON FUNCTION quipu_newest_message(text) IS 'position of a recipient''s newest message, by one index lookup';
COMMENT ON FUNCTION quipu_move_message_positions(text[], text[]) IS 'advances the read positions of devices past the messages that they have acknowledged';
COMMENT ON FUNCTION quipu_append_messages IS 'appends one batch of sent and acknowledged messages; returns the outcome of each';
COMMENT ON FUNCTION quipu_close_batch IS 'ends a batch of events: its sightings, the progress of relays, and its entry in ingest_log';
COMMENT ON FUNCTION quipu_event_number(bigint, integer, bigint) IS 'number of an event: month, batch and place in the batch';
COMMENT ON FUNCTION quipu_event_batch(bigint) IS 'the batch in which an event with this number was stored';
COMMENT ON FUNCTION quipu_find_candidates IS 'records URLs that events or lists name as candidates, within the given limits';
COMMENT ON FUNCTION quipu_drop_candidates(uuid, integer[], text[], jsonb[]) IS 'drops candidates and records the reasons';
