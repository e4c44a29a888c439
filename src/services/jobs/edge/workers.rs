//! Workers: what they say of themselves, and what people do to them.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::JobsState;
use super::access::{Body, Client};
use super::limits::REGISTRATIONS_PER_MINUTE;
use super::refusal::Refused;
use super::shapes::{WorkerJson, some_or_null, worker_config};
use crate::http::Failure;
use crate::services::jobs::append::WorkerAnswer;
use crate::services::jobs::command::{Change, Fence, WorkerCommand, WorkerProfile};
use crate::services::jobs::decide::{
    NAME_BYTES_MAX, PROGRESS_BYTES_MAX, Scope, TYPE_BYTES_MAX, WORKER_METADATA_BYTES_MAX, WORKERS_MAX,
    check_detail, check_text,
};
use crate::services::jobs::event::{WorkerEvent, WorkerState};
use crate::services::jobs::read;

impl JobsState {
    /// Commits an event of a worker.
    pub(super) async fn worker_event(
        &self,
        client: &Client,
        worker: &str,
        event: WorkerEvent,
        profile: Option<WorkerProfile>,
    ) -> Result<WorkerState, Refused> {
        check_text("worker_id", worker, NAME_BYTES_MAX)?;
        let is_own = matches!(event, WorkerEvent::Registered | WorkerEvent::Unregistered);
        if is_own && !self.admits_registration(worker) {
            let why = format!(
                "a worker registers and unregisters at most {REGISTRATIONS_PER_MINUTE} times a minute"
            );
            return Err(Refused::coded(StatusCode::TOO_MANY_REQUESTS, "too_many", why));
        }
        let command =
            WorkerCommand { worker: worker.to_owned(), event, profile, actor: client.actor.label() };
        match self.parts().workers.append(command).await? {
            WorkerAnswer::Changed(worker) => Ok(worker),
            WorkerAnswer::Refused(refusal) => Err(Refused::Worker(refusal)),
            WorkerAnswer::Contended => Err(Refused::Contended),
        }
    }
}

impl JobsState {
    /// Does to a worker what needs this scope. What the worker proved is checked anew from then on.
    pub(super) async fn manage_worker(
        &self,
        client: &Client,
        scope: Scope,
        worker: &str,
        event: WorkerEvent,
    ) -> Result<(), Refused> {
        client.require(scope)?;
        self.worker_event(client, worker, event, None).await?;
        self.forget_credentials();
        Ok(())
    }
}

/// The body of a registration.
#[derive(Debug, Deserialize)]
pub(super) struct RegisterBody {
    /// BlobForge's rewrite calls it `worker_id`.
    #[serde(default, alias = "worker_id")]
    id: String,
    #[serde(default)]
    r#type: String,
    metadata: Option<Value>,
}

/// Type, name and metadata of a worker, checked.
pub(super) fn profile(
    job_type: String,
    name: Option<String>,
    metadata: Option<Value>,
) -> Result<WorkerProfile, Refused> {
    check_text("type", &job_type, TYPE_BYTES_MAX)?;
    if let Some(name) = &name {
        check_text("name", name, NAME_BYTES_MAX)?;
    }
    check_detail("metadata", metadata.as_ref(), WORKER_METADATA_BYTES_MAX)?;
    Ok(WorkerProfile { job_type, name, metadata: metadata.filter(|metadata| !metadata.is_null()) })
}

