//! What the journal of jobs records, and the results of its queries.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::base::words;

words! {
    /// Status of a job.
    Status {
        /// Ready to be claimed, or delayed until `run_at`.
        Pending = "pending",
        /// Blocked by dependencies that are not completed.
        Waiting = "waiting",
        /// Leased by a worker.
        Running = "running",
        /// The last attempt failed; it is backing off before the next one.
        Failed = "failed",
        /// Done. Final.
        Completed = "completed",
        /// Too many attempts failed. Only a person retries it.
        Dead = "dead",
        /// Cancelled by a person. Only a person retries it.
        Cancelled = "cancelled",
    }
}

impl Status {
    /// Those of jobs that can be retried.
    pub const RETRIABLE: &[Self] = &[Self::Failed, Self::Dead, Self::Cancelled];

    /// Those of jobs that can be cancelled.
    pub const CANCELLABLE: &[Self] = &[Self::Pending, Self::Waiting, Self::Failed, Self::Running];
}

words! {
    /// What happened to a job.
    Kind {
        /// Submitted: the row of `jobs`, step 0.
        Submitted = "submitted",
        /// A worker claimed it.
        Leased = "leased",
        /// The lease was extended.
        Renewed = "renewed",
        /// The worker told of its progress, which extends the lease as well.
        Progress = "progress",
        /// The worker is done.
        Completed = "completed",
        /// The worker failed.
        Failed = "failed",
        /// The lease ended without an answer of the worker.
        Expired = "expired",
        /// The worker gave it back; the attempt does not count.
        Released = "released",
        /// A person cancelled it.
        Cancelled = "cancelled",
        /// A person changed its priority.
        Reprioritized = "reprioritized",
        /// A person made it pending again.
        Retried = "retried",
        /// All its dependencies are completed.
        Unblocked = "unblocked",
        /// It came from another queue, with the state that it had there.
        Imported = "imported",
    }
}

words! {
    /// Status of a worker. A worker that was never heard of has none.
    WorkerStatus {
        /// Works.
        Online = "online",
        /// Has unregistered, or was online and not heard of for `worker_timeout_s`.
        Offline = "offline",
        /// Finishes its jobs and gets no others, until it unregisters, registers again or is resumed.
        Draining = "draining",
        /// Gets no jobs until it is resumed, also if it registers again.
        Suspended = "suspended",
        /// Removed by a person.
        Removed = "removed",
    }
}

words! {
    /// What happened to a worker.
    WorkerEvent {
        /// A person created it, with a secret.
        Created = "created",
        /// It registered.
        Registered = "registered",
        /// It unregistered.
        Unregistered = "unregistered",
        /// A person set it to draining.
        Draining = "draining",
        /// It was suspended.
        Suspended = "suspended",
        /// It was resumed.
        Resumed = "resumed",
        /// A person enabled it.
        Enabled = "enabled",
        /// A person disabled it: its secret is refused.
        Disabled = "disabled",
        /// It was not heard of for `worker_timeout_s`.
        Lost = "lost",
        /// It was heard of again.
        Returned = "returned",
        /// A person removed it.
        Removed = "removed",
    }
}

words! {
    /// What is known of a file.
    FileKind {
        /// A URL for its upload was given.
        Announced = "announced",
        /// This server has received its content.
        Stored = "stored",
        /// Its content in the bucket is what its key says.
        Verified = "verified",
        /// Its content in the bucket is not, and was deleted.
        Refused = "refused",
    }
}

/// What the journal says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFacts {
    /// What is known.
    pub kind: FileKind,
    /// Size in bytes: as stated when it was announced, else as measured.
    pub size: Option<i64>,
    /// SHA-256, likewise.
    pub sha256: Option<[u8; 32]>,
    /// Whether the storage accepts no other content than that of `sha256`.
    pub is_bound: bool,
}

/// The lease of a running job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The claim by which it was taken.
    pub claim: Uuid,
    /// Its length, seconds.
    pub length_s: i32,
    /// Its end, microseconds since 1970 by the database's clock.
    pub expires_us: i64,
}

/// The present state of a job: its last step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobState {
    /// Number of the job.
    pub job: i64,
    /// The last step; 0 right after the submission.
    pub step: i32,
    /// Type of the job.
    pub job_type: String,
    /// Status.
    pub status: Status,
    /// 1 (first) to 5 (last).
    pub priority: i16,
    /// Leases so far.
    pub attempt: i32,
    /// Attempts that count against `attempts_max`.
    pub failures: i32,
    /// Attempts that may fail before the job is dead.
    pub attempts_max: i32,
    /// The worker that holds or held the lease.
    pub worker: Option<String>,
    /// The lease, while the job is running.
    pub lease: Option<Lease>,
    /// When the job becomes ready, microseconds since 1970; only while it is pending, failed or waiting.
    pub ready_us: Option<i64>,
    /// Not to be claimed before this time, whatever has happened to it, microseconds since 1970.
    pub run_at_us: i64,
    /// Whether dependencies would block it after a retry, which then leads to `waiting`: the job is cancelled, and a job
    /// of `depends_on` that still exists is not completed. False in every other status.
    pub is_blocked: bool,
    /// When the last step was recorded, microseconds since 1970.
    pub logged_us: i64,
    /// Whether the last step is the claim.
    pub is_just_leased: bool,
}

