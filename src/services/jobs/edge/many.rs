//! Retries or cancels all jobs of one status, a thousand in each request. A request can be repeated until it
//! says that no more jobs are left.

use axum::Json;
use axum::extract::State;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;
use serde_json::{Value, json};

use super::JobsState;
use super::access::{Body, Client};
use super::limits::{CHANGED_MAX, CHANGES_AT_ONCE};
use super::manage::{cancelling, retrying};
use super::refusal::Refused;
use crate::http::Failure;
use crate::services::jobs::command::{Change, JobChange};
use crate::services::jobs::decide::{Refusal, Scope};
use crate::services::jobs::event::Status;
use crate::services::jobs::read;

/// Jobs that a preview names.
pub(super) const PREVIEWED: usize = 10;

/// The status by which jobs are chosen. It has to be named, since no request undoes a change of all jobs.
pub(super) fn chosen(word: &str, allowed: &[Status]) -> Result<Status, Refused> {
    let words = || allowed.iter().map(|status| status.as_str()).collect::<Vec<_>>().join(", ");
    let chosen = Status::parse(word).filter(|status| allowed.contains(status));
    chosen.ok_or_else(|| Refused::field("status", format!("is none of {}", words())))
}

/// Which jobs a request changes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice<'a> {
    pub(super) status: Status,
    pub(super) job_type: Option<&'a str>,
    /// Only jobs with lower numbers.
    pub(super) before: Option<i64>,
    /// Most jobs.
    pub(super) most: u16,
}

/// The jobs of a choice.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) jobs: Vec<i64>,
    /// Whether there are more than the choice allows.
    pub(super) has_more: bool,
}

/// What became of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Changed {
    /// Jobs that this request changed.
    pub(super) changed: usize,
    /// The others: another request changed them first.
    pub(super) passed_over: usize,
}

/// The body of these requests: which jobs, and what `retry` and `cancel` of one job take. An unknown member is
/// refused: without a misspelt `type` or `preview`, all jobs of the status would be changed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ManyBody {
    #[serde(default)]
    pub(super) status: String,
    r#type: Option<String>,
    before: Option<i64>,
    limit: Option<i64>,
    #[serde(default)]
    preview: bool,
    #[serde(default)]
    reset_attempts: bool,
    pub(super) priority: Option<i64>,
    why: Option<String>,
}

impl ManyBody {
    pub(super) fn most(&self) -> Result<u16, Refused> {
        let Some(limit) = self.limit else { return Ok(CHANGED_MAX) };
        let small = u16::try_from(limit).ok().filter(|limit| (1..=CHANGED_MAX).contains(limit));
        small.ok_or_else(|| Refused::field("limit", format!("must be between 1 and {CHANGED_MAX}")))
    }
}

pub(super) async fn retry_all(
    State(state): State<JobsState>,
    client: Client,
    Body(body): Body<ManyBody>,
) -> Result<Json<Value>, Failure> {
    let answer = async {
        let change = retrying(body.reset_attempts, body.priority, body.why.as_deref())?;
        change_all(&state, &client, &body, Status::RETRIABLE, change).await
    };
    state.json(answer).await
}

pub(super) async fn cancel_all(
    State(state): State<JobsState>,
    client: Client,
    Body(body): Body<ManyBody>,
) -> Result<Json<Value>, Failure> {
    let answer = async {
        let change = cancelling(body.why.as_deref());
        change_all(&state, &client, &body, Status::CANCELLABLE, change).await
    };
    state.json(answer).await
}

async fn change_all(
    state: &JobsState,
    client: &Client,
    body: &ManyBody,
    allowed: &[Status],
    change: Change,
) -> Result<Value, Refused> {
    client.require(Scope::Manage)?;
    let choice = Choice {
        status: chosen(&body.status, allowed)?,
        job_type: body.r#type.as_deref(),
        before: body.before,
        most: body.most()?,
    };
    let Found { jobs, has_more } = state.choose(choice).await?;
    if body.preview {
        let first: Vec<_> = jobs.iter().take(PREVIEWED).collect();
        return Ok(json!({ "preview": true, "matched": jobs.len(), "more": has_more, "first": first }));
    }
    let Changed { changed, passed_over } = state.change_many(client, jobs, choice.status, change).await?;
    Ok(json!({ "preview": false, "changed": changed, "passed_over": passed_over, "more": has_more }))
}

impl JobsState {
    /// The jobs of a choice.
    pub(super) async fn choose(&self, choice: Choice<'_>) -> Result<Found, Refused> {
        let Choice { status, job_type, before, most } = choice;
        let filter = read::JobFilter { status: Some(status.as_str()), job_type, before };
        // One more, to know whether more are left.
        let mut jobs = read::job_numbers(&self.parts().pools.session, filter, 0, i32::from(most) + 1).await?;
        let has_more = jobs.len() > usize::from(most);
        jobs.truncate(most.into());
        Ok(Found { jobs, has_more })
    }

    /// Changes those of the jobs that still have the status.
    pub(super) async fn change_many(
        &self,
        client: &Client,
        jobs: Vec<i64>,
        status: Status,
        change: Change,
    ) -> Result<Changed, Refused> {
        let actor = client.actor.label();
        let outcomes: Vec<bool> = stream::iter(jobs)
            .map(|job| {
                let change = JobChange::new(job, change.clone(), actor.clone()).only_from(status);
                async move {
                    match self.commit(change).await {
                        // A repeated change was made by another request.
                        Ok(settled) => Ok(!settled.is_repeated),
                        // It has moved on since it was listed.
                        Err(
                            Refused::Change(Refusal::MovedOn(_) | Refusal::Status { .. })
                            | Refused::Contended,
                        ) => Ok(false),
                        Err(other) => Err(other),
                    }
                }
            })
            .buffer_unordered(CHANGES_AT_ONCE)
            .try_collect()
            .await?;
        let changed = outcomes.iter().filter(|is_changed| **is_changed).count();
        Ok(Changed { changed, passed_over: outcomes.len() - changed })
    }
}
