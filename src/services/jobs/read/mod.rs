//! Queries of jobs, workers, credentials, users, schedules and the audit. Each reads the present state.

mod audit;
mod credentials;
mod jobs;
mod schedules;
mod stats;
mod stream;
mod users;
mod workers;

pub use audit::{AuditEntry, audit};
pub use credentials::{StoredToken, TokenRecord, WorkerRecord, token, tokens, worker_by_secret};
pub use jobs::{
    HistoryEntry, JobFilter, JobView, SOURCE_TYPES_MAX, SourceJob, bare_jobs, history, job, job_numbers,
    jobs, jobs_of_source,
};
pub use schedules::{Schedule, schedule_values, schedules};
pub use stats::{Stats, StatusCount, TypeCount, stats, total};
pub use stream::{StreamEntry, StreamPage, entries, newest_snapshot};
pub use users::{SessionRecord, UserView, session, sessions, users};
pub use workers::{
    RestlessWorkers, WorkerCounts, WorkerView, restless_workers, worker_counts, worker_view, workers,
};
