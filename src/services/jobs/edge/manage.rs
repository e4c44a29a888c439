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

pub(super) async fn retry(
    State(state): State<JobsState>,
    client: Client,
    Path(id): Path<String>,
    Body(body): Body<ManageBody>,
) -> Result<Json<Value>, Failure> {
    let answer = async {
        client.require(Scope::Manage)?;
        state.change(&client, number(&id)?, body.retry()?).await?;
        Ok(json!({ "status": "retrying" }))
    };
    state.json(answer).await
}

pub(super) async fn cancel(
    State(state): State<JobsState>,
    client: Client,
    Path(id): Path<String>,
    Body(body): Body<ManageBody>,
) -> Result<Json<Value>, Failure> {
    let answer = async {
        client.require(Scope::Manage)?;
        state.change(&client, number(&id)?, body.cancel()).await?;
        Ok(json!({ "status": "cancelled" }))
    };
    state.json(answer).await
}

pub(super) async fn priority(
    State(state): State<JobsState>,
    client: Client,
    Path(id): Path<String>,
    Body(body): Body<ManageBody>,
) -> Result<Json<Value>, Failure> {
    let answer = async {
        client.require(Scope::Manage)?;
        state.change(&client, number(&id)?, body.reprioritize()?).await?;
        Ok(json!({ "status": "updated" }))
    };
    state.json(answer).await
}
