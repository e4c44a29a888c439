//! Jobs, workers and tokens as JSON, with the members of the original and, behind them, new ones. Members
//! without a value are left out where the original leaves them out.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use crate::config::Jobs;
use crate::services::jobs::command::FencedLease;
use crate::services::jobs::decide::{LeaseKey, lease_token};
use crate::services::jobs::event::{ClaimedJob, Status};
use crate::services::jobs::read::{HistoryEntry, JobView, StoredToken, WorkerView};

/// An object whose members are JSON texts already: a value that a client sent is passed on as it is stored. A tree of
/// it needs up to a hundred times its bytes, and a number or a depth that a parser refuses would be an error.
pub(super) type Members = BTreeMap<&'static str, Box<RawValue>>;

/// A member of an object.
pub(super) fn member<T: Serialize + ?Sized>(value: &T) -> Box<RawValue> {
    to_raw_value(value).expect("what is answered has names as keys")
}

/// A stored JSON text.
pub(super) fn raw(text: &str) -> Option<&RawValue> {
    serde_json::from_str(text).ok()
}

/// A job.
#[derive(Debug, Serialize)]
pub(super) struct JobJson<'a> {
    id: i64,
    r#type: &'a str,
    status: &'a str,
    priority: i16,
    source_hash: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_size: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<DateTime<Utc>>,
    attempts: i32,
    max_attempts: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    /// Not to be claimed before: it is delayed until then, backing off after a failure, or blocked by dependencies.
    #[serde(skip_serializing_if = "Option::is_none")]
    run_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_expires_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    depends_on: Option<&'a [i64]>,
    /// Of a job in a list: the members that it has and that are too long for one.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    left_out: &'a [String],
}

/// What is shown of the facts of an imported job.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ImportedJson<'a> {
    created_at: Option<DateTime<Utc>>,
    started_at: Option<DateTime<Utc>>,
    completed_at: Option<DateTime<Utc>>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

impl<'a> JobJson<'a> {
    /// A job with its present state.
    pub(super) fn of(view: &'a JobView) -> Self {
        let is_worked = view.is(&[Status::Running, Status::Completed]);
        // What happened here comes before what another queue said.
        let imported = view.imported.as_deref().and_then(|facts| serde_json::from_str(facts).ok());
        let imported: ImportedJson<'a> = imported.unwrap_or_default();
        Self {
            id: view.job,
            r#type: &view.job_type,
            status: &view.status,
            priority: view.priority,
            source_hash: view.source_hash.as_deref().unwrap_or_default(),
            source_path: view.source_path.as_deref(),
            source_size: view.source_size,
            worker_id: view.worker.as_deref().filter(|_| is_worked),
            started_at: view.started_at.or(imported.started_at),
            completed_at: view.completed_at.or(imported.completed_at),
            attempts: view.attempts(),
            max_attempts: view.attempts_max,
            last_error: view.last_error.as_deref(),
            tags: view.tags.as_deref().and_then(raw),
            metadata: view.metadata.as_deref().and_then(raw),
            result: view.result.as_deref().and_then(raw).or(imported.result),
            created_at: imported.created_at.unwrap_or(view.created_at),
            updated_at: view.updated_at,
            run_at: view.ready_at.filter(|at| *at > view.updated_at),
            lease_expires_at: view.expires_at,
            progress: view.progress.as_deref().filter(|_| view.is(&[Status::Running])).and_then(raw),
            depends_on: view.depends_on.as_deref(),
            left_out: &view.left_out,
        }
    }

    /// A job that was just leased.
    fn leased(job: &'a ClaimedJob, worker: &'a str) -> Self {
        let facts = &job.facts;
        let leased_at = at(job.leased_us);
        Self {
            id: facts.job,
            r#type: &facts.job_type,
            status: Status::Running.as_str(),
            priority: job.priority,
            source_hash: facts.source_hash.as_deref().unwrap_or_default(),
            source_path: facts.source_path.as_deref(),
            source_size: facts.source_size,
            worker_id: Some(worker),
            started_at: Some(leased_at),
            completed_at: None,
            attempts: job.failures + 1,
            max_attempts: facts.attempts_max,
            last_error: None,
            tags: facts.tags.as_deref().and_then(raw),
            metadata: facts.metadata.as_deref().and_then(raw),
            result: None,
            created_at: facts.created_at,
            updated_at: leased_at,
            run_at: None,
            lease_expires_at: Some(at(job.lease.expires_us)),
            progress: None,
            depends_on: None,
            left_out: &[],
        }
    }
}

