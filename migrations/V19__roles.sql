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

-- As before, with the role that may read the table as an argument. Later migrations call them; their current
-- text is in functions/journals.sql.
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
DROP FUNCTION quipu_make_changeable(regclass);
CREATE FUNCTION quipu_make_changeable(changeable regclass, reader name DEFAULT 'quipu_reader') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO quipu', changeable);
    EXECUTE format('GRANT SELECT ON %s TO %I', changeable, reader);
END $$;

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
-- Its older text would let quipu_reader read the hours that it creates. functions/messages.sql creates it anew.
DROP FUNCTION quipu_ensure_message_hours(bigint);

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

COMMENT ON FUNCTION quipu_oldest_binary() IS 'number of the newest migration that a binary must know to run on this schema';
