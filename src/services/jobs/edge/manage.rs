//! What people do to jobs: retry, cancel, another priority.

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::JobsState;
use super::access::{Body, Client};
use super::jobs::number;
use super::refusal::Refused;
use crate::http::Failure;
use crate::services::jobs::command::Change;
use crate::services::jobs::decide::{Scope, check_priority, cut};

/// The body of these requests. Each uses some of the members.
#[derive(Debug, Deserialize)]
pub(super) struct ManageBody {
    #[serde(default)]
    reset_attempts: bool,
    priority: Option<i64>,
    why: Option<String>,
}

impl ManageBody {
    pub(super) fn retry(&self) -> Result<Change, Refused> {
        retrying(self.reset_attempts, self.priority, self.why.as_deref())
    }

    pub(super) fn cancel(&self) -> Change {
        cancelling(self.why.as_deref())
    }

    pub(super) fn reprioritize(&self) -> Result<Change, Refused> {
        reprioritizing(self.priority, self.why.as_deref())
    }
}

/// A retry; without a priority the job keeps its own.
pub(super) fn retrying(
    resets_failures: bool,
    priority: Option<i64>,
    why: Option<&str>,
) -> Result<Change, Refused> {
    let priority = priority.map(check_priority).transpose()?;
    Ok(Change::Retry { resets_failures, priority, why: why.map(cut) })
}

/// A cancellation.
pub(super) fn cancelling(why: Option<&str>) -> Change {
    Change::Cancel { why: why.map(cut) }
}

/// Another priority, which has to be named.
pub(super) fn reprioritizing(priority: Option<i64>, why: Option<&str>) -> Result<Change, Refused> {
    // 0 is refused as any other number that is no priority.
    Ok(Change::Reprioritize { priority: check_priority(priority.unwrap_or(0))?, why: why.map(cut) })
}

impl JobsState {
    /// Does to the job of this number, which is a text, what a manager asks for. Returns the number.
    pub(super) async fn manage_job(
        &self,
        client: &Client,
        id: &str,
        change: Result<Change, Refused>,
    ) -> Result<i64, Refused> {
        client.require(Scope::Manage)?;
        let job = number(id)?;
        self.change(client, job, change?).await?;
        Ok(job)
    }
}

/// The same as an answer with this status.
async fn managed(
    state: JobsState,
    client: Client,
    id: String,
    change: Result<Change, Refused>,
    word: &'static str,
) -> Result<Json<Value>, Failure> {
    let answer = async {
        state.manage_job(&client, &id, change).await?;
        Ok(json!({ "status": word }))
    };
    state.json(answer).await
}

pub(super) async fn retry(
    State(state): State<JobsState>,
    client: Client,
    Path(id): Path<String>,
    Body(body): Body<ManageBody>,
) -> Result<Json<Value>, Failure> {
    managed(state, client, id, body.retry(), "retrying").await
}

pub(super) async fn cancel(
    State(state): State<JobsState>,
    client: Client,
    Path(id): Path<String>,
    Body(body): Body<ManageBody>,
) -> Result<Json<Value>, Failure> {
    managed(state, client, id, Ok(body.cancel()), "cancelled").await
}

pub(super) async fn priority(
    State(state): State<JobsState>,
    client: Client,
    Path(id): Path<String>,
    Body(body): Body<ManageBody>,
) -> Result<Json<Value>, Failure> {
    managed(state, client, id, body.reprioritize(), "updated").await
}