/// One step to append.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Number of the job.
    pub job: i64,
    /// The step: one more than the last.
    pub step: i32,
    /// What happened.
    pub kind: Kind,
    /// Status before.
    pub was: Status,
    /// Status after.
    pub status: Status,
    /// Type of the job.
    pub job_type: String,
    /// Priority after.
    pub priority: i16,
    /// Leases so far, this one included.
    pub attempt: i32,
    /// Attempts that count against `attempts_max`, this one included.
    pub failures: i32,
    /// The worker that holds or held the lease.
    pub worker: Option<String>,
    /// Claim and length in seconds of the lease; only if the job is running after the step. The lease ends so
    /// long after the commit, by the database's clock.
    pub lease: Option<(Uuid, i32)>,
    /// When the job becomes ready: microseconds from now, negative for the past; only if the job is pending or
    /// failed after the step.
    pub ready_after_us: Option<i64>,
    /// Who caused it.
    pub actor: String,
    /// Reason in words.
    pub why: Option<String>,
    /// Progress, result or context.
    pub detail: Option<Value>,
}

/// What is known of a job that was imported, in the detail of its entry.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ImportedFacts {
    /// Its number there.
    pub id: i64,
    /// Its status there.
    pub status: String,
    /// When it was submitted there.
    pub created_at: Option<DateTime<Utc>>,
    /// When its newest attempt began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it was completed.
    pub completed_at: Option<DateTime<Utc>>,
    /// Its result.
    pub result: Option<Value>,
    /// Where its output is, as a path.
    pub output_path: Option<String>,
    /// Its files.
    pub files: Vec<ImportedFile>,
}

/// A file of a job that was imported.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ImportedFile {
    /// `source` or `output`.
    pub r#type: String,
    /// Key of the object.
    pub key: String,
    /// Bytes.
    pub size: Option<i64>,
    /// Media type.
    pub content_type: Option<String>,
    /// Checksum as it was stored.
    pub checksum: Option<String>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The entry that ended it.
    pub kind: Kind,
    /// Status of the job after that entry.
    pub status: Status,
    /// The worker that held the lease.
    pub worker: Option<String>,
}

/// A job as it was submitted.
#[derive(Debug, Clone, PartialEq)]
pub struct JobFacts {
    /// Number of the job.
    pub job: i64,
    /// Type.
    pub job_type: String,
    /// Attempts that may fail before the job is dead.
    pub attempts_max: i32,
    /// Hash of the source.
    pub source_hash: Option<String>,
    /// Path of the source.
    pub source_path: Option<String>,
    /// Size of the source, bytes.
    pub source_size: Option<i64>,
    /// The submitter's tags, as JSON text.
    pub tags: Option<String>,
    /// The submitter's data for the worker, as JSON text.
    pub metadata: Option<String>,
    /// When it was submitted.
    pub created_at: DateTime<Utc>,
}

/// An entry by which a job was completed, dead or cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEnd {
    /// Place in the order of all journals.
    pub position: i64,
    /// Number of the job.
    pub job: i64,
    /// The step.
    pub step: i32,
    /// Type of the job.
    pub job_type: String,
    /// Completed, dead or cancelled.
    pub status: Status,
}

/// What receivers of webhooks are told of the end of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct EndFacts {
    /// The entry.
    pub end: JobEnd,
    /// Leases of the job.
    pub attempt: i32,
    /// The error of the last attempt, or why it was cancelled.
    pub why: Option<String>,
    /// The result of a completed job, as JSON text.
    pub result: Option<String>,
    /// Hash of the source.
    pub source_hash: Option<String>,
    /// The submitter's tags, as JSON text.
    pub tags: Option<String>,
    /// When it was submitted.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    pub ended_at: DateTime<Utc>,
}

/// A job that was leased by a claim.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimedJob {
    /// The job as it was submitted.
    pub facts: JobFacts,
    /// Its priority.
    pub priority: i16,
    /// The number of this lease.
    pub attempt: i32,
    /// Attempts that have failed before.
    pub failures: i32,
    /// The lease.
    pub lease: Lease,
    /// When it was leased, microseconds since 1970.
    pub leased_us: i64,
}

/// The present state of a worker: its last step.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerState {
    /// The worker's id.
    pub worker: String,
    /// The last step.
    pub step: i32,
    /// Status.
    pub status: WorkerStatus,
    /// Whether it may log in and claim.
    pub is_enabled: bool,
    /// The type of jobs that it works on.
    pub job_type: String,
    /// A name for people.
    pub name: Option<String>,
    /// What it said of itself.
    pub metadata: Option<Value>,
}
