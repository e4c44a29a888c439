-- Conditions of jobs that hold whatever happens to them.
--
-- A cancelled job that is retried keeps the conditions with which it was submitted: it waits for the jobs that it
-- depends on and for its time.

ALTER TABLE job_log DROP CONSTRAINT job_log_kind, ADD CONSTRAINT job_log_kind CHECK (CASE kind
    WHEN 'leased' THEN was IN ('pending', 'failed') AND status = 'running'
    WHEN 'renewed' THEN was = 'running' AND status = 'running'
    WHEN 'progress' THEN was = 'running' AND status = 'running'
    WHEN 'completed' THEN was = 'running' AND status = 'completed'
    WHEN 'failed' THEN was = 'running' AND status IN ('failed', 'dead')
    WHEN 'expired' THEN was = 'running' AND status IN ('pending', 'dead')
    WHEN 'released' THEN was = 'running' AND status = 'pending'
    WHEN 'cancelled' THEN status = 'cancelled'
    WHEN 'reprioritized' THEN status = was
    WHEN 'retried' THEN was IN ('failed', 'dead', 'cancelled') AND status = 'pending' OR was = 'cancelled' AND status = 'waiting'
    WHEN 'unblocked' THEN was = 'waiting' AND status = 'pending'
    WHEN 'imported' THEN was = 'pending' AND status IN ('pending', 'completed', 'dead', 'cancelled')
    ELSE false END);

-- It returns the conditions, too.
DROP FUNCTION IF EXISTS quipu_job_states(bigint[]);

-- A waiting job keeps its time, whatever has happened to it since it was submitted.
CREATE OR REPLACE VIEW job_states AS
SELECT j.job, j.type, coalesce(l.status, j.status) AS status, coalesce(l.priority, j.priority) AS priority,
       coalesce(l.attempt, 0) AS attempt, coalesce(l.failures, 0) AS failures, j.attempts_max, l.worker, l.expires_at,
       CASE WHEN l.job IS NULL OR l.status = 'waiting' THEN j.ready_at ELSE l.ready_at END AS ready_at, j.source_hash, j.source_path,
       j.source_size, j.tags, j.metadata, j.depends_on, j.recorded_at AS created_at, coalesce(l.recorded_at, j.recorded_at) AS updated_at
FROM jobs j LEFT JOIN LATERAL (SELECT * FROM job_log l WHERE l.job = j.job ORDER BY l.step DESC LIMIT 1) l ON true;

-- For lists of waiting jobs in the order of their numbers.
CREATE INDEX jobs_dependent ON jobs (job) WHERE depends_on IS NOT NULL;

COMMENT ON COLUMN job_cursors.name IS 'segment: the one that is written. expiry: leases up to this time are settled, microseconds since 1970. schedules: jobs of schedules up to this time are submitted, microseconds since 1970. dependencies, webhooks: the snapshot that was read. filled: when job_ready was filled from the journals, microseconds since 1970. numbers: the job number up to which quipu_watch_job_numbers() has judged; between two looks also the number up to which it judges next, and the transaction from which on. sql_refused: the job number at which it last refused jobs of SQL programs';
