-- Retention and erasure of jobs.
--
-- Rows of jobs, job_log and job_files leave as those of events do: in the transaction that recorded it in erasure.

ALTER TABLE erasure DROP CONSTRAINT erasure_kind, DROP CONSTRAINT erasure_subject;
ALTER TABLE erasure ADD COLUMN first_job bigint, ADD COLUMN last_job bigint,
    ADD CONSTRAINT erasure_kind CHECK (kind IN ('event', 'pubkey', 'vanish', 'month', 'past', 'job', 'jobs')),
    ADD CONSTRAINT erasure_subject CHECK (CASE
        WHEN kind = 'event' THEN event_id IS NOT NULL AND num_nonnulls(pubkey, until, month, first_job, last_job) = 0
        WHEN kind = 'pubkey' THEN num_nulls(pubkey, until) = 0 AND num_nonnulls(event_id, month, first_job, last_job) = 0
        WHEN kind = 'vanish' THEN num_nulls(event_id, pubkey, until) = 0 AND num_nonnulls(month, first_job, last_job) = 0
        WHEN kind IN ('month', 'past') THEN month IS NOT NULL AND num_nonnulls(event_id, pubkey, until, first_job, last_job) = 0
        WHEN kind = 'job' THEN first_job IS NOT NULL AND first_job IS NOT DISTINCT FROM last_job
                               AND num_nonnulls(event_id, pubkey, until, month) = 0
        ELSE num_nulls(first_job, last_job) = 0 AND first_job <= last_job AND num_nonnulls(event_id, pubkey, until, month) = 0 END);
COMMENT ON TABLE erasure IS 'journal: every lawful erasure, every dropped month and every dropped million of jobs; its rows are the tombstones that keep facts from coming back';
COMMENT ON COLUMN erasure.kind IS 'event: one Nostr event. pubkey: all its events up to `until`. vanish: likewise, except requests to vanish, because the key asked for it (NIP-62). month: a partition dropped by retention, whose events stay away. past: the partition before the first month, likewise. job: one job. jobs: the jobs of a partition dropped by retention';
COMMENT ON COLUMN erasure.first_job IS 'number of the job, or the first number of the partition; NULL for events';
COMMENT ON COLUMN erasure.last_job IS 'the last number, inclusive; NULL for events';
COMMENT ON COLUMN erasure.detail IS 'rows that left: {"events": n, "sightings": n}, or {"jobs": n, "entries": n, "files": n} and the numbers of the jobs';
-- For quipu_append_jobs: it looks for removed jobs only when there are any.
CREATE INDEX erasure_jobs ON erasure (first_job) WHERE kind IN ('job', 'jobs');

DO $$
DECLARE journal regclass;
BEGIN
    FOREACH journal IN ARRAY ARRAY(SELECT 'job_files'::regclass
                                   UNION ALL SELECT relid FROM pg_partition_tree('jobs')
                                   UNION ALL SELECT relid FROM pg_partition_tree('job_log')) LOOP
        EXECUTE format('DROP TRIGGER refuse_change ON %s', journal);
        EXECUTE format('DROP TRIGGER refuse_truncate ON %s', journal);
        PERFORM quipu_make_event_journal(journal, 'jobs');
    END LOOP;
END $$;

-- A status that no job has left no row: a replay without removed jobs would not give it.
DELETE FROM job_totals WHERE jobs = 0;
