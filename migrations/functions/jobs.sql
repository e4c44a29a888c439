-- Jobs: states, claims, appends, the table of ready jobs, partitions.
--
-- The functions of each request have one plan, made once a session: planning over all partitions takes longer than the
-- lookups. It may be made while the tables are empty, so nothing in it may depend on their size: each lookup is a subquery
-- that the planner can neither join nor keep (LIMIT, OFFSET 0), and reads by an index.

CREATE OR REPLACE FUNCTION quipu_us(moment timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN
    (extract(epoch FROM moment) * 1000000)::bigint;
COMMENT ON FUNCTION quipu_us(timestamptz) IS 'microseconds since 1970';

CREATE OR REPLACE FUNCTION quipu_at_us(us bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN
    timestamptz 'epoch' + us * interval '1 microsecond';
COMMENT ON FUNCTION quipu_at_us(bigint) IS 'the time that is so many microseconds after 1970';

-- As ingest_log_between.
CREATE OR REPLACE FUNCTION jobs_between(last pg_snapshot, this pg_snapshot) RETURNS SETOF jobs LANGUAGE sql STABLE AS $$
    SELECT * FROM jobs
    WHERE last IS NULL AND (position <= (SELECT max(floor) FROM era) OR pg_visible_in_snapshot(xid, this))
    UNION ALL
    SELECT * FROM jobs
    WHERE xid >= pg_snapshot_xmax(last) AND xid < pg_snapshot_xmax(this) AND pg_visible_in_snapshot(xid, this)
      AND position > (SELECT max(floor) FROM era)
    UNION ALL
    SELECT * FROM jobs
    WHERE xid = ANY (quipu_in_progress(last)) AND pg_visible_in_snapshot(xid, this) AND position > (SELECT max(floor) FROM era)
$$;
COMMENT ON FUNCTION jobs_between(pg_snapshot, pg_snapshot) IS 'entries of jobs that the second snapshot sees and the first does not';

CREATE OR REPLACE FUNCTION job_log_between(last pg_snapshot, this pg_snapshot) RETURNS SETOF job_log LANGUAGE sql STABLE AS $$
    SELECT * FROM job_log
    WHERE last IS NULL AND (position <= (SELECT max(floor) FROM era) OR pg_visible_in_snapshot(xid, this))
    UNION ALL
    SELECT * FROM job_log
    WHERE xid >= pg_snapshot_xmax(last) AND xid < pg_snapshot_xmax(this) AND pg_visible_in_snapshot(xid, this)
      AND position > (SELECT max(floor) FROM era)
    UNION ALL
    SELECT * FROM job_log
    WHERE xid = ANY (quipu_in_progress(last)) AND pg_visible_in_snapshot(xid, this) AND position > (SELECT max(floor) FROM era)
$$;
COMMENT ON FUNCTION job_log_between(pg_snapshot, pg_snapshot) IS 'entries of job_log that the second snapshot sees and the first does not';

CREATE OR REPLACE FUNCTION job_worker_log_between(last pg_snapshot, this pg_snapshot) RETURNS SETOF job_worker_log LANGUAGE sql STABLE AS $$
    SELECT * FROM job_worker_log
    WHERE xid >= pg_snapshot_xmax(last) AND xid < pg_snapshot_xmax(this) AND pg_visible_in_snapshot(xid, this)
      AND position > (SELECT max(floor) FROM era)
    UNION ALL
    SELECT * FROM job_worker_log
    WHERE xid = ANY (quipu_in_progress(last)) AND pg_visible_in_snapshot(xid, this) AND position > (SELECT max(floor) FROM era)
$$;
COMMENT ON FUNCTION job_worker_log_between(pg_snapshot, pg_snapshot) IS 'entries of job_worker_log that the second snapshot sees and the first does not';

-- The present states of jobs, one row per job that exists, by one index lookup each. The planner would read
-- whole tables while the statistics are those of empty ones. `now_us` is the clock at the end of the lookup.
CREATE OR REPLACE FUNCTION quipu_job_states(wanted bigint[])
RETURNS TABLE (job bigint, step integer, kind text, type text, status text, priority smallint, attempt integer, failures integer,
               attempts_max integer, worker text, claim uuid, lease_s integer, expires_us bigint, ready_us bigint, run_at_us bigint,
               is_blocked boolean, logged_us bigint, now_us bigint)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off AS $$
BEGIN
    RETURN QUERY
    SELECT j.job, coalesce(l.step, 0), coalesce(l.kind, 'submitted'), j.type, coalesce(l.status, j.status), coalesce(l.priority, j.priority),
           coalesce(l.attempt, 0), coalesce(l.failures, 0), j.attempts_max, l.worker, l.claim, l.lease_s, quipu_us(l.expires_at),
           quipu_us(CASE WHEN l.step IS NULL OR l.status = 'waiting' THEN j.ready_at ELSE l.ready_at END), quipu_us(j.ready_at),
           -- Only a cancelled job can go back to its dependencies.
           coalesce(l.status = 'cancelled', false) AND EXISTS (
               SELECT FROM unnest(j.depends_on) AS d (job)
               WHERE 'completed' IS DISTINCT FROM (SELECT x.status FROM job_log x WHERE x.job = d.job ORDER BY x.step DESC LIMIT 1)
                 -- One that was removed holds nothing up.
                 AND (SELECT x.job FROM jobs x WHERE x.job = d.job) IS NOT NULL),
           quipu_us(coalesce(l.recorded_at, j.recorded_at)), quipu_us(clock_timestamp())
    FROM unnest(wanted) AS w (job)
    CROSS JOIN LATERAL (SELECT x.job, x.type, x.status, x.priority, x.ready_at, x.attempts_max, x.depends_on, x.recorded_at
                        FROM jobs x WHERE x.job = w.job LIMIT 1) j
    LEFT JOIN LATERAL (SELECT x.* FROM job_log x WHERE x.job = w.job ORDER BY x.step DESC LIMIT 1) l ON true;
END $$;
COMMENT ON FUNCTION quipu_job_states(bigint[]) IS 'present state of each of these jobs; unknown numbers give no row';

-- How attempts of jobs ended, for answers to repeated requests: one row per attempt that has ended.
CREATE OR REPLACE FUNCTION quipu_job_outcomes(wanted bigint[], attempts integer[])
RETURNS TABLE (job bigint, attempt integer, kind text, status text, worker text)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off AS $$
BEGIN
    RETURN QUERY
    SELECT w.job, w.attempt, l.kind, l.status, l.worker
    FROM (SELECT DISTINCT * FROM unnest(wanted, attempts) AS w (job, attempt)) w
    CROSS JOIN LATERAL (
        SELECT x.kind, x.status, x.worker FROM job_log x
        WHERE x.job = w.job AND x.attempt = w.attempt AND x.was = 'running' AND x.status <> 'running' ORDER BY x.step LIMIT 1) l;
END $$;
COMMENT ON FUNCTION quipu_job_outcomes(bigint[], integer[]) IS 'how these attempts ended; an attempt that has not ended gives no row';

-- What could be claimed now: of each type and priority the first `most` jobs in the order in which they became
-- ready. `starts` has five elements per type, one per priority, in microseconds since 1970: the search begins
-- there, because everything before is done or known to the caller. The last row has no job and the time of
-- the search. Another process may claim a job meanwhile, then its next step exists; nothing is decided here.
CREATE OR REPLACE FUNCTION quipu_ready_jobs(types text[], starts bigint[], most integer)
RETURNS TABLE (type text, priority smallint, ready_us bigint, job bigint, step integer, status text, attempt integer, failures integer)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off AS $$
DECLARE
    moment timestamptz;
BEGIN
    -- The search begins after a segment was truncated, not while: it would miss what was copied last.
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('quipu/job_ready', 0));
    moment := clock_timestamp();
    RETURN QUERY
    SELECT t.type, p.priority::smallint, quipu_us(e.ready_at), e.job, e.step, e.status, e.attempt, e.failures
    FROM unnest(types) WITH ORDINALITY AS t (type, nth)
    CROSS JOIN generate_series(1, 5) AS p (priority)
    CROSS JOIN LATERAL (
        SELECT r.ready_at, r.job, r.step, r.status, r.attempt, r.failures FROM job_ready r
        WHERE r.type = t.type AND r.priority = p.priority::smallint
          AND r.ready_at >= quipu_at_us(starts[(t.nth - 1) * 5 + p.priority]) AND r.ready_at <= moment
          AND (SELECT l.step FROM job_log l WHERE l.job = r.job AND l.step = r.step + 1) IS NULL
        ORDER BY r.ready_at, r.job LIMIT most) e
    UNION ALL
    SELECT NULL, NULL, quipu_us(moment), NULL, NULL, NULL, NULL, NULL;
END $$;
COMMENT ON FUNCTION quipu_ready_jobs(text[], bigint[], integer) IS 'jobs that could be claimed now, by type and priority, and the time of the search';

-- What a worker is told about jobs that it claimed.
CREATE OR REPLACE FUNCTION quipu_job_facts(wanted bigint[])
RETURNS TABLE (job bigint, type text, attempts_max integer, source_hash text, source_path text, source_size bigint, tags jsonb, metadata jsonb,
               created_at timestamptz)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off AS $$
BEGIN
    RETURN QUERY
    SELECT j.job, j.type, j.attempts_max, j.source_hash, j.source_path, j.source_size, j.tags, j.metadata, j.recorded_at
    FROM unnest(wanted) AS w (job) CROSS JOIN LATERAL (SELECT x.* FROM jobs x WHERE x.job = w.job LIMIT 1) j;
END $$;
COMMENT ON FUNCTION quipu_job_facts(bigint[]) IS 'jobs as they were submitted';

CREATE OR REPLACE FUNCTION quipu_ready_segment() RETURNS smallint LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT c.value::smallint FROM job_cursors c WHERE c.name = 'segment'), 0::smallint)
$$;
COMMENT ON FUNCTION quipu_ready_segment() IS 'the segment of job_ready that is written';

