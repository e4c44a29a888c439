//! Commands for the journals of jobs, workers, credentials, users and schedules.

mod users;

use serde_json::Value;
use uuid::Uuid;

pub use users::{NewSession, UserCommand};

use super::event::{FileKind, Status, WorkerEvent};

/// One command for the journal of jobs.
#[derive(Debug, Clone, PartialEq)]
pub enum JobCommand {
    /// Store a new job.
    Submit(Box<Submission>),
    /// Lease jobs to a worker.
    Claim(Claim),
    /// Change one job.
    Change(Box<JobChange>),
}

impl JobCommand {
    /// The submission, if it is one.
    #[must_use]
    pub fn submission(&self) -> Option<&Submission> {
        if let Self::Submit(submission) = self { Some(submission) } else { None }
    }

    /// The claim, if it is one.
    #[must_use]
    pub fn claim(&self) -> Option<&Claim> {
        if let Self::Claim(claim) = self { Some(claim) } else { None }
    }

    /// The change, if it is one.
    #[must_use]
    pub fn change(&self) -> Option<&JobChange> {
        if let Self::Change(change) = self { Some(change) } else { None }
    }
}

/// A new job. Its fields are checked; the unique key is arbitrated when it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Submission {
    /// The number that was drawn for it. A submission that is sent again has the same number.
    pub number: i64,
    /// Type.
    pub job_type: String,
    /// 1 (first) to 5 (last).
    pub priority: i16,
    /// Not to be claimed before this time, microseconds since 1970; `None` for now.
    pub run_at_us: Option<i64>,
    /// Attempts that may fail before the job is dead.
    pub attempts_max: i32,
    /// SHA-256 of what makes it unique.
    pub unique_key: Option<[u8; 32]>,
    /// Hash of the source.
    pub source_hash: Option<String>,
    /// Path of the source.
    pub source_path: Option<String>,
    /// Size of the source, bytes.
    pub source_size: Option<i64>,
    /// Tags.
    pub tags: Option<Value>,
    /// Data for the worker.
    pub metadata: Option<Value>,
    /// Jobs that have to be completed first.
    pub depends_on: Vec<i64>,
    /// Who submits it.
    pub actor: String,
}

/// A job of another queue, with the state that it had there. Its fields are checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportedJob {
    /// Type.
    pub job_type: String,
    /// 1 (first) to 5 (last).
    pub priority: i16,
    /// Attempts that may fail before the job is dead.
    pub attempts_max: i32,
    /// SHA-256 of what makes it unique: imported again it is known.
    pub unique_key: [u8; 32],
    /// Hash of the source.
    pub source_hash: String,
    /// Path of the source.
    pub source_path: Option<String>,
    /// Size of the source, bytes.
    pub source_size: Option<i64>,
    /// Tags.
    pub tags: Option<Value>,
    /// Data for the worker.
    pub metadata: Option<Value>,
    /// Pending, completed, dead or cancelled.
    pub status: Status,
    /// Attempts so far.
    pub attempts: i32,
    /// Those of them that failed.
    pub failures: i32,
    /// Since when it can be claimed, microseconds since 1970; of a pending job. No two jobs of a batch have the
    /// same.
    pub ready_us: i64,
    /// The worker of its newest attempt.
    pub worker: Option<String>,
    /// The newest error.
    pub error: Option<String>,
    /// What else is known of it.
    pub facts: Value,
}

/// A request of a worker for jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Identity of the request: a request that is sent again gets the same jobs.
    pub id: Uuid,
    /// The worker.
    pub worker: String,
    /// Types of jobs; at least one.
    pub types: Vec<String>,
    /// Most jobs.
    pub count: usize,
    /// Length of the leases, seconds.
    pub lease_s: i32,
    /// Whether it may have been sent before: its id was chosen by a client, or an attempt may have leased a job.
    pub may_be_known: bool,
    /// The actor of the entry.
    pub actor: String,
}

/// A change of one job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobChange {
    /// Number of the job.
    pub job: i64,
    /// The number as text, by which the writer keeps two changes of one job apart.
    pub(in crate::services::jobs) subject: String,
    /// Length of its progress, result or context as JSON, bytes.
    pub(in crate::services::jobs) detail_bytes: usize,
    /// What is asked.
    pub change: Change,
    /// The actor of the entry.
    pub actor: String,
    /// The status that the job must have. A job that was chosen by its status may have another one by the time of
    /// the change.
    pub only_from: Option<Status>,
}

impl JobChange {
    /// A change of `job` by `actor`.
    #[must_use]
    pub fn new(job: i64, change: Change, actor: impl Into<String>) -> Self {
        // Here, once, because the writer asks for it with each batch.
        let detail_bytes = change.detail().map_or(0, |detail| detail.to_string().len());
        Self { job, subject: job.to_string(), detail_bytes, change, actor: actor.into(), only_from: None }
    }

    /// The same change, refused unless the job has this status.
    #[must_use]
    pub fn only_from(self, status: Status) -> Self {
        Self { only_from: Some(status), ..self }
    }
}

