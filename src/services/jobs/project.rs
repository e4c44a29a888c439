//! The projections of jobs, and what `quipu verify` checks beyond them.

use crate::store::projection::{Projection, Upkeep};
use crate::store::verify::Check;

/// All projections of jobs.
pub const PROJECTIONS: &[Projection] = &[KEYS, TOTALS];

const KEYS: Projection = Projection {
    name: "job_keys",
    tables: &["job_keys"],
    journals: &["jobs"],
    upkeep: Upkeep::SameCommit,
    statements: &["-- replay_job_keys
        INSERT INTO job_keys (key, job) SELECT j.unique_key, j.job FROM jobs j WHERE j.unique_key IS NOT NULL"],
};

/// An entry moves a job from one status to another, so the differences add up.
const TOTALS: Projection = Projection {
    name: "job_totals",
    tables: &["job_totals"],
    journals: &["jobs", "job_log"],
    upkeep: Upkeep::Ticks,
    statements: &[
        "-- add_job_totals
        INSERT INTO job_totals AS t (type, status, jobs)
        SELECT d.type, d.status, sum(d.jobs)::bigint FROM (
            SELECT j.type, j.status, 1 AS jobs FROM {jobs} j
            UNION ALL
            SELECT l.type, s.status, s.jobs FROM {job_log} l CROSS JOIN LATERAL (VALUES (l.status, 1), (l.was, -1)) AS s (status, jobs)
            WHERE l.status <> l.was) d
        GROUP BY d.type, d.status ORDER BY 1, 2
        ON CONFLICT (type, status) DO UPDATE SET jobs = t.jobs + excluded.jobs",
        // When the last job of a type has been removed, a replay gives no row of it.
        "-- drop_empty_job_totals
        DELETE FROM job_totals WHERE jobs = 0",
    ],
};

/// Invariants of the journals.
pub const CHECKS: &[Check] = &[
    Check {
        what: "the steps of each job have no gap, and each begins with the status in which the one before ended",
        query: "-- verify_job_steps
         SELECT format('job %s: step %s (%s) follows step %s, after which the job was %s', s.job, s.step, s.kind, s.before, s.left_as)
         FROM (SELECT l.job, l.step, l.kind, l.was,
                      coalesce(lag(l.step) OVER w, 0) AS before, coalesce(lag(l.status) OVER w, j.status) AS left_as
               FROM job_log l JOIN jobs j USING (job) WINDOW w AS (PARTITION BY l.job ORDER BY l.step)) s
         WHERE s.step <> s.before + 1 OR s.was <> s.left_as LIMIT 100",
    },
    Check {
        what: "every step belongs to a job, and a lease of each number was taken once",
        query: "-- verify_job_leases
         SELECT format('job %s has steps and was never submitted', l.job) FROM job_log l
         WHERE NOT EXISTS (SELECT FROM jobs j WHERE j.job = l.job)
         UNION ALL
         SELECT format('job %s: %s leases have number %s', l.job, count(*), l.attempt) FROM job_log l
         WHERE l.kind = 'leased' GROUP BY l.job, l.attempt HAVING count(*) > 1 LIMIT 100",
    },
    Check {
        what: "no erased job has come back",
        query: "-- verify_erased_jobs
         SELECT format('job %s was erased and is there', j.job) FROM erasure x JOIN jobs j ON j.job = x.first_job
         WHERE x.kind = 'job' LIMIT 100",
    },
];