-- Stores unique keys for new jobs, given in the order of the keys. A key that a transaction in progress is about to store
-- is not waited for: a program that keeps its transaction open would stop all claims. Of a group that has to wait, each
-- half is tried, and so on, at most 32 times. Returns the jobs whose key was not tried or has to be waited for.
CREATE OR REPLACE FUNCTION quipu_take_job_keys(keys bytea[], jobs bigint[]) RETURNS bigint[] LANGUAGE plpgsql SET lock_timeout = '5ms' AS $$
DECLARE
    groups integer[] := ARRAY[1, cardinality(keys)]; first integer; last integer; tries integer := 32; held bigint[] := '{}';
BEGIN
    WHILE cardinality(groups) > 0 LOOP
        first := groups[1]; last := groups[2]; groups := groups[3:];
        IF tries = 0 THEN
            held := held || jobs[first:last];
            CONTINUE;
        END IF;
        BEGIN
            INSERT INTO job_keys (key, job)
            SELECT k.key, k.job FROM unnest(keys[first:last], jobs[first:last]) AS k (key, job) ORDER BY 1, 2 ON CONFLICT DO NOTHING;
        EXCEPTION WHEN lock_not_available THEN
            tries := tries - 1;
            IF first = last THEN
                held := held || jobs[first];
            ELSE
                groups := ARRAY[first, (first + last) / 2, (first + last) / 2 + 1, last] || groups;
            END IF;
        END;
    END LOOP;
    RETURN held;
END $$;
COMMENT ON FUNCTION quipu_take_job_keys(bytea[], bigint[]) IS 'stores unique keys without waiting for transactions in progress; returns the jobs whose key it did not store for that reason';

-- Commits a batch: new steps of jobs, and new jobs. May be sent again: a step that exists and a job that
-- exists are left alone.
--   steps    e_…  one element per step. lease_s for a lease; ready_after_us, counted from now, for a job to be
--                 claimed again. slot and turn for a lease of a type with a limit.
--   new jobs j_…  one element per job. ready_us NULL for now; depends_on as text of an array.
-- Returns a row per inserted step (is_new false, place from 0; moment_us: when it was inserted) and per new job (is_new true):
-- status as it is now; is_known: another job has the same unique key, whose number is `job`; status unknown:
-- a job in depends_on does not exist, and nothing is stored; status contended: a transaction in progress has its key, or
-- the job that had it was removed meanwhile, and nothing is stored; status erased: the job was stored by an earlier
-- attempt and erased since, and is not stored again.
CREATE OR REPLACE FUNCTION quipu_append_jobs(
    e_jobs bigint[], e_steps integer[], e_kinds text[], e_was text[], e_statuses text[], e_types text[], e_priorities smallint[],
    e_attempts integer[], e_failures integer[], e_workers text[], e_claims uuid[], e_leases integer[], e_ready_after_us bigint[],
    e_actors text[], e_whys text[], e_details jsonb[], e_slots integer[], e_turns bigint[],
    j_jobs bigint[], j_types text[], j_priorities smallint[], j_ready_us bigint[], j_attempts_max integer[], j_keys bytea[],
    j_hashes text[], j_paths text[], j_sizes bigint[], j_tags jsonb[], j_metadata jsonb[], j_depends_on text[], j_actors text[])
RETURNS TABLE (is_new boolean, place integer, job bigint, status text, is_known boolean, moment_us bigint)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE
    moment timestamptz := clock_timestamp();
    -- As quipu_ready_segment(), which would be planned anew with each batch.
    segment smallint := coalesce((SELECT c.value::smallint FROM job_cursors c WHERE c.name = 'segment'), 0::smallint);
    granted integer[]; mine boolean[]; unknown boolean[]; waits boolean[];
    new_keys bytea[]; new_jobs bigint[]; held bigint[] := '{}'; contended boolean[];
