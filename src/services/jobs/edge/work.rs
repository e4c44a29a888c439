//! The requests of workers about jobs: claim, heartbeat, complete, fail, release.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::JobsState;
use super::access::{Body, Client};
use super::files::{Base, result_with};
use super::limits::{
    CLAIM_JOBS_MAX, CLAIM_TYPES_MAX, DETAIL_BYTES_MAX, LEASE_S_MAX, LEASE_S_MIN, WAIT_MARGIN_S, cut,
};
use super::refusal::Refused;
use super::shapes::{at, claimed_json, worker_config};
use super::submit::number;
use crate::http::Failure;
use crate::services::jobs::append::JobAnswer;
use crate::services::jobs::command::{Change, Claim, Fence, JobChange, JobCommand};
use crate::services::jobs::decide::{
    Actor, NotServed, Scope, Settled, TYPE_BYTES_MAX, check_detail, check_not_reserved, check_text,
    read_lease_token,
};
use crate::services::jobs::event::{ClaimedJob, Status};

/// A waiting claim is tried again after this time even if nothing woke it.
const CLAIM_AGAIN: Duration = Duration::from_secs(5);

/// The body of a claim.
#[derive(Debug, Deserialize)]
pub(super) struct ClaimBody {
    #[serde(default)]
    worker_id: String,
    #[serde(default)]
    job_type: String,
    /// Several types, instead of one.
    #[serde(default)]
    job_types: Vec<String>,
    /// Most jobs; the answer has them under `jobs`.
    count: Option<usize>,
    /// Seconds to wait for a job.
    wait_s: Option<u32>,
    /// Length of the lease.
    lease_s: Option<i64>,
    /// Identity of this request: a repeated one gets the same jobs.
    claim_id: Option<Uuid>,
}

pub(super) async fn claim(
    State(state): State<JobsState>,
    client: Client,
    base: Base,
    Body(body): Body<ClaimBody>,
) -> Result<Json<Value>, Failure> {
    let answer = claim_jobs(&state, &client, &base, body).await;
    answer.map(Json).map_err(|refused| state.refuse(refused))
}

async fn claim_jobs(
    state: &JobsState,
    client: &Client,
    base: &Base,
    body: ClaimBody,
) -> Result<Value, Refused> {
    let mut types = body.job_types;
    if !body.job_type.is_empty() {
        types.push(body.job_type);
    }
    types.sort_unstable();
    types.dedup();
    if body.worker_id.is_empty() || types.is_empty() {
        return Err(Refused::field("worker_id", "and job_type are required"));
    }
    client.require_worker(&body.worker_id)?;
    if types.len() > CLAIM_TYPES_MAX {
        return Err(Refused::field("job_types", format!("has more than {CLAIM_TYPES_MAX} types")));
    }
    for job_type in &types {
        check_text("job_type", job_type, TYPE_BYTES_MAX)?;
        check_not_reserved("job_type", job_type)?;
    }
    let count = body.count.unwrap_or(1);
    if !(1..=CLAIM_JOBS_MAX).contains(&count) {
        return Err(Refused::field("count", format!("must be between 1 and {CLAIM_JOBS_MAX}")));
    }
    let settings = &state.parts().settings;
    let claim = Claim {
        id: body.claim_id.unwrap_or_else(Uuid::now_v7),
        worker: body.worker_id,
        types,
        count,
        lease_s: lease_s(body.lease_s)?
            .unwrap_or_else(|| i32::try_from(settings.lease_s.get()).unwrap_or(i32::MAX)),
        actor: client.actor.label(),
    };
    let longest = state.parts().request_timeout_s.saturating_sub(WAIT_MARGIN_S);
    let wait = Duration::from_secs(body.wait_s.unwrap_or(0).min(longest).into());
    let (jobs, why) = wait_for_jobs(state, &claim, wait).await?;
    state.parts().beats.heard(&claim.worker, jobs.first().map(|job| job.facts.job));
    let mut answer = json!({ "job": null });
    if !jobs.is_empty() {
        let key = state.lease_key().await?;
        let mut leased: Vec<Value> = jobs.iter().map(|job| claimed_json(job, &claim.worker, &key)).collect();
        state.add_links(base, client, &jobs, &mut leased).await?;
        if let Some(first) = leased.first() {
            answer = first.clone();
        }
        if body.count.is_some() {
            answer["jobs"] = json!(leased);
        }
    } else if body.count.is_some() {
        answer["jobs"] = json!([]);
    }
    if let Some(why) = why {
        answer["reason"] = json!(why.as_str());
    }
    answer["config"] = worker_config(settings);
    Ok(answer)
}

