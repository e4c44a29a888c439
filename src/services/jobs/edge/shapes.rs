//! Jobs, workers and tokens as JSON, with the members of the original and, behind them, new ones. Members
//! without a value are left out where the original leaves them out.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde::{Deserialize as _, Serialize};
use serde_json::{Value, json};

use crate::config::Jobs;
use crate::services::jobs::command::FencedLease;
use crate::services::jobs::decide::{LeaseKey, lease_token};
use crate::services::jobs::event::{ClaimedJob, ImportedFacts, Status};
use crate::services::jobs::read::{HistoryEntry, JobView, StoredToken, WorkerView};

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
    tags: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Cow<'a, Value>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    /// Not to be claimed before; of a job that waits for its time, its next attempt or other jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    run_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_expires_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    depends_on: Option<&'a [i64]>,
}

impl<'a> JobJson<'a> {
    /// A job with its present state.
    pub(super) fn of(view: &'a JobView) -> Self {
        let is_worked = view.is(&[Status::Running, Status::Completed]);
        // What happened here comes before what another queue said.
        let imported = view.imported.as_ref().and_then(|facts| ImportedFacts::deserialize(facts).ok());
        let imported = imported.unwrap_or_default();
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
            tags: view.tags.as_ref(),
            metadata: view.metadata.as_ref(),
            result: view.result.as_ref().map(Cow::Borrowed).or(imported.result.map(Cow::Owned)),
            created_at: imported.created_at.unwrap_or(view.created_at),
            updated_at: view.updated_at,
            run_at: view.ready_at.filter(|at| *at > view.updated_at),
            lease_expires_at: view.expires_at,
            progress: view.progress.as_ref().filter(|_| view.is(&[Status::Running])),
            depends_on: view.depends_on.as_deref(),
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
            tags: facts.tags.as_ref(),
            metadata: facts.metadata.as_ref(),
            result: None,
            created_at: facts.created_at,
            updated_at: leased_at,
            run_at: None,
            lease_expires_at: Some(at(job.lease.expires_us)),
            progress: None,
            depends_on: None,
        }
    }
}

/// The time of a clock in microseconds since 1970.
pub(super) fn at(us: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(us).unwrap_or_default()
}

/// A leased job with its lease.
pub(super) fn claimed_json(job: &ClaimedJob, worker: &str, key: &LeaseKey) -> Value {
    let lease = FencedLease { attempt: job.attempt, claim: job.lease.claim };
    json!({
        "job": JobJson::leased(job, worker),
        "attempt": job.attempt,
        "lease_token": lease_token(key, job.facts.job, lease),
        "lease_expires_at": at(job.lease.expires_us),
        "lease_seconds": job.lease.length_s,
    })
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
pub(super) fn history_json(entry: &HistoryEntry) -> Value {
    let mut value = json!({
        "step": entry.step,
        "position": entry.position,
        "at": entry.recorded_at,
        "event": entry.kind,
        "status": entry.status,
        "priority": entry.priority,
        "attempt": entry.attempt,
        "failures": entry.failures,
        "actor": entry.actor,
    });
    for (name, given) in [
        ("was", entry.was.clone().map(Value::from)),
        ("worker_id", entry.worker.clone().map(Value::from)),
        ("lease_expires_at", entry.expires_at.map(|at| json!(at))),
        ("run_at", entry.ready_at.map(|at| json!(at))),
        ("why", entry.why.clone().map(Value::from)),
        ("detail", entry.detail.clone()),
    ] {
        if let Some(given) = given {
            value[name] = given;
        }
    }
    value
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
    metadata: Option<&'a Value>,
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
            metadata: view.metadata.as_ref(),
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

/// A list as the original writes it: `null` instead of an empty one.
pub(super) fn list_or_null<T: Serialize>(items: &[T]) -> Value {
    if items.is_empty() { Value::Null } else { json!(items) }
}
