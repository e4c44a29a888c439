//! A job queue: jobs are submitted, leased to workers, completed or tried again, and every transition is an
//! entry of a journal.
//!
//! Journals: `jobs` (jobs as they were submitted), `job_log` (what happened to them), `job_worker_log`,
//! `job_credentials` (API tokens and secrets of workers), `job_user_log` (people who log in), `job_schedules`,
//! `job_files` (sources and outputs).
//! Projections: `job_keys` (in the same commit), `job_totals` (by ticks). Working tables: `job_ready`,
//! `job_slots`, `job_cursors`, `job_beats`, `job_lease_key`, `job_sessions`, `job_logins`.
//!
//! Invariants:
//!
//! - A job's entries are numbered without gaps, and the key (job, step) decides every race. No row of a
//!   job is updated, and only retention and erasure delete any, so a long-running query does not slow the queue down.
//! - One worker holds a job at a time. A worker that lost its lease can neither complete nor fail
//!   the job.
//! - A repeated request gets the first answer.
//! - Each receiver of webhooks is told of each end of a job by one job of its own, which is stored once.
//! - A file is written only by the submitter of a source or under the lease of an output, and a job is
//!   completed only with an output that is there.
//! - What a process remembers of ready jobs may make it try in vain, never decide wrongly; a job that it
//!   overlooks is found by its next look at the database.
//!
//! Limits, with their reasons: `decide/limits.rs` and `decide/submission.rs` (what is stored), `edge/limits.rs`
//! (requests), `decide/ready_index` (memory).

pub mod append;
pub mod command;
pub mod decide;
pub mod edge;
pub mod event;
pub mod metrics;
pub mod project;
pub mod react;
pub mod read;
mod service;

pub use service::{External, ROOM, Secrets, Started, WebhookReceivers, open_objects, start};