BEGIN
    IF cardinality(e_jobs) > 0 THEN
        IF cardinality(array_remove(e_slots, NULL)) > 0 THEN
            WITH asked AS (
                SELECT s.* FROM unnest(e_types, e_slots, e_turns, e_jobs, e_attempts, e_claims) WITH ORDINALITY
                    AS s (type, slot, turn, job, attempt, claim, nth) WHERE s.slot IS NOT NULL),
            taken AS (
                INSERT INTO job_slots AS t (type, slot, turn, job, attempt, claim)
                SELECT a.type, a.slot, a.turn, a.job, a.attempt, a.claim FROM asked a ORDER BY 1, 2, 3
                ON CONFLICT DO NOTHING RETURNING t.type, t.slot, t.turn)
            SELECT array_agg(a.nth::integer) INTO granted FROM asked a JOIN taken t USING (type, slot, turn);
        END IF;
        RETURN QUERY
        WITH stored AS (
            INSERT INTO job_log AS l (job, step, recorded_at, kind, was, status, type, priority, attempt, failures, worker, claim, lease_s,
                                      expires_at, ready_at, actor, why, detail)
            SELECT e.job, e.step, moment, e.kind, e.was, e.status, e.type, e.priority, e.attempt, e.failures, e.worker, e.claim, e.lease_s,
                   moment + make_interval(secs => e.lease_s), moment + e.ready_after_us * interval '1 microsecond', e.actor, e.why, e.detail
            FROM unnest(e_jobs, e_steps, e_kinds, e_was, e_statuses, e_types, e_priorities, e_attempts, e_failures, e_workers, e_claims, e_leases,
                        e_ready_after_us, e_actors, e_whys, e_details, e_slots) WITH ORDINALITY
                 AS e (job, step, kind, was, status, type, priority, attempt, failures, worker, claim, lease_s, ready_after_us, actor, why,
                       detail, slot, nth)
            WHERE (e.slot IS NULL OR e.nth = ANY (granted))
              -- A claim that another process is about to commit is passed over instead of waited for.
              AND (e.kind <> 'leased' OR pg_try_advisory_xact_lock(hashtextextended('quipu/claim', e.job)))
              -- A job that was removed since its state was read gets no further step.
              AND (NOT EXISTS (SELECT FROM erasure r WHERE r.kind IN ('job', 'jobs'))
                   OR (SELECT j.job FROM jobs j WHERE j.job = e.job) IS NOT NULL)
            -- Two batches wait for each other's keys. With one order they cannot deadlock.
            ORDER BY e.job
            ON CONFLICT DO NOTHING
            RETURNING l.job, l.step, l.status, l.type, l.priority, l.ready_at, l.attempt, l.failures),
        ready AS (
            INSERT INTO job_ready (segment, type, priority, ready_at, job, step, status, attempt, failures)
            SELECT segment, s.type, s.priority, s.ready_at, s.job, s.step, s.status, s.attempt, s.failures FROM stored s WHERE s.ready_at IS NOT NULL)
        SELECT false, (e.nth - 1)::integer, s.job, s.status, false, quipu_us(moment)
        FROM unnest(e_jobs, e_steps) WITH ORDINALITY AS e (job, step, nth) JOIN stored s ON s.job = e.job AND s.step = e.step;
    END IF;

    IF cardinality(j_jobs) > 0 THEN
        unknown := ARRAY(SELECT j_depends_on[n] IS NOT NULL AND EXISTS (
                             SELECT FROM unnest(j_depends_on[n]::bigint[]) AS d (job) WHERE NOT EXISTS (SELECT FROM jobs x WHERE x.job = d.job))
                         FROM generate_subscripts(j_jobs, 1) n ORDER BY n);
        -- A dependency that is completed by a transaction in progress counts as not completed:
        -- quipu_unblocked_jobs() finds it later.
        waits := ARRAY(SELECT j_depends_on[n] IS NOT NULL AND EXISTS (
                           SELECT FROM unnest(j_depends_on[n]::bigint[]) AS d (job) WHERE 'completed' IS DISTINCT FROM
                               (SELECT l.status FROM job_log l WHERE l.job = d.job ORDER BY l.step DESC LIMIT 1))
                       FROM generate_subscripts(j_jobs, 1) n ORDER BY n);
        SELECT array_agg(k.key ORDER BY k.key, k.job), array_agg(k.job ORDER BY k.key, k.job) INTO new_keys, new_jobs
        FROM unnest(j_keys, j_jobs, unknown) AS k (key, job, is_unknown)
        WHERE k.key IS NOT NULL AND NOT k.is_unknown AND (SELECT x.job FROM job_keys x WHERE x.key = k.key) IS NULL
          -- In the same statement: it sees either the key of an erased job or the record of its erasure.
          AND (SELECT r.first_job FROM erasure r WHERE r.kind = 'job' AND r.first_job = k.job LIMIT 1) IS NULL;
        IF new_keys IS NOT NULL THEN
            held := quipu_take_job_keys(new_keys, new_jobs);
        END IF;
        contended := ARRAY(SELECT j_jobs[n] = ANY (held) FROM generate_subscripts(j_jobs, 1) n ORDER BY n);
        mine := ARRAY(SELECT NOT unknown[n] AND NOT contended[n]
                             AND (j_keys[n] IS NULL OR (SELECT k.job FROM job_keys k WHERE k.key = j_keys[n]) = j_jobs[n])
                      FROM generate_subscripts(j_jobs, 1) n ORDER BY n);
        WITH stored AS (
            INSERT INTO jobs AS j (job, recorded_at, type, status, priority, ready_at, attempts_max, unique_key, source_hash, source_path,
                                   source_size, tags, metadata, depends_on, actor)
            SELECT o.job, moment, o.type, CASE WHEN waits[o.nth] THEN 'waiting' ELSE 'pending' END, o.priority,
                   -- One microsecond apart, so that a search can begin behind any of them.
                   greatest(moment - (cardinality(j_jobs) - o.nth) * interval '1 microsecond', quipu_at_us(o.ready_us)), o.attempts_max, o.key, o.hash, o.path, o.size, o.tags, o.metadata,
                   o.depends_on::bigint[], o.actor
            FROM unnest(j_jobs, j_types, j_priorities, j_ready_us, j_attempts_max, j_keys, j_hashes, j_paths, j_sizes, j_tags, j_metadata,
                        j_depends_on, j_actors) WITH ORDINALITY
                 AS o (job, type, priority, ready_us, attempts_max, key, hash, path, size, tags, metadata, depends_on, actor, nth)
            -- This statement locks `jobs` before it reads, and an erasure waits from then on: both statements see the same of it.
            -- Retention does not count: a number of a partition that it has dropped may be used for the first time now.
            WHERE mine[o.nth] AND (SELECT r.first_job FROM erasure r WHERE r.kind = 'job' AND r.first_job = o.job LIMIT 1) IS NULL
            ORDER BY o.job
            ON CONFLICT DO NOTHING
            RETURNING j.job, j.type, j.priority, j.ready_at, j.status)
        INSERT INTO job_ready (segment, type, priority, ready_at, job, step, status, attempt, failures)
        SELECT segment, s.type, s.priority, s.ready_at, s.job, 0, s.status, 0, 0 FROM stored s WHERE s.status = 'pending';
        RETURN QUERY
        SELECT true, (o.nth - 1)::integer, coalesce(k.job, o.job),
               CASE WHEN k.is_erased THEN 'erased' WHEN unknown[o.nth] THEN 'unknown'
                    -- Without a status: the job that had the key was erased after the key was tried.
                    WHEN contended[o.nth] OR s.status IS NULL THEN 'contended' ELSE s.status END,
               NOT k.is_erased AND s.status IS NOT NULL AND k.job <> o.job, quipu_us(moment)
        FROM unnest(j_jobs, j_keys) WITH ORDINALITY AS o (job, key, nth)
        CROSS JOIN LATERAL (
            SELECT CASE WHEN mine[o.nth] OR unknown[o.nth] OR contended[o.nth] THEN o.job ELSE (SELECT x.job FROM job_keys x WHERE x.key = o.key) END AS job,
                   (SELECT r.first_job FROM erasure r WHERE r.kind = 'job' AND r.first_job = o.job LIMIT 1) IS NOT NULL AS is_erased) k
        LEFT JOIN LATERAL (
            SELECT coalesce((SELECT l.status FROM job_log l WHERE l.job = x.job ORDER BY l.step DESC LIMIT 1), x.status) AS status
            FROM jobs x WHERE x.job = k.job) s ON true;
    END IF;
END $$;
COMMENT ON FUNCTION quipu_append_jobs(bigint[], integer[], text[], text[], text[], text[], smallint[], integer[], integer[], text[], uuid[], integer[], bigint[], text[], text[], jsonb[], integer[], bigint[], bigint[], text[], smallint[], bigint[], integer[], bytea[], text[], text[], bigint[], jsonb[], jsonb[], text[], text[]) IS 'appends one batch of steps and of new jobs; returns what was stored';

-- As quipu_append_jobs, and leases new jobs to workers that wait for them. `l_places` are places of the arrays `j_…`, from 0. A
-- row of a lease has the status 'leased' and that place.
CREATE OR REPLACE FUNCTION quipu_append_and_lease_jobs(
    e_jobs bigint[], e_steps integer[], e_kinds text[], e_was text[], e_statuses text[], e_types text[], e_priorities smallint[],
    e_attempts integer[], e_failures integer[], e_workers text[], e_claims uuid[], e_leases integer[], e_ready_after_us bigint[],
    e_actors text[], e_whys text[], e_details jsonb[], e_slots integer[], e_turns bigint[],
    j_jobs bigint[], j_types text[], j_priorities smallint[], j_ready_us bigint[], j_attempts_max integer[], j_keys bytea[],
    j_hashes text[], j_paths text[], j_sizes bigint[], j_tags jsonb[], j_metadata jsonb[], j_depends_on text[], j_actors text[],
    l_places integer[], l_workers text[], l_claims uuid[], l_leases integer[], l_actors text[])