impl RegisterBody {
    /// Id and profile of the worker.
    pub(super) fn checked(self, client: &Client) -> Result<(String, WorkerProfile), Refused> {
        if self.id.is_empty() || self.r#type.is_empty() {
            return Err(Refused::field("id", "and type are required"));
        }
        client.require_worker(&self.id)?;
        Ok((self.id, profile(self.r#type, None, self.metadata)?))
    }
}

pub(super) async fn register(
    State(state): State<JobsState>,
    client: Client,
    Body(body): Body<RegisterBody>,
) -> Result<Json<Value>, Failure> {
    let answer = async {
        let (id, profile) = body.checked(&client)?;
        state.worker_event(&client, &id, WorkerEvent::Registered, Some(profile)).await?;
        state.parts().beats.heard(&id, None);
        Ok(json!({ "status": "registered", "config": worker_config(&state.parts().settings) }))
    };
    state.json(answer).await
}

/// The body of a worker's heartbeat.
#[derive(Debug, Default, Deserialize)]
pub(super) struct BeatBody {
    /// Where the path does not name the worker.
    #[serde(default)]
    pub(super) worker_id: String,
    job_id: Option<i64>,
    progress: Option<Value>,
}

impl BeatBody {
    /// The job that a worker says it works on, and the heartbeat for it.
    pub(super) fn checked(self, worker: String) -> Result<Option<(i64, Change)>, Refused> {
        check_detail("progress", self.progress.as_ref(), PROGRESS_BYTES_MAX)?;
        let fence = Fence { worker: Some(worker), lease: None };
        let beat = Change::Heartbeat { fence, lease_s: None, progress: self.progress };
        Ok(self.job_id.map(|job| (job, beat)))
    }
}

/// A heartbeat of the original, which renews the lease of the job that it names.
pub(super) async fn heartbeat(
    State(state): State<JobsState>,
    client: Client,
    Path(id): Path<String>,
    Body(body): Body<BeatBody>,
) -> Result<Json<Value>, Failure> {
    let answer = async {
        client.require_worker(&id)?;
        let beat = body.checked(id.clone())?;
        state.parts().beats.heard(&id, beat.as_ref().map(|(job, _)| *job));
        if let Some((job, change)) = beat {
            state.change(&client, job, change).await?;
        }
        Ok(json!({ "status": "ok", "config": worker_config(&state.parts().settings) }))
    };
    state.json(answer).await
}

pub(super) async fn unregister(
    State(state): State<JobsState>,
    client: Client,
    Path(id): Path<String>,
) -> Result<Json<Value>, Failure> {
    let answer = async {
        client.require_worker(&id)?;
        state.worker_event(&client, &id, WorkerEvent::Unregistered, None).await?;
        Ok(json!({ "status": "unregistered" }))
    };
    state.json(answer).await
}

pub(super) async fn list(State(state): State<JobsState>, client: Client) -> Result<Response, Failure> {
    let answer = async {
        client.require(Scope::Read)?;
        let workers = read::workers(&state.parts().pools.session, WORKERS_MAX, true).await?;
        let workers: Vec<WorkerJson<'_>> = workers.iter().map(WorkerJson::of).collect();
        Ok(Json(some_or_null(workers)).into_response())
    };
    state.answer(answer).await
}

/// Something that people do to a worker.
async fn managed(
    state: JobsState,
    client: Client,
    (scope, id): (Scope, String),
    event: WorkerEvent,
    word: &'static str,
) -> Result<Json<Value>, Failure> {
    let answer = async {
        state.manage_worker(&client, scope, &id, event).await?;
        Ok(json!({ "status": word }))
    };
    state.json(answer).await
}

pub(super) async fn drain(
    State(state): State<JobsState>,
    client: Client,
    Path(id): Path<String>,
) -> Result<Json<Value>, Failure> {
    managed(state, client, (Scope::Manage, id), WorkerEvent::Draining, "draining").await
}

pub(super) async fn suspend(
    State(state): State<JobsState>,
    client: Client,
    Path(id): Path<String>,
) -> Result<Json<Value>, Failure> {
    managed(state, client, (Scope::Manage, id), WorkerEvent::Suspended, "suspended").await
}

pub(super) async fn resume(
    State(state): State<JobsState>,
    client: Client,
    Path(id): Path<String>,
) -> Result<Json<Value>, Failure> {
    managed(state, client, (Scope::Manage, id), WorkerEvent::Resumed, "resumed").await
}

pub(super) async fn remove(
    State(state): State<JobsState>,
    client: Client,
    Path(id): Path<String>,
) -> Result<Json<Value>, Failure> {
    managed(state, client, (Scope::Manage, id), WorkerEvent::Removed, "removed").await
}

pub(super) async fn enable(
    State(state): State<JobsState>,
    client: Client,
    Path(id): Path<String>,
) -> Result<Json<Value>, Failure> {
    managed(state, client, (Scope::Admin, id), WorkerEvent::Enabled, "enabled").await
}

pub(super) async fn disable(
    State(state): State<JobsState>,
    client: Client,
    Path(id): Path<String>,
) -> Result<Json<Value>, Failure> {
    managed(state, client, (Scope::Admin, id), WorkerEvent::Disabled, "disabled").await
}
