//! Retries or cancels all jobs of one status, a thousand in each request. A request can be repeated until it
//! says that no more jobs are left.

use axum::Json;
use axum::extract::State;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;
use serde_json::{Value, json};

use super::JobsState;
use super::access::{Body, Client};
use super::limits::{CHANGED_MAX, CHANGES_AT_ONCE, cut};
use super::manage::checked;
use super::refusal::Refused;
use crate::http::Failure;
use crate::services::jobs::command::{Change, JobChange};
use crate::services::jobs::decide::{Refusal, Scope};
use crate::services::jobs::event::Status;
use crate::services::jobs::read;

/// Jobs that a preview names.
const PREVIEWED: usize = 10;

/// The body of these requests: which jobs, and what `retry` and `cancel` of one job take.
#[derive(Debug, Deserialize)]
pub(super) struct ManyBody {
    #[serde(default)]
    status: String,
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
    /// The status by which jobs are chosen. It has to be named: a job that is retried or cancelled by mistake
    /// stays so.
    pub(super) fn chosen(&self, allowed: &[Status]) -> Result<Status, Refused> {
        let words = || allowed.iter().map(|status| status.as_str()).collect::<Vec<_>>().join(", ");
        let chosen = Status::parse(&self.status).filter(|status| allowed.contains(status));
        chosen.ok_or_else(|| Refused::field("status", format!("is none of {}", words())))
    }

    pub(super) fn most(&self) -> Result<i32, Refused> {
        let Some(limit) = self.limit else { return Ok(CHANGED_MAX) };
        let small = i32::try_from(limit).ok().filter(|limit| (1..=CHANGED_MAX).contains(limit));
        small.ok_or_else(|| Refused::field("limit", format!("must be between 1 and {CHANGED_MAX}")))
    }
}

pub(super) async fn retry_all(
    State(state): State<JobsState>,
    client: Client,
    Body(body): Body<ManyBody>,
) -> Result<Json<Value>, Failure> {
    let answer = async {
        let change = Change::Retry {
            resets_failures: body.reset_attempts,
            priority: checked(body.priority)?,
            why: body.why.as_deref().map(cut),
        };
        change_all(&state, &client, &body, &[Status::Failed, Status::Dead, Status::Cancelled], change).await
    };
    answer.await.map(Json).map_err(|refused: Refused| state.refuse(refused))
}

pub(super) async fn cancel_all(
    State(state): State<JobsState>,
    client: Client,
    Body(body): Body<ManyBody>,
) -> Result<Json<Value>, Failure> {
    let answer = async {
        let change = Change::Cancel { why: body.why.as_deref().map(cut) };
        let allowed = [Status::Pending, Status::Waiting, Status::Failed, Status::Running];
        change_all(&state, &client, &body, &allowed, change).await
    };
    answer.await.map(Json).map_err(|refused: Refused| state.refuse(refused))
}

async fn change_all(
    state: &JobsState,
    client: &Client,
    body: &ManyBody,
    allowed: &[Status],
    change: Change,
) -> Result<Value, Refused> {
    client.require(Scope::Manage)?;
    let (status, most) = (body.chosen(allowed)?, body.most()?);
    let filter = read::JobFilter {
        status: Some(status.as_str()),
        job_type: body.r#type.as_deref(),
        before: body.before,
    };
    // One more, to know whether more are left.
    let pool = &state.parts().pools.session;
    let mut jobs = read::job_numbers(pool, filter, 0, most + 1).await?;
    let has_more = i64::try_from(jobs.len()).is_ok_and(|found| found > i64::from(most));
    jobs.truncate(usize::try_from(most).expect("most is positive"));
    if body.preview {
        let first: Vec<_> = jobs.iter().take(PREVIEWED).collect();
        return Ok(json!({ "preview": true, "matched": jobs.len(), "more": has_more, "first": first }));
    }
    let actor = client.actor.label();
    let outcomes: Vec<bool> = stream::iter(jobs)
        .map(|job| {
            let change = JobChange::new(job, change.clone(), actor.clone()).only_from(status);
            async move {
                match state.commit(change).await {
                    Ok(_) => Ok(true),
                    // It has moved on since it was listed.
                    Err(
                        Refused::Change(Refusal::MovedOn(_) | Refusal::Status { .. }) | Refused::Contended,
                    ) => Ok(false),
                    Err(other) => Err(other),
                }
            }
        })
        .buffer_unordered(CHANGES_AT_ONCE)
        .try_collect()
        .await?;
    let changed = outcomes.iter().filter(|is_changed| **is_changed).count();
    Ok(
        json!({ "preview": false, "changed": changed, "passed_over": outcomes.len() - changed, "more": has_more }),
    )
}