RETURNS TABLE (is_new boolean, place integer, job bigint, status text, is_known boolean, moment_us bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    stored record; leased record;
BEGIN
    SELECT array_agg(a.is_new) AS are_new, array_agg(a.place) AS places, array_agg(a.job) AS jobs, array_agg(a.status) AS statuses,
           array_agg(a.is_known) AS are_known, max(a.moment_us) AS moment_us INTO stored
    FROM quipu_append_jobs(
        e_jobs, e_steps, e_kinds, e_was, e_statuses, e_types, e_priorities, e_attempts, e_failures, e_workers, e_claims, e_leases,
        e_ready_after_us, e_actors, e_whys, e_details, e_slots, e_turns,
        j_jobs, j_types, j_priorities, j_ready_us, j_attempts_max, j_keys, j_hashes, j_paths, j_sizes, j_tags, j_metadata, j_depends_on, j_actors) a;
    RETURN QUERY
    SELECT s.is_new, s.place, s.job, s.status, s.is_known, stored.moment_us
    FROM unnest(stored.are_new, stored.places, stored.jobs, stored.statuses, stored.are_known) AS s (is_new, place, job, status, is_known);

    SELECT array_agg(s.job) AS jobs, array_agg(l.place) AS places, array_agg(l.worker) AS workers, array_agg(l.claim) AS claims,
           array_agg(l.lease_s) AS leases, array_agg(l.actor) AS actors, array_agg(j_types[l.place + 1]) AS types,
           array_agg(j_priorities[l.place + 1]) AS priorities, count(*)::integer AS number INTO leased
    FROM unnest(l_places, l_workers, l_claims, l_leases, l_actors) AS l (place, worker, claim, lease_s, actor)
    JOIN unnest(stored.are_new, stored.places, stored.jobs, stored.statuses, stored.are_known) AS s (is_new, place, job, status, is_known)
        ON s.is_new AND s.place = l.place AND s.status = 'pending' AND NOT s.is_known;
    IF leased.number > 0 THEN
        RETURN QUERY
        SELECT false, leased.places[a.place + 1], a.job, 'leased', false, a.moment_us
        FROM quipu_append_jobs(
            leased.jobs, array_fill(1, ARRAY[leased.number]), array_fill('leased'::text, ARRAY[leased.number]),
            array_fill('pending'::text, ARRAY[leased.number]), array_fill('running'::text, ARRAY[leased.number]), leased.types, leased.priorities,
            array_fill(1, ARRAY[leased.number]), array_fill(0, ARRAY[leased.number]), leased.workers, leased.claims, leased.leases,
            array_fill(NULL::bigint, ARRAY[leased.number]), leased.actors, array_fill(NULL::text, ARRAY[leased.number]),
            array_fill(NULL::jsonb, ARRAY[leased.number]), array_fill(NULL::integer, ARRAY[leased.number]),
            array_fill(NULL::bigint, ARRAY[leased.number]),
            '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}') a;
    END IF;
END $$;
COMMENT ON FUNCTION quipu_append_and_lease_jobs(bigint[], integer[], text[], text[], text[], text[], smallint[], integer[], integer[], text[], uuid[], integer[], bigint[], text[], text[], jsonb[], integer[], bigint[], bigint[], text[], smallint[], bigint[], integer[], bytea[], text[], text[], bigint[], jsonb[], jsonb[], text[], text[], integer[], text[], uuid[], integer[], text[]) IS 'as quipu_append_jobs, and leases new jobs to workers that wait for them';

-- The same bounds as `check_json` in src/services/jobs/decide/submission.rs; the length is bounded before.
CREATE OR REPLACE FUNCTION quipu_json_fault(value jsonb) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN jsonb_path_exists(value, 'strict $.**{64} ? (@.type() == "array" || @.type() == "object")') THEN 'at most 64 levels are accepted'
         WHEN (SELECT count(*) FROM jsonb_path_query(value, 'strict $.**')) > 10000 THEN 'at most 10000 values are accepted'
         WHEN jsonb_path_exists(value, 'strict $.** ? (@.type() == "number" && (@ > 1e300 || @ < -1e300))') THEN 'no number beyond 1e300 is accepted' END;
COMMENT ON FUNCTION quipu_json_fault(jsonb) IS 'why readers of JSON could not take a value, else NULL';

-- Submits a job in the caller's transaction, for programs on the same database; it runs when that transaction
-- has committed. Returns its number, or that of the job with the same idempotency key or, if `source_hash` is
-- given, of the same type and source hash. NULL arguments stand for the defaults.
CREATE OR REPLACE FUNCTION quipu_submit_job(
    type text, metadata jsonb DEFAULT NULL, priority integer DEFAULT 3, run_at timestamptz DEFAULT NULL, attempts_max integer DEFAULT 3,
    idempotency_key text DEFAULT NULL, source_hash text DEFAULT NULL, depends_on bigint[] DEFAULT NULL, tags jsonb DEFAULT NULL)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET standard_conforming_strings = on AS $$
#variable_conflict use_column
DECLARE
    refused text; number bigint; holder bigint; unique_key bytea; found record;
BEGIN
    refused := CASE
        WHEN coalesce($1, '') = '' OR octet_length($1) > 64 THEN 'type: 1 to 64 bytes are required'
        WHEN $1 = 'quipu.webhook' OR $1 LIKE 'quipu.webhook.%' THEN 'type: quipu.webhook and names below it are reserved'
        WHEN $1 = 'quipu.schedule' OR $1 LIKE 'quipu.schedule.%' THEN 'type: quipu.schedule and names below it are reserved'
        WHEN coalesce($3, 3) NOT BETWEEN 1 AND 5 THEN 'priority: 1 to 5 are accepted'
        WHEN coalesce($5, 3) NOT BETWEEN 1 AND 100 THEN 'attempts_max: 1 to 100 are accepted'
        WHEN coalesce($4, now()) < '1970-01-01 00:00Z' OR coalesce($4, now()) >= '10000-01-01 00:00Z' THEN 'run_at: a time between 1970 and 9999 is required'
        WHEN octet_length($6) NOT BETWEEN 1 AND 256 THEN 'idempotency_key: 1 to 256 bytes are accepted'
        WHEN octet_length($7) NOT BETWEEN 1 AND 256 THEN 'source_hash: 1 to 256 bytes are accepted'
        WHEN octet_length($2::text) > 65536 THEN 'metadata: at most 65536 bytes are accepted'
        WHEN octet_length($9::text) > 4096 THEN 'tags: at most 4096 bytes are accepted'
        WHEN quipu_json_fault($2) IS NOT NULL THEN 'metadata: ' || quipu_json_fault($2)
        WHEN quipu_json_fault($9) IS NOT NULL THEN 'tags: ' || quipu_json_fault($9)
        WHEN cardinality($8) > 64 THEN 'depends_on: at most 64 jobs are accepted'
        WHEN array_position($8, NULL) IS NOT NULL THEN 'depends_on: NULL is not a job' END;
    IF refused IS NOT NULL THEN
        RAISE EXCEPTION 'quipu_submit_job: %', refused USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF EXISTS (SELECT FROM unnest($8) AS d (job) WHERE (SELECT x.job FROM jobs x WHERE x.job = d.job) IS NULL) THEN
        RAISE EXCEPTION 'quipu_submit_job: depends_on: one of the jobs % does not exist', $8 USING ERRCODE = 'invalid_parameter_value';
    END IF;
    unique_key := quipu_job_key($1, $7, $6);
    number := (SELECT k.job FROM job_keys k WHERE k.key = unique_key);
    IF number IS NOT NULL THEN
        RETURN number;
    END IF;
    -- A number is not given back when the transaction is rolled back, so it is drawn after all checks.
    IF EXISTS (SELECT FROM job_cursors c WHERE c.name = 'sql_refused' AND c.updated_at > clock_timestamp() - interval '1 hour') THEN
        RAISE EXCEPTION 'quipu_submit_job: most of the newest job numbers were drawn by transactions that were rolled back'
            USING ERRCODE = 'configuration_limit_exceeded', HINT = 'Jobs are accepted again an hour after that was noticed.';
    END IF;
    number := nextval('job_number');
    IF unique_key IS NOT NULL THEN
        -- Waits for another program that has taken the key. The service does not.
        INSERT INTO job_keys (key, job) VALUES (unique_key, number) ON CONFLICT DO NOTHING;
        holder := (SELECT k.job FROM job_keys k WHERE k.key = unique_key);
        IF holder <> number THEN
            RETURN holder;
        END IF;
    END IF;
    SELECT a.* INTO found FROM quipu_append_jobs(
        '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}',
        ARRAY[number], ARRAY[$1], ARRAY[coalesce($3, 3)::smallint], ARRAY[quipu_us($4)], ARRAY[coalesce($5, 3)], ARRAY[unique_key], ARRAY[$7],
        ARRAY[NULL::text], ARRAY[NULL::bigint], ARRAY[$9], ARRAY[$2], ARRAY[nullif($8, '{}')::text], ARRAY['sql:' || session_user]) a;
    RETURN found.job;
END $$;
COMMENT ON FUNCTION quipu_submit_job(text, jsonb, integer, timestamptz, integer, text, text, bigint[], jsonb) IS 'submits a job in the transaction of the caller; returns its number';
REVOKE ALL ON FUNCTION quipu_submit_job(text, jsonb, integer, timestamptz, integer, text, text, bigint[], jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_submit_job(text, jsonb, integer, timestamptz, integer, text, text, bigint[], jsonb) TO quipu, quipu_writer;

-- Each part is preceded by its length, so that no two jobs have the same text.
CREATE OR REPLACE FUNCTION quipu_job_key(type text, source_hash text, idempotency_key text) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN idempotency_key IS NOT NULL THEN sha256(convert_to('key ' || octet_length(idempotency_key) || ' ' || idempotency_key, 'UTF8'))
         WHEN source_hash IS NOT NULL THEN sha256(convert_to('source ' || octet_length(type) || ' ' || type || ' ' || source_hash, 'UTF8')) END;
COMMENT ON FUNCTION quipu_job_key(text, text, text) IS 'the unique key of a job: by its idempotency key, else by type and source hash, else NULL';

CREATE OR REPLACE FUNCTION quipu_draw_job_numbers(wanted integer) RETURNS SETOF bigint LANGUAGE sql AS $$
    SELECT nextval('job_number') FROM generate_series(1, wanted)
$$;
COMMENT ON FUNCTION quipu_draw_job_numbers(integer) IS 'draws numbers for new jobs';
REVOKE ALL ON FUNCTION quipu_draw_job_numbers(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_draw_job_numbers(integer) TO quipu;

-- Stores jobs of another queue: each as a new job, and as its step 1 the state that it had there, with what else
-- is known of it in `detail`. A job whose unique key is known is left alone, so a batch may be sent again. The
-- arrays have one element per job. Returns a row per job, `place` from 0.
CREATE OR REPLACE FUNCTION quipu_import_jobs(
    i_types text[], i_priorities smallint[], i_attempts_max integer[], i_keys bytea[], i_hashes text[], i_paths text[], i_sizes bigint[],
    i_tags jsonb[], i_metadata jsonb[], i_statuses text[], i_attempts integer[], i_failures integer[], i_ready_us bigint[], i_workers text[],
    i_whys text[], i_details jsonb[], i_actor text)
RETURNS TABLE (place integer, job bigint, is_known boolean)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE
    moment timestamptz := clock_timestamp();
    segment smallint := quipu_ready_segment();
    numbers bigint[]; mine boolean[];
BEGIN
    numbers := ARRAY(SELECT CASE WHEN NOT EXISTS (SELECT FROM job_keys k WHERE k.key = i.key) THEN nextval('job_number') END
                     FROM unnest(i_keys) WITH ORDINALITY AS i (key, nth) ORDER BY i.nth);
    INSERT INTO job_keys (key, job)
    SELECT i.key, i.job FROM unnest(i_keys, numbers) AS i (key, job) WHERE i.job IS NOT NULL ORDER BY 1, 2 ON CONFLICT DO NOTHING;
    mine := ARRAY(SELECT i.job IS NOT NULL AND (SELECT k.job FROM job_keys k WHERE k.key = i.key) = i.job
                  FROM unnest(i_keys, numbers) WITH ORDINALITY AS i (key, job, nth) ORDER BY i.nth);
    WITH given AS MATERIALIZED (
        -- Before now, so that searches that have gone past look again: see quipu_late_jobs().
        SELECT i.*, least(quipu_at_us(i.ready_us), moment - (cardinality(i_keys) - i.nth + 1) * interval '1 microsecond') AS ready_at
        FROM unnest(numbers, mine, i_types, i_priorities, i_attempts_max, i_keys, i_hashes, i_paths, i_sizes, i_tags, i_metadata, i_statuses,
                    i_attempts, i_failures, i_ready_us, i_workers, i_whys, i_details) WITH ORDINALITY
             AS i (job, is_mine, type, priority, attempts_max, key, hash, path, size, tags, metadata, status, attempt, failures, ready_us, worker,
                   why, detail, nth)
        WHERE i.is_mine),
    new_jobs AS (
        INSERT INTO jobs (job, recorded_at, type, status, priority, ready_at, attempts_max, unique_key, source_hash, source_path, source_size,
                          tags, metadata, actor)
        SELECT g.job, moment, g.type, 'pending', g.priority, g.ready_at, g.attempts_max, g.key, g.hash, g.path, g.size, g.tags, g.metadata, i_actor
        FROM given g ORDER BY g.job),
    new_steps AS (
        INSERT INTO job_log (job, step, recorded_at, kind, was, status, type, priority, attempt, failures, worker, ready_at, actor, why, detail)
        SELECT g.job, 1, moment, 'imported', 'pending', g.status, g.type, g.priority, g.attempt, g.failures, g.worker,
               CASE WHEN g.status = 'pending' THEN g.ready_at END, i_actor, g.why, g.detail
        FROM given g ORDER BY g.job)
    INSERT INTO job_ready (segment, type, priority, ready_at, job, step, status, attempt, failures)
    SELECT segment, g.type, g.priority, g.ready_at, g.job, 1, g.status, g.attempt, g.failures FROM given g WHERE g.status = 'pending';
    RETURN QUERY
    SELECT (i.nth - 1)::integer, (SELECT k.job FROM job_keys k WHERE k.key = i.key), NOT i.is_mine
    FROM unnest(i_keys, mine) WITH ORDINALITY AS i (key, is_mine, nth);
END $$;
COMMENT ON FUNCTION quipu_import_jobs(text[], smallint[], integer[], bytea[], text[], text[], bigint[], jsonb[], jsonb[], text[], integer[], integer[], bigint[], text[], text[], jsonb[], text) IS 'stores jobs of another queue with the state that they had there; returns their numbers';
REVOKE ALL ON FUNCTION quipu_import_jobs(text[], smallint[], integer[], bytea[], text[], text[], bigint[], jsonb[], jsonb[], text[], integer[], integer[], bigint[], text[], text[], jsonb[], text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_import_jobs(text[], smallint[], integer[], bytea[], text[], text[], bigint[], jsonb[], jsonb[], text[], integer[], integer[], bigint[], text[], text[], jsonb[], text) TO quipu;

-- Jobs that were leased by these claims and still are, and claims that leased jobs which have ended since: these
-- in a row without a job.
CREATE OR REPLACE FUNCTION quipu_claimed_jobs(claims uuid[])
RETURNS TABLE (claim uuid, worker text, job bigint, type text, priority smallint, attempt integer, failures integer, lease_s integer,
               expires_us bigint, leased_us bigint)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off AS $$
BEGIN
    RETURN QUERY
    SELECT c.claim, c.worker, l.job, l.type, l.priority, l.attempt, l.failures, l.lease_s, quipu_us(l.expires_at), quipu_us(c.recorded_at)
    FROM unnest(claims) AS w (claim)
    CROSS JOIN LATERAL (SELECT x.* FROM job_log x WHERE x.claim = w.claim AND x.kind = 'leased' OFFSET 0) c
    LEFT JOIN LATERAL (
        SELECT z.* FROM (SELECT x.* FROM job_log x WHERE x.job = c.job ORDER BY x.step DESC LIMIT 1) z
        WHERE z.status = 'running' AND z.claim = c.claim) l ON true;
END $$;
COMMENT ON FUNCTION quipu_claimed_jobs(uuid[]) IS 'the jobs that these claims have leased, for answers to repeated claims';

-- The present states of workers, one row per worker that exists.
CREATE OR REPLACE FUNCTION quipu_job_workers(workers text[])
RETURNS TABLE (worker text, step integer, status text, is_enabled boolean, type text, name text, metadata jsonb)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off AS $$
BEGIN
    RETURN QUERY
    SELECT l.worker, l.step, l.status, l.is_enabled, l.type, l.name, l.metadata
    FROM (SELECT DISTINCT unnest(workers) AS worker) w
    CROSS JOIN LATERAL (SELECT x.* FROM job_worker_log x WHERE x.worker = w.worker ORDER BY x.step DESC LIMIT 1) l;
END $$;
COMMENT ON FUNCTION quipu_job_workers(text[]) IS 'present state of each of these workers; unknown ids give no row';

-- The slots of types with a limit: which are free, and the next turn of each.
CREATE OR REPLACE FUNCTION quipu_job_slots(types text[], limits integer[]) RETURNS TABLE (type text, slot integer, next_turn bigint, is_free boolean)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off AS $$
BEGIN
    RETURN QUERY
    SELECT t.type, n.slot, coalesce(s.turn, 0) + 1, l.job IS NULL
    FROM unnest(types, limits) AS t (type, running_max)
    CROSS JOIN LATERAL generate_series(1, t.running_max) AS n (slot)
    LEFT JOIN LATERAL (SELECT x.* FROM job_slots x WHERE x.type = t.type AND x.slot = n.slot ORDER BY x.turn DESC LIMIT 1) s ON true
    LEFT JOIN LATERAL (
        SELECT z.job FROM (SELECT x.* FROM job_log x WHERE x.job = s.job ORDER BY x.step DESC LIMIT 1) z
        WHERE z.status = 'running' AND z.attempt = s.attempt AND z.claim = s.claim) l ON true;
END $$;
COMMENT ON FUNCTION quipu_job_slots(text[], integer[]) IS 'the slots of types of which only so many jobs may run, and which of them are free';

-- Deletes all but the newest turns of slots.
CREATE OR REPLACE FUNCTION quipu_forget_job_slots() RETURNS void LANGUAGE sql AS $$
    DELETE FROM job_slots s USING (SELECT type, slot, max(turn) AS turn FROM job_slots GROUP BY type, slot) n
    WHERE s.type = n.type AND s.slot = n.slot AND s.turn < n.turn
$$;
COMMENT ON FUNCTION quipu_forget_job_slots() IS 'deletes used turns of slots';
REVOKE ALL ON FUNCTION quipu_forget_job_slots() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_forget_job_slots() TO quipu;

-- Jobs whose lease has expired. Leases that ended before `since_us` are settled. Returns at most `most` jobs,
-- and in a row without a job from where the next search begins.
CREATE OR REPLACE FUNCTION quipu_expired_leases(since_us bigint, most integer) RETURNS TABLE (job bigint, expires_us bigint)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off AS $$
DECLARE moment timestamptz := clock_timestamp();
BEGIN
    RETURN QUERY
    WITH over AS MATERIALIZED (
        SELECT l.job, l.expires_at FROM job_log l
        WHERE l.expires_at >= quipu_at_us(since_us) AND l.expires_at <= moment
          AND (SELECT n.step FROM job_log n WHERE n.job = l.job AND n.step = l.step + 1) IS NULL
        ORDER BY l.expires_at LIMIT most)
    SELECT o.job, quipu_us(o.expires_at) FROM over o
    UNION ALL
    SELECT NULL, coalesce(quipu_us(min(o.expires_at)), quipu_us(moment)) FROM over o;
END $$;
COMMENT ON FUNCTION quipu_expired_leases(bigint, integer) IS 'jobs whose lease has expired, and from where the next search begins';

-- Waiting jobs whose dependencies are all completed, as far as one of the two became visible between the
-- snapshots: the entry by which the job waits, or the completion of a dependency. Whichever becomes visible later is
-- found with the other one.
CREATE OR REPLACE FUNCTION quipu_unblocked_jobs(last pg_snapshot, this pg_snapshot) RETURNS SETOF bigint LANGUAGE sql STABLE AS $$
    SELECT j.job FROM (
        SELECT n.job FROM jobs_between(last, this) n WHERE n.depends_on IS NOT NULL
        UNION
        SELECT r.job FROM job_log_between(last, this) r WHERE r.kind = 'retried' AND r.status = 'waiting'
        UNION
        SELECT d.job FROM job_log_between(last, this) c JOIN jobs d ON d.depends_on @> ARRAY[c.job] WHERE c.status = 'completed') n
    JOIN jobs j USING (job)
    WHERE coalesce((SELECT l.status FROM job_log l WHERE l.job = j.job ORDER BY l.step DESC LIMIT 1), j.status) = 'waiting'
      -- As in quipu_job_states().
      AND NOT EXISTS (SELECT FROM unnest(j.depends_on) AS d (job)
                      WHERE 'completed' IS DISTINCT FROM (SELECT l.status FROM job_log l WHERE l.job = d.job ORDER BY l.step DESC LIMIT 1)
                        AND (SELECT x.job FROM jobs x WHERE x.job = d.job) IS NOT NULL)
$$;
COMMENT ON FUNCTION quipu_unblocked_jobs(pg_snapshot, pg_snapshot) IS 'waiting jobs all of whose dependencies are completed, of those for which something became visible between the snapshots';

-- Jobs to claim and expired leases that a search may have gone past since snapshot `last`: those of
-- transactions that were in progress then and have committed; those that were recorded later than they became
-- ready (another priority); and those that SQL programs submitted, because these send no hints.
CREATE OR REPLACE FUNCTION quipu_late_jobs(last pg_snapshot) RETURNS TABLE (type text, priority smallint, ready_us bigint, expired_job bigint)
LANGUAGE sql STABLE AS $$
    SELECT j.type, j.priority, quipu_us(j.ready_at), NULL::bigint FROM jobs j WHERE j.xid = ANY (quipu_in_progress(last)) AND j.status = 'pending'
    UNION ALL
    SELECT j.type, j.priority, quipu_us(j.ready_at), NULL FROM jobs j
    WHERE j.xid >= pg_snapshot_xmax(last) AND j.actor LIKE 'sql:%' AND j.status = 'pending'
    UNION ALL
    SELECT l.type, l.priority, quipu_us(l.ready_at), NULL FROM job_log l WHERE l.xid >= pg_snapshot_xmax(last) AND l.ready_at < l.recorded_at
    UNION ALL
    SELECT l.type, l.priority, quipu_us(l.ready_at), CASE WHEN l.expires_at <= clock_timestamp() THEN l.job END
    FROM job_log l WHERE l.xid = ANY (quipu_in_progress(last)) AND (l.ready_at IS NOT NULL OR l.expires_at <= clock_timestamp())
$$;
COMMENT ON FUNCTION quipu_late_jobs(pg_snapshot) IS 'jobs to claim and expired leases that a search may have gone past since the snapshot';

-- Which of these types have a job that could be claimed now. `starts` as for quipu_ready_jobs().
CREATE OR REPLACE FUNCTION quipu_types_with_ready_jobs(types text[], starts bigint[]) RETURNS SETOF text
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off AS $$
DECLARE moment timestamptz := clock_timestamp();
BEGIN
    RETURN QUERY
    SELECT t.type FROM unnest(types) WITH ORDINALITY AS t (type, nth)
    WHERE EXISTS (
        SELECT FROM generate_series(1, 5) AS p (priority)
        CROSS JOIN LATERAL (
            SELECT r.job FROM job_ready r
            WHERE r.type = t.type AND r.priority = p.priority::smallint
              AND r.ready_at >= quipu_at_us(starts[(t.nth - 1) * 5 + p.priority]) AND r.ready_at <= moment
              AND (SELECT l.step FROM job_log l WHERE l.job = r.job AND l.step = r.step + 1) IS NULL
            ORDER BY r.ready_at, r.job LIMIT 1) e);
END $$;
COMMENT ON FUNCTION quipu_types_with_ready_jobs(text[], bigint[]) IS 'the types, of those given, with a job that could be claimed now';

-- Of each type that has jobs to be claimed now: the oldest of them, the workers that could claim it, and how many
-- jobs of the type run.
CREATE OR REPLACE FUNCTION quipu_job_backlog()
RETURNS TABLE (type text, oldest_job bigint, oldest_at timestamptz, workers bigint, running bigint)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE moment timestamptz := clock_timestamp();
BEGIN
    RETURN QUERY
    WITH online AS MATERIALIZED (
        SELECT w.type, count(*) AS workers FROM job_workers w WHERE w.status = 'online' AND w.is_enabled GROUP BY w.type),
    counted AS MATERIALIZED (
        SELECT c.type, coalesce(sum(c.jobs) FILTER (WHERE c.status IN ('pending', 'failed')), 0) AS waiting,
               coalesce(sum(c.jobs) FILTER (WHERE c.status = 'running'), 0)::bigint AS running
        FROM job_counts c GROUP BY c.type)
    SELECT c.type, e.job, e.ready_at, coalesce(o.workers, 0), c.running
    FROM counted c
    CROSS JOIN LATERAL (
        SELECT h.job, h.ready_at FROM generate_series(1, 5) AS p (priority)
        CROSS JOIN LATERAL (
            SELECT r.job, r.ready_at FROM job_ready r
            WHERE r.type = c.type AND r.priority = p.priority::smallint AND r.ready_at <= moment
              AND (SELECT l.step FROM job_log l WHERE l.job = r.job AND l.step = r.step + 1) IS NULL
            ORDER BY r.ready_at, r.job LIMIT 1) h
        ORDER BY h.ready_at, h.job LIMIT 1) e
    LEFT JOIN online o ON o.type = c.type
    WHERE c.waiting > 0 ORDER BY e.ready_at LIMIT 1000;
END $$;
COMMENT ON FUNCTION quipu_job_backlog() IS 'of each type with jobs that could be claimed now: the oldest of them, workers online, and running jobs';

-- A number that was drawn by a transaction that is rolled back stays unused, and every million of numbers costs two
-- tables. Of 100,000 numbers that are drawn within a day, at least half have to be jobs when the transactions that drew
-- them have ended, or quipu_submit_job() refuses for an hour. Returns whether that begins.
CREATE OR REPLACE FUNCTION quipu_watch_job_numbers() RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    newest bigint := (SELECT n.last_value FROM job_number n);
    -- The number up to which all is judged; up to which to judge next; and from which transaction on.
    known text[] := (SELECT string_to_array(c.value, ' ') FROM job_cursors c WHERE c.name = 'numbers');
    half bigint; stored bigint;
BEGIN
    IF known IS NULL OR known[1]::bigint > newest THEN
        INSERT INTO job_cursors (name, value) VALUES ('numbers', newest::text)
        ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = clock_timestamp();
        RETURN false;
    END IF;
    IF cardinality(known) = 1 THEN
        IF newest - known[1]::bigint >= 100000 THEN
            UPDATE job_cursors c
            SET value = CASE WHEN c.updated_at < clock_timestamp() - interval '1 day' THEN newest::text
                             ELSE format('%s %s %s', known[1], newest, pg_snapshot_xmax(pg_current_snapshot())) END,
                updated_at = clock_timestamp()
            WHERE c.name = 'numbers';
        END IF;
        RETURN false;
    END IF;
    IF pg_snapshot_xmin(pg_current_snapshot()) < known[3]::xid8 THEN
        RETURN false;
    END IF;
    half := (known[2]::bigint - known[1]::bigint) / 2;
    SELECT count(*) INTO stored
    FROM (SELECT FROM jobs j WHERE j.job > known[1]::bigint AND j.job <= known[2]::bigint LIMIT half) s;
    UPDATE job_cursors SET value = known[2], updated_at = clock_timestamp() WHERE name = 'numbers';
    IF stored < half THEN
        INSERT INTO job_cursors (name, value) VALUES ('sql_refused', known[2])
        ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = clock_timestamp();
        RETURN true;
    END IF;
    RETURN false;
END $$;
COMMENT ON FUNCTION quipu_watch_job_numbers() IS 'refuses jobs of SQL programs for an hour when most numbers were drawn by transactions that were rolled back';
REVOKE ALL ON FUNCTION quipu_watch_job_numbers() FROM PUBLIC;

-- The partitions of jobs and job_log for one million of numbers, as far as they are missing. Returns how many.
CREATE OR REPLACE FUNCTION quipu_make_job_partitions(million bigint) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE family text; name text; made integer := 0;
BEGIN
    FOREACH family IN ARRAY ARRAY['jobs', 'job_log'] LOOP
        name := quipu_job_partition(family, million);
        IF to_regclass('partitions.' || name) IS NULL THEN
            EXECUTE format('CREATE TABLE partitions.%I (LIKE %I INCLUDING ALL)', name, family);
            PERFORM quipu_make_event_journal(format('partitions.%I', name)::regclass, 'jobs');
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION partitions.%I FOR VALUES FROM (%s) TO (%s)', family, name,
                           million * 1000000, (million + 1) * 1000000);
            made := made + 1;
        END IF;
    END LOOP;
    RETURN made;
END $$;
COMMENT ON FUNCTION quipu_make_job_partitions(bigint) IS 'creates the partitions of jobs and job_log for one million of numbers, as far as they are missing; returns how many';
REVOKE ALL ON FUNCTION quipu_make_job_partitions(bigint) FROM PUBLIC;

CREATE OR REPLACE FUNCTION quipu_job_partition(family text, million bigint) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    family || '_m' || lpad(million::text, greatest(length(million::text), 4), '0');
COMMENT ON FUNCTION quipu_job_partition(text, bigint) IS 'name of the partition of jobs or job_log for one million of numbers';

-- Partitions of jobs and job_log: a million numbers each, two of them ahead of the newest number.
CREATE OR REPLACE FUNCTION quipu_ensure_job_partitions() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '2s' AS $$
DECLARE newest bigint; made integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('quipu/job_partitions', 0));
    PERFORM quipu_watch_job_numbers();
    newest := (SELECT n.last_value / 1000000 FROM job_number n);
    FOR million IN newest .. newest + 2 LOOP
        made := made + quipu_make_job_partitions(million);
    END LOOP;
    RETURN made;
END $$;
COMMENT ON FUNCTION quipu_ensure_job_partitions() IS 'creates the partitions of jobs and job_log for the coming numbers; returns how many';
REVOKE ALL ON FUNCTION quipu_ensure_job_partitions() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_ensure_job_partitions() TO quipu;
SELECT quipu_ensure_job_partitions();

-- Fills job_ready from the journals if its marks are missing, which shows that it was truncated. Entries that
-- are there already are doubled, which is harmless: the key (job, step) decides. Returns whether it had to.
CREATE OR REPLACE FUNCTION quipu_fill_ready() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('quipu/job_ready', 0));
    IF (SELECT count(*) FROM job_ready r WHERE r.type = '' AND r.priority = 1) >= 2 THEN
        RETURN false;
    END IF;
    INSERT INTO job_ready (segment, type, priority, ready_at, job, step, status, attempt, failures)
    SELECT quipu_ready_segment(), j.type, coalesce(l.priority, j.priority), coalesce(l.ready_at, j.ready_at), j.job, coalesce(l.step, 0),
           coalesce(l.status, j.status), coalesce(l.attempt, 0), coalesce(l.failures, 0)
    FROM jobs j LEFT JOIN LATERAL (SELECT * FROM job_log l WHERE l.job = j.job ORDER BY l.step DESC LIMIT 1) l ON true
    WHERE coalesce(l.status, j.status) IN ('pending', 'failed');
    INSERT INTO job_ready (segment, type, priority, ready_at, job, step, status, attempt, failures)
    SELECT s, '', 1, '-infinity', 0, 0, '', 0, 0 FROM generate_series(0, 1) s
    WHERE NOT EXISTS (SELECT FROM job_ready r WHERE r.segment = s AND r.type = '');
    -- Every process forgets then what it knows of ready jobs.
    INSERT INTO job_cursors (name, value) VALUES ('filled', quipu_us(clock_timestamp())::text)
    ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = clock_timestamp();
    RETURN true;
END $$;
COMMENT ON FUNCTION quipu_fill_ready() IS 'fills job_ready from the journals if it was truncated; returns whether it was';
REVOKE ALL ON FUNCTION quipu_fill_ready() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_fill_ready() TO quipu;

-- One step of the rotation of job_ready: from the segment that is not written, copies up to `most` entries
-- that are not done after the key (type, priority, ready_at, job), or, without more, truncates the segment.
-- `after` is the key of the last entry that was copied, NULL at the beginning. Returns the next key, or NULL
-- when the segment is empty. Copied entries are in both segments for a while, which is harmless.
CREATE OR REPLACE FUNCTION quipu_empty_ready_segment(after text[], most integer) RETURNS text[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '50ms'
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE old smallint := 1 - quipu_ready_segment(); reached text[]; is_left boolean;
BEGIN
    WITH rest AS (
        SELECT r.* FROM job_ready r
        WHERE r.segment = old AND r.type <> ''
          AND (after IS NULL OR (r.type, r.priority, r.ready_at, r.job) > (after[1], after[2]::smallint, after[3]::timestamptz, after[4]::bigint))
          AND (SELECT l.step FROM job_log l WHERE l.job = r.job AND l.step = r.step + 1) IS NULL
        ORDER BY r.type, r.priority, r.ready_at, r.job LIMIT most),
    copied AS (
        INSERT INTO job_ready SELECT 1 - old, r.type, r.priority, r.ready_at, r.job, r.step, r.status, r.attempt, r.failures FROM rest r)
    SELECT ARRAY[r.type, r.priority::text, r.ready_at::text, r.job::text] INTO reached
    FROM rest r ORDER BY r.type DESC, r.priority DESC, r.ready_at DESC, r.job DESC LIMIT 1;
    IF reached IS NOT NULL THEN
        RETURN reached;
    END IF;
    -- With the locks no search is in progress, and no transaction has entries of this segment to commit: those
    -- that came while it was copied are copied now.
    PERFORM pg_advisory_xact_lock(hashtextextended('quipu/job_ready', 0));
    EXECUTE format('LOCK TABLE partitions.job_ready_%s IN ACCESS EXCLUSIVE MODE', old);
    INSERT INTO job_ready
    SELECT 1 - old, r.type, r.priority, r.ready_at, r.job, r.step, r.status, r.attempt, r.failures FROM job_ready r
    WHERE r.segment = old AND r.type <> ''
      AND (SELECT l.step FROM job_log l WHERE l.job = r.job AND l.step = r.step + 1) IS NULL
      AND NOT EXISTS (SELECT FROM job_ready n WHERE n.segment = 1 - old AND n.type = r.type AND n.priority = r.priority
                      AND n.ready_at = r.ready_at AND n.job = r.job AND n.step = r.step);
    EXECUTE format('TRUNCATE partitions.job_ready_%s', old);
    INSERT INTO job_ready VALUES (old, '', 1, '-infinity', 0, 0, '', 0, 0);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION quipu_empty_ready_segment(text[], integer) IS 'copies what is not done out of the segment of job_ready that is not written, then empties it';
REVOKE ALL ON FUNCTION quipu_empty_ready_segment(text[], integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_empty_ready_segment(text[], integer) TO quipu;

-- Whether most of the segment of job_ready that is written is done: it has 100,000 entries, and twice as many as
-- there are jobs to be claimed. An entry has about 100 bytes.
CREATE OR REPLACE FUNCTION quipu_ready_is_worn() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT pg_relation_size(format('partitions.job_ready_%s', quipu_ready_segment())::regclass) / 100
           > 100000 + 2 * coalesce((SELECT sum(c.jobs) FROM job_counts c WHERE c.status IN ('pending', 'failed')), 0)
$$;
COMMENT ON FUNCTION quipu_ready_is_worn() IS 'whether most entries of the segment of job_ready that is written are done';

-- The stored key; stores `drawn` as the key if there is none.
CREATE OR REPLACE FUNCTION quipu_job_lease_key(drawn bytea) RETURNS bytea LANGUAGE plpgsql AS $$
DECLARE known bytea;
BEGIN
    SELECT k.key INTO known FROM job_lease_key k;
    IF known IS NULL THEN
        INSERT INTO job_lease_key (key) VALUES (drawn) ON CONFLICT DO NOTHING;
        SELECT k.key INTO known FROM job_lease_key k;
    END IF;
    RETURN known;
END $$;
COMMENT ON FUNCTION quipu_job_lease_key(bytea) IS 'the secret with which lease tokens are made and checked; stores the argument if there is none';
REVOKE ALL ON FUNCTION quipu_job_lease_key(bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_job_lease_key(bytea) TO quipu;

-- The jobs of a source by type, at most `most_jobs`: of one type, or, with NULL, of all types, of which there may be
-- `most_types`. With more types, or when so many jobs are not counted yet that their types are not looked up: one row of
-- NULLs. Types are found by walking from index entry to index entry of job_totals, and in the jobs that are not counted there.
CREATE OR REPLACE FUNCTION quipu_jobs_of_source(hash text, of_type text, most_types integer, most_jobs integer)
RETURNS TABLE (type text, job bigint)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off AS $$
#variable_conflict use_column
DECLARE
    bound CONSTANT integer := 10000;
    types text[] := ARRAY[of_type]; later text[];
    counted pg_snapshot; floor bigint;
BEGIN
    IF of_type IS NULL THEN
        counted := (SELECT c.snapshot FROM checkpoint c WHERE c.projection = 'job_totals');
        floor := (SELECT e.floor FROM era e ORDER BY e.number DESC LIMIT 1);
        later := ARRAY(
            SELECT l.type FROM (
                (SELECT j.type FROM jobs j WHERE counted IS NULL ORDER BY j.job LIMIT bound + 1)
                UNION ALL
                SELECT j.type FROM jobs j WHERE j.xid >= pg_snapshot_xmax(counted) AND j.position > floor
                UNION ALL
                SELECT j.type FROM jobs j WHERE j.xid = ANY (quipu_in_progress(counted)) AND j.position > floor) l
            LIMIT bound + 1);
        types := ARRAY(
            WITH RECURSIVE known (type, nth) AS (
                (SELECT t.type, 1 FROM job_totals t WHERE counted IS NOT NULL ORDER BY t.type LIMIT 1)
                UNION ALL
                SELECT (SELECT t.type FROM job_totals t WHERE t.type > k.type ORDER BY t.type LIMIT 1), k.nth + 1
                FROM known k WHERE k.type IS NOT NULL AND k.nth <= most_types)
            SELECT k.type FROM known k WHERE k.type IS NOT NULL
            UNION
            SELECT unnest(later));
        IF cardinality(types) > most_types OR cardinality(later) > bound THEN
            RETURN QUERY SELECT NULL::text, NULL::bigint;
            RETURN;
        END IF;
    END IF;
    RETURN QUERY
    SELECT t.type, k.job FROM unnest(types) AS t (type)
    CROSS JOIN LATERAL (SELECT x.job FROM job_keys x WHERE x.key = quipu_job_key(t.type, hash, NULL) LIMIT 1) k
    ORDER BY 1 LIMIT most_jobs;
END $$;
COMMENT ON FUNCTION quipu_jobs_of_source(text, text, integer, integer) IS 'the jobs of a source by type; without a type, and with more types than given, one row of NULLs';

-- Numbers of jobs for a list, at most `most` after the first `skip`. With a status, or a type, or both; NULL for any.
-- With `before`: jobs with lower numbers, the newest first, so that the last number of a page is the `before` of the
-- next one and no job is left out. Without it: by priority, then the newest first. Such a list is made of 10,000
-- jobs of that status at most: the newest, or for pending and failed jobs any.
CREATE OR REPLACE FUNCTION quipu_list_jobs(of_status text, of_type text, before bigint, skip integer, most integer)
RETURNS TABLE (job bigint) LANGUAGE plpgsql STABLE SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    bound CONSTANT integer := 10000;
    -- Leases that ended before are settled: see quipu_expired_leases(). The hour is for those that were committed late.
    settled timestamptz := least(now() - interval '1 hour',
                                 coalesce((SELECT quipu_at_us(c.value::bigint) FROM job_cursors c WHERE c.name = 'expiry'), '-infinity'));
BEGIN
    IF before IS NOT NULL THEN
        RETURN QUERY
        SELECT n.job FROM (
            (SELECT j.job FROM jobs j
             WHERE coalesce(of_status, 'completed') = 'completed' AND j.job < before AND (of_type IS NULL OR j.type = of_type)
               AND (of_status IS NULL OR of_status = (SELECT l.status FROM job_log l WHERE l.job = j.job ORDER BY l.step DESC LIMIT 1))
             ORDER BY j.job DESC LIMIT skip + most)
            UNION ALL
            -- An entry can be in both segments.
            (SELECT DISTINCT r.job FROM (
                SELECT e.job, e.step FROM job_ready e
                WHERE of_status IN ('pending', 'failed') AND e.status = of_status AND e.job > 0 AND e.job < before
                  AND (of_type IS NULL OR e.type = of_type)
                ORDER BY e.job DESC OFFSET 0) r
             WHERE NOT EXISTS (SELECT FROM job_log l WHERE l.job = r.job AND l.step = r.step + 1)
             ORDER BY r.job DESC LIMIT skip + most)
            UNION ALL
            (SELECT j.job FROM jobs j
             WHERE of_status = 'waiting' AND j.depends_on IS NOT NULL AND j.job < before AND (of_type IS NULL OR j.type = of_type)
               AND coalesce((SELECT l.status FROM job_log l WHERE l.job = j.job ORDER BY l.step DESC LIMIT 1), j.status) = 'waiting'
             ORDER BY j.job DESC LIMIT skip + most)
            UNION ALL
            (SELECT l.job FROM job_log l
             WHERE of_status = 'running' AND l.expires_at IS NOT NULL AND l.expires_at > settled AND l.job < before
               AND (of_type IS NULL OR l.type = of_type)
               AND NOT EXISTS (SELECT FROM job_log n WHERE n.job = l.job AND n.step = l.step + 1)
             ORDER BY l.job DESC LIMIT skip + most)
            UNION ALL
            (SELECT l.job FROM job_log l
             WHERE of_status IN ('dead', 'cancelled') AND l.status IN ('dead', 'cancelled') AND l.status = of_status AND l.job < before
               AND (of_type IS NULL OR l.type = of_type)
               AND NOT EXISTS (SELECT FROM job_log n WHERE n.job = l.job AND n.step = l.step + 1)
             ORDER BY l.job DESC LIMIT skip + most)) n
        ORDER BY n.job DESC OFFSET skip LIMIT most;
        RETURN;
    END IF;
    RETURN QUERY
    WITH newest AS MATERIALIZED (
        (SELECT j.job FROM jobs j WHERE of_status IS NULL AND (of_type IS NULL OR j.type = of_type) ORDER BY j.job DESC LIMIT bound)
        UNION
        (SELECT r.job FROM job_ready r
         WHERE of_status IN ('pending', 'failed') AND r.status = of_status AND r.job > 0 AND (of_type IS NULL OR r.type = of_type)
           AND (SELECT l.step FROM job_log l WHERE l.job = r.job AND l.step = r.step + 1) IS NULL
         LIMIT bound)
        UNION
        (SELECT j.job FROM jobs j WHERE of_status = 'waiting' AND j.depends_on IS NOT NULL AND (of_type IS NULL OR j.type = of_type)
           AND coalesce((SELECT l.status FROM job_log l WHERE l.job = j.job ORDER BY l.step DESC LIMIT 1), j.status) = 'waiting'
         ORDER BY j.job DESC LIMIT bound)
        UNION
        (SELECT l.job FROM job_log l
         WHERE of_status = 'running' AND l.expires_at IS NOT NULL AND l.expires_at > settled AND (of_type IS NULL OR l.type = of_type)
           AND NOT EXISTS (SELECT FROM job_log n WHERE n.job = l.job AND n.step = l.step + 1)
         ORDER BY l.expires_at DESC LIMIT bound)
        UNION
        (SELECT l.job FROM job_log l
         WHERE of_status = 'completed' AND l.status = 'completed' AND l.kind IN ('completed', 'imported') AND (of_type IS NULL OR l.type = of_type)
         ORDER BY l.position DESC LIMIT bound)
        UNION
        (SELECT l.job FROM job_log l
         WHERE of_status IN ('dead', 'cancelled') AND l.status IN ('dead', 'cancelled') AND l.status = of_status
           AND (of_type IS NULL OR l.type = of_type)
           AND NOT EXISTS (SELECT FROM job_log n WHERE n.job = l.job AND n.step = l.step + 1)
         ORDER BY l.position DESC LIMIT bound))
    SELECT n.job FROM newest n
    CROSS JOIN LATERAL (
        SELECT coalesce((SELECT l.priority FROM job_log l WHERE l.job = n.job ORDER BY l.step DESC LIMIT 1),
                        (SELECT j.priority FROM jobs j WHERE j.job = n.job)) AS priority) p
    ORDER BY p.priority, n.job DESC OFFSET skip LIMIT most;
END $$;
COMMENT ON FUNCTION quipu_list_jobs(text, text, bigint, integer, integer) IS 'numbers of jobs of a status and type: with `before` the newest first, else by priority and the newest first';

-- What became visible between two snapshots, for the stream of events, in the order of positions, after one of them.
CREATE OR REPLACE FUNCTION quipu_job_events(last pg_snapshot, this pg_snapshot, after bigint, most integer)
RETURNS TABLE (pos bigint, kind text, job bigint, type text, status text, worker text, why text) LANGUAGE sql STABLE AS $$
    SELECT * FROM (
        SELECT j.position, 'submitted', j.job, j.type, j.status, NULL::text, NULL::text FROM jobs_between(last, this) j
        UNION ALL
        SELECT l.position, l.kind, l.job, l.type, l.status, l.worker, left(l.why, 1000) FROM job_log_between(last, this) l WHERE l.kind <> 'renewed'
        UNION ALL
        SELECT w.position, 'worker_' || w.kind, NULL, w.type, w.status, w.worker, NULL FROM job_worker_log_between(last, this) w) e (position)
    WHERE position > after ORDER BY position LIMIT most
$$;
COMMENT ON FUNCTION quipu_job_events(pg_snapshot, pg_snapshot, bigint, integer) IS 'entries of jobs and workers that the second snapshot sees and the first does not';
