-- What every journal shares: one order, one way in, no way out.

CREATE SEQUENCE journal_position AS bigint;
COMMENT ON SEQUENCE journal_position IS 'one sequence for all journals: positions are unique across them; commits may become visible out of order';

-- The oldest binary that may run on this schema, named by the number of the newest migration it must know.
-- A later migration that breaks older binaries replaces this function.
CREATE FUNCTION quipu_oldest_binary() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 1';

GRANT USAGE ON SCHEMA public TO quipu, quipu_reader;
GRANT USAGE ON SEQUENCE journal_position TO quipu;
GRANT SELECT ON SEQUENCE journal_position TO quipu;

CREATE FUNCTION quipu_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'journal % only grows: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege',
              HINT = 'whole months leave by `quipu retention`, single facts by `quipu erase`; both leave a record';
END $$;
COMMENT ON FUNCTION quipu_refuse_change() IS 'trigger of every journal table and partition: refuses UPDATE, DELETE and TRUNCATE for every role, empty or full';

-- Turns a table into a journal: refusing triggers that fire for every role and in every replication
-- mode, and the two grants of the service. Never called by the service itself.
CREATE FUNCTION quipu_make_journal(journal regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON %s FOR EACH STATEMENT EXECUTE FUNCTION quipu_refuse_change()', journal);
    EXECUTE format('CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION quipu_refuse_change()', journal);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER refuse_change', journal);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER refuse_truncate', journal);
    EXECUTE format('GRANT SELECT, INSERT ON %s TO quipu', journal);
    EXECUTE format('GRANT SELECT ON %s TO quipu_reader', journal);
END $$;
REVOKE ALL ON FUNCTION quipu_make_journal(regclass) FROM PUBLIC;

-- A projection or working table: the service may change it, analysts may read it.
CREATE FUNCTION quipu_make_changeable(changeable regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO quipu', changeable);
    EXECUTE format('GRANT SELECT ON %s TO quipu_reader', changeable);
END $$;
REVOKE ALL ON FUNCTION quipu_make_changeable(regclass) FROM PUBLIC;
