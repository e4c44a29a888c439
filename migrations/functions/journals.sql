-- What all journals share: guards, grants, ticks, and reading between two ticks.

CREATE OR REPLACE FUNCTION quipu_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'journal % only grows: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege',
              HINT = 'whole months leave by `quipu retention`, single facts by `quipu erase`, payloads when they expire; each leaves a record';
END $$;
COMMENT ON FUNCTION quipu_refuse_change() IS 'trigger of every journal table and partition: refuses UPDATE, DELETE and TRUNCATE for every role, empty or full';

CREATE OR REPLACE FUNCTION quipu_make_journal(journal regclass, reader name DEFAULT 'quipu_reader') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON %s FOR EACH STATEMENT EXECUTE FUNCTION quipu_refuse_change()', journal);
    EXECUTE format('CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION quipu_refuse_change()', journal);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER refuse_change', journal);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER refuse_truncate', journal);
    EXECUTE format('GRANT SELECT, INSERT ON %s TO quipu', journal);
    EXECUTE format('GRANT SELECT ON %s TO %I', journal, reader);
END $$;
COMMENT ON FUNCTION quipu_make_journal(regclass, name) IS 'turns a table into a journal: triggers refuse UPDATE, DELETE and TRUNCATE, the service may insert and read, the named role may read';
REVOKE ALL ON FUNCTION quipu_make_journal(regclass, name) FROM PUBLIC;

CREATE OR REPLACE FUNCTION quipu_make_changeable(changeable regclass, reader name DEFAULT 'quipu_reader') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO quipu', changeable);
    EXECUTE format('GRANT SELECT ON %s TO %I', changeable, reader);
END $$;
COMMENT ON FUNCTION quipu_make_changeable(regclass, name) IS 'grants of a projection or working table: the service may change it, the named role may read it';
REVOKE ALL ON FUNCTION quipu_make_changeable(regclass, name) FROM PUBLIC;