/// Claims until there is a job or the time is over.
async fn wait_for_jobs(
    state: &JobsState,
    claim: &Claim,
    wait: Duration,
) -> Result<(Vec<ClaimedJob>, Option<NotServed>), Refused> {
    let parts = state.parts();
    let (deadline, drain) = (Instant::now() + wait, parts.lifecycle.drain_token());
    // Begun before the first claim, so that a job that arrives in between is not missed.
    let waiting = (!wait.is_zero()).then(|| parts.queue.waiters().wait(&claim.types));
    let _counted = waiting.as_ref().map(|_| CountedWait::begin(state.clone()));
    loop {
        match parts.jobs.append(JobCommand::Claim(claim.clone())).await? {
            JobAnswer::Claimed(jobs) if !jobs.is_empty() => {
                for job in jobs.iter().filter(|job| job.attempt == 1) {
                    let waited = at(job.leased_us) - job.facts.created_at;
                    parts.metrics.waited(waited.as_seconds_f64().max(0.0));
                }
                return Ok((jobs, None));
            }
            JobAnswer::NotServed(why) => return Ok((Vec::new(), Some(why))),
            _ => {}
        }
        let now = Instant::now();
        let Some(waiting) = waiting.as_ref().filter(|_| now < deadline && !drain.is_cancelled()) else {
            return Ok((Vec::new(), None));
        };
        tokio::select! {
            () = waiting.woken() => {}
            () = sleep_until(deadline.min(now + CLAIM_AGAIN)) => {}
            () = drain.cancelled() => {}
        }
    }
}

/// A claim that waits, as the metrics count it.
struct CountedWait(JobsState);

impl CountedWait {
    fn begin(state: JobsState) -> Self {
        state.parts().metrics.wait_began();
        Self(state)
    }
}

impl Drop for CountedWait {
    fn drop(&mut self) {
        self.0.parts().metrics.wait_ended();
    }
}

fn lease_s(given: Option<i64>) -> Result<Option<i32>, Refused> {
    match given {
        None => Ok(None),
        Some(seconds) if (LEASE_S_MIN..=LEASE_S_MAX).contains(&seconds) => Ok(i32::try_from(seconds).ok()),
        Some(_) => Err(Refused::field("lease_s", format!("must be between {LEASE_S_MIN} and {LEASE_S_MAX}"))),
    }
}

/// The body of an answer of a worker. Each request uses some of the members.
#[derive(Debug, Deserialize)]
pub(super) struct WorkBody {
    #[serde(default)]
    worker_id: String,
    lease_token: Option<String>,
    progress: Option<Value>,
    lease_s: Option<i64>,
    result: Option<Value>,
    output_key: Option<String>,
    #[serde(default)]
    error: String,
    traceback: Option<Value>,
    context: Option<Value>,
    why: Option<String>,
}

impl JobsState {
    /// The lease that a worker names: by its token, or, of an old client, the lease that the worker holds.
    pub(super) async fn fence(
        &self,
        client: &Client,
        job: i64,
        worker: &str,
        token: Option<&str>,
    ) -> Result<Fence, Refused> {
        let worker = match &client.actor {
            Actor::Worker { id } if worker.is_empty() => id.clone(),
            _ => worker.to_owned(),
        };
        let Some(token) = token else {
            if worker.is_empty() {
                return Err(Refused::field("worker_id", "is required without lease_token"));
            }
            client.require_worker(&worker)?;
            return Ok(Fence { worker: Some(worker), lease: None });
        };
        let lease = read_lease_token(&self.lease_key().await?, job, token);
        let lease = lease.map_err(|error| Refused::field("lease_token", format!("is {error}")))?;
        if worker.is_empty() {
            client.require(Scope::Work)?;
            return Ok(Fence { worker: None, lease: Some(lease) });
        }
        client.require_worker(&worker)?;
        Ok(Fence { worker: Some(worker), lease: Some(lease) })
    }

    /// The lease that the body of an answer names.
    async fn fence_of(&self, client: &Client, job: i64, body: &WorkBody) -> Result<Fence, Refused> {
        self.fence(client, job, &body.worker_id, body.lease_token.as_deref()).await
    }

