-- Removal of jobs, by the owner alone: see src/store/removal/jobs.

-- Subtracts from job_totals what the projector has counted of these jobs, before their rows leave.
CREATE OR REPLACE FUNCTION quipu_subtract_job_totals(low bigint, high bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE counted pg_snapshot; floor bigint := (SELECT max(e.floor) FROM era e);
BEGIN
    -- The projector holds it from before it reads the journals until its commit.
    PERFORM pg_advisory_xact_lock(hashtextextended('quipu/projection/job_totals', 0));
    counted := (SELECT c.snapshot FROM checkpoint c WHERE c.projection = 'job_totals');
    -- Without a checkpoint the projector counts from the start what is there then.
    IF counted IS NULL THEN
        RETURN;
    END IF;
    WITH entries AS (
        SELECT j.type, j.status, 1 AS jobs FROM jobs j
        WHERE j.job BETWEEN low AND high AND (j.position <= floor OR pg_visible_in_snapshot(j.xid, counted))
        UNION ALL
        SELECT l.type, s.status, s.jobs FROM job_log l CROSS JOIN LATERAL (VALUES (l.status, 1), (l.was, -1)) AS s (status, jobs)
        WHERE l.job BETWEEN low AND high AND l.status <> l.was AND (l.position <= floor OR pg_visible_in_snapshot(l.xid, counted))),
    gone AS (SELECT e.type, e.status, sum(e.jobs)::bigint AS jobs FROM entries e GROUP BY e.type, e.status)
    UPDATE job_totals t SET jobs = t.jobs - g.jobs FROM gone g WHERE t.type = g.type AND t.status = g.status AND g.jobs <> 0;
    DELETE FROM job_totals t WHERE t.jobs = 0;
END $$;
COMMENT ON FUNCTION quipu_subtract_job_totals(bigint, bigint) IS 'subtracts the jobs with numbers from low to high from job_totals, as far as they were counted';
REVOKE ALL ON FUNCTION quipu_subtract_job_totals(bigint, bigint) FROM PUBLIC;

-- Empties a partition. The new one takes a number that a process drew long ago and uses now.
CREATE OR REPLACE FUNCTION quipu_empty_job_partitions(million bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('DROP TABLE partitions.%I, partitions.%I', quipu_job_partition('jobs', million), quipu_job_partition('job_log', million));
    PERFORM quipu_make_job_partitions(million);
END $$;
COMMENT ON FUNCTION quipu_empty_job_partitions(bigint) IS 'replaces the partitions of jobs and job_log for one million of numbers by empty ones';
REVOKE ALL ON FUNCTION quipu_empty_job_partitions(bigint) FROM PUBLIC;
