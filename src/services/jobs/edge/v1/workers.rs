//! Workers, which the body names. A worker with a secret of its own need not name itself.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::Value;

use crate::http::Failure;
use crate::services::jobs::decide::{Actor, Scope};
use crate::services::jobs::edge::JobsState;
use crate::services::jobs::edge::access::{Body, Client};
use crate::services::jobs::edge::refusal::Refused;
use crate::services::jobs::edge::shapes::{WorkerJson, worker_config};
use crate::services::jobs::edge::workers::{self as by_id, BeatBody};
use crate::services::jobs::read;

/// The worker that is meant.
#[derive(Debug, Deserialize)]
pub(super) struct WorkerName {
    #[serde(default)]
    worker_id: String,
}

/// A worker and the state that it is to have.
#[derive(Debug, Deserialize)]
pub(super) struct StateBody {
    #[serde(default)]
    worker_id: String,
    #[serde(default)]
    state: String,
}

/// The id of the worker that is meant.
fn id_of(client: &Client, stated: String) -> Result<String, Refused> {
    match &client.actor {
        Actor::Worker { id } if stated.is_empty() => Ok(id.clone()),
        _ if stated.is_empty() => Err(Refused::field("worker_id", "is required")),
        _ => Ok(stated),
    }
}

/// The same as a path.
fn path_of(state: &JobsState, client: &Client, stated: String) -> Result<Path<String>, Failure> {
    id_of(client, stated).map(Path).map_err(|refused| state.refuse(refused))
}

/// The worker as the list has it, for itself: other clients read workers with the scope `read`.
pub(super) async fn me(
    State(state): State<JobsState>,
    client: Client,
    Query(named): Query<WorkerName>,
) -> Result<Response, Failure> {
    let answer = async {
        let Actor::Worker { id } = &client.actor else {
            return Err(Refused::forbidden("a worker's own secret is required"));
        };
        if !named.worker_id.is_empty() {
            client.require_worker(&named.worker_id)?;
        }
        let view = read::worker_view(&state.parts().pools.session, id).await?;
        let view = view.ok_or_else(|| Refused::not_found("worker"))?;
        Ok(Json(WorkerJson::of(&view)).into_response())
    };
    answer.await.map_err(|refused: Refused| state.refuse(refused))
}

pub(super) async fn heartbeat(
    State(state): State<JobsState>,
    client: Client,
    Body(body): Body<BeatBody>,
) -> Result<Json<Value>, Failure> {
    let path = path_of(&state, &client, body.worker_id.clone())?;
    by_id::heartbeat(State(state), client, path, Body(body)).await
}

pub(super) async fn deregister(
    State(state): State<JobsState>,
    client: Client,
    Body(body): Body<WorkerName>,
) -> Result<Json<Value>, Failure> {
    let path = path_of(&state, &client, body.worker_id)?;
    by_id::unregister(State(state), client, path).await
}

/// What a worker says of its work is a sign of life and ends no suspension: a person who suspends a worker decides
/// when it goes on.
pub(super) async fn change_state(
    State(state): State<JobsState>,
    client: Client,
    Body(body): Body<StateBody>,
) -> Result<Json<Value>, Failure> {
    let path = path_of(&state, &client, body.worker_id)?;
    match body.state.as_str() {
        "idle" | "processing" => {
            by_id::heartbeat(State(state), client, path, Body(BeatBody::default())).await
        }
        "suspended" => by_id::suspend(State(state), client, path).await,
        "draining" => by_id::drain(State(state), client, path).await,
        "resumed" => by_id::resume(State(state), client, path).await,
        _ => {
            let words = "is none of idle, processing, suspended, draining, resumed";
            Err(state.refuse(Refused::field("state", words)))
        }
    }
}

/// What workers are told with every answer.
pub(super) async fn config(State(state): State<JobsState>, client: Client) -> Result<Json<Value>, Failure> {
    configuration(&state, &client, Scope::Work)
}

/// The same for people.
pub(super) async fn shown_config(
    State(state): State<JobsState>,
    client: Client,
) -> Result<Json<Value>, Failure> {
    configuration(&state, &client, Scope::Read)
}

fn configuration(state: &JobsState, client: &Client, scope: Scope) -> Result<Json<Value>, Failure> {
    client.require(scope).map_err(|refused| state.refuse(refused))?;
    Ok(Json(worker_config(&state.parts().settings)))
}