/// The time of a clock in microseconds since 1970.
pub(super) fn at(us: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(us).unwrap_or_default()
}

/// A leased job with its lease.
pub(super) fn claimed_json(job: &ClaimedJob, worker: &str, key: &LeaseKey) -> Members {
    let lease = FencedLease { attempt: job.attempt, claim: job.lease.claim };
    Members::from([
        ("job", member(&JobJson::leased(job, worker))),
        ("attempt", member(&job.attempt)),
        ("lease_token", member(&lease_token(key, job.facts.job, lease))),
        ("lease_expires_at", member(&at(job.lease.expires_us))),
        ("lease_seconds", member(&job.lease.length_s)),
    ])
}

/// What workers are told with every answer.
pub(super) fn worker_config(settings: &Jobs) -> Value {
    json!({
        "heartbeat_enabled": true,
        "heartbeat_interval": settings.heartbeat_interval_s,
        "lease_seconds": settings.lease_s,
        "max_retries": settings.attempts_max,
    })
}

/// One entry of a job's history.
#[derive(Debug, Serialize)]
pub(super) struct HistoryJson<'a> {
    step: i32,
    position: i64,
    at: DateTime<Utc>,
    event: &'a str,
    status: &'a str,
    priority: i16,
    attempt: i32,
    failures: i32,
    actor: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    was: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_expires_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a RawValue>,
    /// Whether it has a detail that is left out, because later ones fill the answer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    detail_left_out: bool,
}

impl<'a> HistoryJson<'a> {
    /// An entry as it is stored.
    pub(super) fn of(entry: &'a HistoryEntry) -> Self {
        Self {
            step: entry.step,
            position: entry.position,
            at: entry.recorded_at,
            event: &entry.kind,
            status: &entry.status,
            priority: entry.priority,
            attempt: entry.attempt,
            failures: entry.failures,
            actor: &entry.actor,
            was: entry.was.as_deref(),
            worker_id: entry.worker.as_deref(),
            lease_expires_at: entry.expires_at,
            run_at: entry.ready_at,
            why: entry.why.as_deref(),
            detail: entry.detail.as_deref().and_then(raw),
            detail_left_out: entry.is_detail_left_out,
        }
    }
}

/// A worker.
#[derive(Debug, Serialize)]
pub(super) struct WorkerJson<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    r#type: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_heartbeat: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_job_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
    enabled: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl<'a> WorkerJson<'a> {
    /// A worker with its present state.
    pub(super) fn of(view: &'a WorkerView) -> Self {
        Self {
            id: &view.worker,
            name: view.name.as_deref(),
            r#type: &view.job_type,
            status: &view.status,
            last_heartbeat: view.seen_at,
            current_job_id: view.job.filter(|_| view.status == "online" || view.status == "draining"),
            metadata: view.metadata.as_deref().and_then(raw),
            enabled: view.is_enabled,
            created_at: view.created_at,
            updated_at: view.updated_at,
        }
    }
}

/// A token in a list.
pub(super) fn token_json(token: &StoredToken) -> Value {
    let mut value = json!({
        "id": token.id, "name": token.name, "is_admin": token.is_admin, "created_at": token.created_at,
    });
    if !token.scopes.is_empty() {
        value["scopes"] = json!(token.scopes);
    }
    if let Some(expires_at) = token.expires_at {
        value["expires_at"] = json!(expires_at);
    }
    value
}

/// A list as the original writes it: `null` instead of an empty one. It is serialized without a tree.
pub(super) fn some_or_null<T>(items: Vec<T>) -> Option<Vec<T>> {
    (!items.is_empty()).then_some(items)
}

/// A list as the original writes it: `null` instead of an empty one.
pub(super) fn list_or_null<T: Serialize>(items: &[T]) -> Value {
    if items.is_empty() { Value::Null } else { json!(items) }
}