/// What can be asked about one job.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The worker is alive, and how far it is.
    Heartbeat {
        /// The lease.
        fence: Fence,
        /// Another length of the lease, seconds.
        lease_s: Option<i32>,
        /// Progress to record.
        progress: Option<Value>,
    },
    /// The worker is done.
    Complete {
        /// The lease.
        fence: Fence,
        /// The result.
        result: Option<Value>,
    },
    /// The worker failed.
    Fail {
        /// The lease.
        fence: Fence,
        /// The error in words.
        error: String,
        /// Context, such as a traceback.
        context: Option<Value>,
        /// Chance for the pause before the next attempt, from 0 up to, but not including, 1.
        jitter: f64,
        /// Whether no further attempt can succeed: the job is dead.
        is_final: bool,
    },
    /// The worker gives the job back.
    Release {
        /// The lease.
        fence: Fence,
        /// Why.
        why: Option<String>,
    },
    /// Cancel it.
    Cancel {
        /// Why.
        why: Option<String>,
    },
    /// Change its priority.
    Reprioritize {
        /// 1 (first) to 5 (last).
        priority: i16,
        /// Reason, for the history.
        why: Option<String>,
    },
    /// Make it pending again.
    Retry {
        /// Whether the failed attempts are forgotten.
        resets_failures: bool,
        /// Another priority.
        priority: Option<i16>,
        /// Why.
        why: Option<String>,
    },
    /// End its lease if that has expired.
    Expire,
    /// Make it pending: its dependencies are completed.
    Unblock,
}

impl Change {
    /// The JSON that it stores.
    fn detail(&self) -> Option<&Value> {
        match self {
            Self::Heartbeat { progress: detail, .. }
            | Self::Complete { result: detail, .. }
            | Self::Fail { context: detail, .. } => detail.as_ref(),
            _ => None,
        }
    }
}

/// What a worker proves about its lease. `None` is not checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fence {
    /// The worker. `None` if the request names only its lease token.
    pub worker: Option<String>,
    /// The lease, from a lease token. `None` for old clients: the lease that the worker holds.
    pub lease: Option<FencedLease>,
}

/// The lease that a token names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FencedLease {
    /// Its number among the leases of the job.
    pub attempt: i32,
    /// The claim by which it was taken.
    pub claim: Uuid,
}

/// One command for the journal of workers.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerCommand {
    /// The worker's id.
    pub worker: String,
    /// What happens to it.
    pub event: WorkerEvent,
    /// Type, name and metadata that it registers or is created with.
    pub profile: Option<WorkerProfile>,
    /// Who causes it.
    pub actor: String,
}

/// What a worker says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerProfile {
    /// The type of jobs that it works on.
    pub job_type: String,
    /// A name for people.
    pub name: Option<String>,
    /// Anything else.
    pub metadata: Option<Value>,
}

/// One command for the journal of credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialCommand {
    /// Create an API token or the secret of a worker.
    Create(Box<NewCredential>),
    /// Revoke the token with this id.
    RevokeToken {
        /// The position of its entry.
        id: i64,
        /// Who revokes it.
        actor: String,
    },
    /// Revoke all secrets of a worker and create a new one.
    ReplaceSecret(Box<NewCredential>),
}

/// A new token or secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCredential {
    /// SHA-256 of the token or secret.
    pub sha256: [u8; 32],
    /// A name for people.
    pub name: String,
    /// The worker whose secret it is; `None` for an API token.
    pub worker: Option<String>,
    /// Whether it may do everything.
    pub is_admin: bool,
    /// What it may do otherwise.
    pub scopes: Vec<String>,
    /// Seconds until it expires; `None` for never.
    pub lifetime_s: Option<i64>,
    /// Who creates it.
    pub actor: String,
}

/// One command for the journal of schedules.
#[derive(Debug, Clone, PartialEq)]
pub enum ScheduleCommand {
    /// Create or replace a schedule.
    Set(Box<Recurrence>),
    /// Remove a schedule.
    Remove {
        /// Its name.
        name: String,
        /// Who removes it.
        actor: String,
    },
}

/// A schedule and the jobs that it submits.
#[derive(Debug, Clone, PartialEq)]
pub struct Recurrence {
    /// Name of the schedule.
    pub name: String,
    /// Times in the time zone, as a cron expression.
    pub cron: String,
    /// IANA name of the time zone; `None` for UTC.
    pub timezone: Option<String>,
    /// Type of the jobs.
    pub job_type: String,
    /// Their priority.
    pub priority: i16,
    /// Attempts that may fail before such a job is dead.
    pub attempts_max: i32,
    /// Their tags.
    pub tags: Option<Value>,
    /// Their data for the worker.
    pub metadata: Option<Value>,
    /// Who sets it.
    pub actor: String,
}

/// One entry for the journal of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Drawn before the entry is sent: an entry that is sent again is stored once.
    pub id: Uuid,
    /// What is known of the file.
    pub kind: FileKind,
    /// Its key.
    pub key: String,
    /// Job and lease of an output.
    pub output_of: Option<(i64, i32)>,
    /// Size in bytes.
    pub size: Option<i64>,
    /// SHA-256.
    pub sha256: Option<[u8; 32]>,
    /// Whether the storage accepts no other content than that of `sha256`.
    pub is_bound: bool,
    /// The bucket's mark of the version.
    pub etag: Option<String>,
    /// Content type.
    pub content_type: Option<String>,
    /// Who caused it.
    pub actor: String,
    /// What is wrong with a refused content.
    pub why: Option<String>,
}
