//! What people do to jobs: retry, cancel, another priority.

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::JobsState;
use super::access::{Body, Client};
use super::jobs::number;
use super::limits::cut;
use super::refusal::Refused;
use crate::http::Failure;
use crate::services::jobs::command::Change;
use crate::services::jobs::decide::Scope;

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
        let (priority, why) = (checked(self.priority)?, self.why.as_deref().map(cut));
        Ok(Change::Retry { resets_failures: self.reset_attempts, priority, why })
    }

    pub(super) fn cancel(&self) -> Change {
        Change::Cancel { why: self.why.as_deref().map(cut) }
    }

    pub(super) fn reprioritize(&self) -> Result<Change, Refused> {
        let missing = || Refused::field("priority", "must be between 1 and 5");
        let (priority, why) = (checked(self.priority)?.ok_or_else(missing)?, self.why.as_deref().map(cut));
        Ok(Change::Reprioritize { priority, why })
    }
}

/// A priority; `None` for none.
pub(super) fn checked(priority: Option<i64>) -> Result<Option<i16>, Refused> {
    let in_range = |priority: i64| {
        let small = i16::try_from(priority).ok().filter(|priority| (1..=5).contains(priority));
        small.ok_or_else(|| Refused::field("priority", "must be between 1 and 5"))
    };
    priority.map(in_range).transpose()
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
    answer.await.map(Json).map_err(|refused: Refused| state.refuse(refused))
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
    answer.await.map(Json).map_err(|refused: Refused| state.refuse(refused))
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
    answer.await.map(Json).map_err(|refused: Refused| state.refuse(refused))
}