    /// Commits a change of a job by this client.
    pub(super) async fn change(&self, client: &Client, job: i64, change: Change) -> Result<Settled, Refused> {
        self.commit(JobChange::new(job, change, client.actor.label())).await
    }

    /// Commits a change of a job.
    pub(super) async fn commit(&self, change: JobChange) -> Result<Settled, Refused> {
        match self.parts().jobs.append(JobCommand::Change(Box::new(change))).await? {
            JobAnswer::Settled(settled) => Ok(settled),
            JobAnswer::Refused(refusal) => Err(Refused::Change(refusal)),
            _ => Err(Refused::Contended),
        }
    }
}

pub(super) async fn heartbeat(
    State(state): State<JobsState>,
    client: Client,
    Path(id): Path<String>,
    Body(body): Body<WorkBody>,
) -> Result<Json<Value>, Failure> {
    let answer = async {
        let job = number(&id)?;
        let fence = state.fence_of(&client, job, &body).await?;
        check_detail("progress", body.progress.as_ref(), DETAIL_BYTES_MAX)?;
        if let Some(worker) = &fence.worker {
            state.parts().beats.heard(worker, Some(job));
        }
        let change = Change::Heartbeat { fence, lease_s: lease_s(body.lease_s)?, progress: body.progress };
        let settled = state.change(&client, job, change).await?;
        Ok(json!({
            "status": "ok",
            "lease_expires_at": settled.expires_us.map(at),
            "config": worker_config(&state.parts().settings),
        }))
    };
    answer.await.map(Json).map_err(|refused: Refused| state.refuse(refused))
}

pub(super) async fn complete(
    State(state): State<JobsState>,
    client: Client,
    Path(id): Path<String>,
    Body(body): Body<WorkBody>,
) -> Result<Json<Value>, Failure> {
    let answer = async {
        let job = number(&id)?;
        let fence = state.fence_of(&client, job, &body).await?;
        let stated = body.result.as_ref().and_then(|result| result["output_key"].as_str());
        let declared = body.output_key.or_else(|| stated.map(str::to_owned)).filter(|key| !key.is_empty());
        let result = match declared {
            None => body.result,
            Some(key) => {
                let output = state.declared_output(job, &fence, &key).await?;
                Some(result_with(body.result, &key, output))
            }
        };
        check_detail("result", result.as_ref(), DETAIL_BYTES_MAX)?;
        idle(&state, &fence);
        state.change(&client, job, Change::Complete { fence, result }).await?;
        Ok(json!({ "status": "completed" }))
    };
    answer.await.map(Json).map_err(|refused: Refused| state.refuse(refused))
}

pub(super) async fn fail(
    State(state): State<JobsState>,
    client: Client,
    Path(id): Path<String>,
    Body(body): Body<WorkBody>,
) -> Result<Json<Value>, Failure> {
    let answer = async {
        let job = number(&id)?;
        if body.error.is_empty() {
            return Err(Refused::field("worker_id", "and error are required"));
        }
        let fence = state.fence_of(&client, job, &body).await?;
        let context = match (&body.traceback, &body.context) {
            (None, None) => None,
            (traceback, context) => Some(json!({ "traceback": traceback, "context": context })),
        };
        check_detail("context", context.as_ref(), DETAIL_BYTES_MAX)?;
        idle(&state, &fence);
        let error = cut(&body.error);
        let change = Change::Fail { fence, error, context, jitter: rand::random(), is_final: false };
        let settled = state.change(&client, job, change).await?;
        Ok(json!({ "status": "failed", "will_retry": settled.status != Status::Dead }))
    };
    answer.await.map(Json).map_err(|refused: Refused| state.refuse(refused))
}

pub(super) async fn release(
    State(state): State<JobsState>,
    client: Client,
    Path(id): Path<String>,
    Body(body): Body<WorkBody>,
) -> Result<Json<Value>, Failure> {
    let answer = async {
        let job = number(&id)?;
        let fence = state.fence_of(&client, job, &body).await?;
        idle(&state, &fence);
        let why = body.why.as_deref().map(cut);
        state.change(&client, job, Change::Release { fence, why }).await?;
        Ok(json!({ "status": "released" }))
    };
    answer.await.map(Json).map_err(|refused: Refused| state.refuse(refused))
}

/// The worker was heard of, and no longer works on the job.
fn idle(state: &JobsState, fence: &Fence) {
    if let Some(worker) = &fence.worker {
        state.parts().beats.heard(worker, None);
    }
}
