//! The queue of jobs.

use crate::telemetry::{Label, describe_metrics};

/// Statuses of jobs, as `job_log.status` says.
pub(in crate::services::observer) const STATES: &[&str] =
    &["pending", "waiting", "running", "failed", "completed", "dead", "cancelled"];

/// Statuses of workers that are not removed, as `job_worker_log.status` says.
pub(in crate::services::observer) const WORKER_STATES: &[&str] =
    &["online", "offline", "draining", "suspended"];

const STATE: Label = Label::listed("state", &[STATES]);
const WORKER_STATE: Label = Label::listed("state", &[WORKER_STATES]);

describe_metrics! { Observer;
    STORED: Gauge = "quipu_jobs_stored_jobs" [STATE], "Jobs by status";
    WORKERS: Gauge = "quipu_jobs_known_workers" [WORKER_STATE], "Workers that are not removed, by status";
    OLDEST: Gauge = "quipu_jobs_oldest_ready_seconds" [],
        "Time for which the oldest job that could be claimed has been ready; 0 when there is none";
    UNSERVED: Gauge = "quipu_jobs_unserved_types" [],
        "Types with a job that could be claimed, no worker online and no job running";
}