-- Takes a tick, unless another session is taking one or nothing was written since the last. It never waits for the
-- lock: every role may hold an advisory lock, and the next tick covers the same entries. `cluster`: system
-- identifier of the PostgreSQL cluster. Returns the tick's number, NULL for none.
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
COMMENT ON FUNCTION quipu_take_tick(bigint) IS 'stores the current snapshot as a tick, unless nothing was written since the previous tick; returns its number';
REVOKE ALL ON FUNCTION quipu_take_tick(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_take_tick(bigint) TO quipu;

-- Lets an index find the entries that committed late. PostgreSQL does not push `xid IN (SELECT …)` into the
-- branches of the view `journal` that join, so one open transaction made each read scan sync_log (500,000 rows:
-- 214 ms instead of 0.2 ms). It does push a function call.
CREATE OR REPLACE FUNCTION quipu_in_progress(seen pg_snapshot) RETURNS xid8[] LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    RETURN ARRAY(SELECT pg_snapshot_xip(seen));
END $$;
COMMENT ON FUNCTION quipu_in_progress(pg_snapshot) IS 'transactions that had not committed when the snapshot was taken, as an array that an index search can take';

-- The entries that tick `this` sees and tick `last` does not; all that it sees when `last` is NULL. An entry that
-- commits late is in a later batch, so no entry is lost and no reader waits for a long transaction. Entries up to the
-- era's floor come from another cluster, with whose transaction ids nothing can be compared: they count as seen.
CREATE OR REPLACE FUNCTION ingest_log_between(last pg_snapshot, this pg_snapshot) RETURNS SETOF ingest_log LANGUAGE sql STABLE AS $$
    SELECT * FROM ingest_log
    WHERE last IS NULL AND (position <= (SELECT max(floor) FROM era) OR pg_visible_in_snapshot(xid, this))
    UNION ALL
    SELECT * FROM ingest_log
    WHERE xid >= pg_snapshot_xmax(last) AND xid < pg_snapshot_xmax(this) AND pg_visible_in_snapshot(xid, this)
      AND position > (SELECT max(floor) FROM era)
    UNION ALL
    SELECT * FROM ingest_log
    WHERE xid = ANY (quipu_in_progress(last)) AND pg_visible_in_snapshot(xid, this) AND position > (SELECT max(floor) FROM era)
$$;
COMMENT ON FUNCTION ingest_log_between(pg_snapshot, pg_snapshot) IS 'entries of ingest_log that the second snapshot sees and the first does not';

CREATE OR REPLACE FUNCTION journal_between(last pg_snapshot, this pg_snapshot) RETURNS SETOF journal LANGUAGE sql STABLE AS $$
    SELECT * FROM journal
    WHERE xid >= pg_snapshot_xmax(last) AND xid < pg_snapshot_xmax(this) AND pg_visible_in_snapshot(xid, this)
      AND position > (SELECT max(floor) FROM era)
    UNION ALL
    SELECT * FROM journal
    WHERE xid = ANY (quipu_in_progress(last)) AND pg_visible_in_snapshot(xid, this) AND position > (SELECT max(floor) FROM era)
$$;
COMMENT ON FUNCTION journal_between(pg_snapshot, pg_snapshot) IS 'entries of all journals that the second snapshot sees and the first does not';

-- Sessions of the roles for people that block the service:
--   with a transaction or a statement older than `transaction_s_max` seconds: a statement that commits in a loop always has a
--     young transaction;
--   with a lock on a table or another object that is stronger than those of reading and writing, held or waited for. Neither
--     what they may read nor the procedures of quipu_writer need one, and all sessions queue behind it: PostgreSQL takes the
--     lock of CREATE RULE or DROP DATABASE before it looks at privileges. NOTIFY takes a lock on database 0 while it commits;
--   that hold or wait for an advisory lock, which every role may take where no superuser has closed these functions; those who
--     wait would hold it one after the other. A session of quipu_writer counts only if it holds one in a transaction older
--     than ten seconds, or outside a transaction: the procedures that it may call take such locks themselves, until its
--     transaction ends. The lock's own row tells the latter, because pg_stat_activity is read at another moment;
--   with a transaction of any age while it may keep the queue of NOTIFY from being emptied.
-- In the databases that every server has, such sessions fill the table of locks. In any other database only a lock on what all
-- databases share concerns this one. Sessions of an administrator are left alone.
CREATE OR REPLACE FUNCTION quipu_obstructions(transaction_s_max integer)
RETURNS TABLE (pid integer, started_us bigint, role text, reason text) LANGUAGE sql STABLE AS $$
    WITH locks AS MATERIALIZED (
        SELECT l.pid, l.locktype = 'advisory' AS is_advisory, l.locktype <> 'advisory' AND l.database = 0 AS is_shared,
               l.granted, split_part(l.virtualtransaction, '/', 2) = '0' AS is_outside
        FROM pg_locks l
        WHERE l.locktype = 'advisory'
           OR (l.locktype IN ('relation', 'object') AND NOT (l.locktype = 'object' AND l.classid = 'pg_catalog.pg_database'::regclass AND l.objid = 0)
               AND l.mode IN ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')))
    SELECT a.pid, (extract(epoch FROM a.backend_start) * 1000000)::bigint, a.usename::text,
           CASE WHEN k.is_barring THEN 'holds or waits for a lock that stops others'
                WHEN k.is_old THEN format('has a transaction of more than %s s', transaction_s_max)
                WHEN k.is_running THEN format('has run a statement for more than %s s', transaction_s_max)
                WHEN k.is_locking THEN 'holds or waits for an advisory lock' ELSE 'keeps the queue of NOTIFY full' END
    FROM pg_stat_activity a
    CROSS JOIN LATERAL (
        SELECT coalesce(a.xact_start < clock_timestamp() - make_interval(secs => transaction_s_max), false) AS is_old,
               a.state <> 'idle' AND a.query_start < clock_timestamp() - make_interval(secs => transaction_s_max) AS is_running,
               a.pid IN (SELECT l.pid FROM locks l WHERE NOT l.is_advisory) AS is_barring,
               a.pid IN (SELECT l.pid FROM locks l WHERE l.is_shared) AS is_barring_all,
               CASE WHEN a.usename <> 'quipu_writer' THEN a.pid IN (SELECT l.pid FROM locks l WHERE l.is_advisory)
                    ELSE a.pid IN (SELECT l.pid FROM locks l WHERE l.is_advisory AND l.granted AND l.is_outside)
                         OR (a.xact_start < clock_timestamp() - least(make_interval(secs => transaction_s_max), '10 s')
                             AND a.pid IN (SELECT l.pid FROM locks l WHERE l.is_advisory AND l.granted)) END AS is_locking) k
    WHERE a.usename IN ('quipu_reader', 'quipu_messages_reader', 'quipu_writer')
      AND (k.is_barring_all
           OR (a.datname IN (current_database(), 'postgres', 'template1')
               AND (k.is_barring OR k.is_old OR k.is_running OR k.is_locking
                    OR (a.xact_start IS NOT NULL AND (SELECT pg_notification_queue_usage() > 0.5)))))
$$;
COMMENT ON FUNCTION quipu_obstructions(integer) IS 'sessions of the roles for people that hold or wait for a lock that stops others, or have a transaction or statement of more seconds than this: process, start in microseconds since 1970, role, reason';
REVOKE ALL ON FUNCTION quipu_obstructions(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_obstructions(integer) TO quipu;

-- For binaries that do not know quipu_obstructions, and for operators.
CREATE OR REPLACE FUNCTION quipu_end_obstructions(transaction_s_max integer) RETURNS integer LANGUAGE sql AS $$
    SELECT count(*) FILTER (WHERE pg_terminate_backend(o.pid))::integer FROM quipu_obstructions(transaction_s_max) o
$$;
COMMENT ON FUNCTION quipu_end_obstructions(integer) IS 'ends the sessions that quipu_obstructions lists; returns their number';
REVOKE ALL ON FUNCTION quipu_end_obstructions(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_end_obstructions(integer) TO quipu;

-- Ends sessions of the roles for people, however young, for whose locks a statement of Quipu waits. Called while
-- maintenance waits that readers have refused for a minute. Returns the number of ended sessions.
CREATE OR REPLACE FUNCTION quipu_end_blockers() RETURNS integer LANGUAGE sql AS $$
    SELECT count(*) FILTER (WHERE pg_terminate_backend(a.pid))::integer
    FROM pg_stat_activity a
    WHERE a.usename IN ('quipu_reader', 'quipu_messages_reader', 'quipu_writer')
      AND a.pid IN (SELECT unnest(pg_blocking_pids(w.pid)) FROM pg_locks l JOIN pg_stat_activity w ON w.pid = l.pid
                    WHERE NOT l.granted AND w.datname = current_database() AND w.usename IN ('quipu', 'quipu_session', 'quipu_owner'))
$$;
COMMENT ON FUNCTION quipu_end_blockers() IS 'ends sessions of the roles for people that hold a lock for which a statement of Quipu waits; returns their number';
REVOKE ALL ON FUNCTION quipu_end_blockers() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_end_blockers() TO quipu;

-- Leaves volatile functions to the service alone; functions that only compute or read stay executable by
-- PUBLIC. Runs after migrations and procedures were applied.
CREATE OR REPLACE FUNCTION quipu_close_functions() RETURNS void LANGUAGE plpgsql AS $$
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
COMMENT ON FUNCTION quipu_close_functions() IS 'revokes EXECUTE on volatile functions from PUBLIC and grants it to the service; runs after migrations and procedures';
REVOKE ALL ON FUNCTION quipu_close_functions() FROM PUBLIC;

-- A service that cannot migrate checks at its start that the schema is as it needs it.
GRANT SELECT ON refinery_schema_history TO quipu;
