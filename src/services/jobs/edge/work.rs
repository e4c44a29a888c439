//! The requests of workers about jobs: claim, heartbeat, complete, fail, release.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::JobsState;
use super::access::{Body, Client};
use super::files::{Base, result_with};
use super::jobs::number;
use super::limits::LONG_POLL_MARGIN_S;
use super::refusal::Refused;
use super::shapes::{Members, at, claimed_json, member, worker_config};
use super::work_body::{ClaimBody, WorkBody, completion, read_fence};
use crate::http::Failure;
use crate::services::jobs::append::JobAnswer;
use crate::services::jobs::command::{Change, Claim, Fence, JobChange, JobCommand};
use crate::services::jobs::decide::{NotServed, Settled};
use crate::services::jobs::event::{ClaimedJob, Status};

/// A long poll claims again after this time even if nothing woke it.
const CLAIM_AGAIN: Duration = Duration::from_secs(5);

pub(super) async fn claim(
    State(state): State<JobsState>,
    client: Client,
    base: Base,
    Body(body): Body<ClaimBody>,
) -> Result<Json<Members>, Failure> {
    state.json(claim_jobs(&state, &client, &base, body)).await
}

async fn claim_jobs(
    state: &JobsState,
    client: &Client,
    base: &Base,
    body: ClaimBody,
) -> Result<Members, Refused> {
    let settings = &state.parts().settings;
    let (is_counted, wait_s) = (body.count.is_some(), body.wait_s.unwrap_or(0));
    let claim = body.checked(client, settings)?;
    let longest = state.parts().request_timeout_s.saturating_sub(LONG_POLL_MARGIN_S);
    let within = Duration::from_secs(wait_s.min(longest).into());
    let (jobs, why) = long_poll(state, &claim, within).await?;
    state.parts().beats.heard(&claim.worker, jobs.first().map(|job| job.facts.job));
    let mut answer = Members::from([("job", member(&Value::Null))]);
    if !jobs.is_empty() {
        let key = state.lease_key().await?;
        let mut leased: Vec<Members> =
            jobs.iter().map(|job| claimed_json(job, &claim.worker, &key)).collect();
        state.add_links(base, client, &jobs, &mut leased).await?;
        if let Some(first) = leased.first() {
            answer.clone_from(first);
        }
        if is_counted {
            answer.insert("jobs", member(&leased));
        }
    } else if is_counted {
        answer.insert("jobs", member::<[Value]>(&[]));
    }
    if let Some(why) = why {
        answer.insert("reason", member(why.as_str()));
    }
    answer.insert("config", member(&worker_config(settings)));
    Ok(answer)
}

/// Claims until there is a job or the time is over: once if it is zero.
async fn long_poll(
    state: &JobsState,
    claim: &Claim,
    within: Duration,
) -> Result<(Vec<ClaimedJob>, Option<NotServed>), Refused> {
    let parts = state.parts();
    let mut claim = claim.clone();
    let (deadline, drain) = (Instant::now() + within, parts.lifecycle.drain_token());
    // Begun before the first claim, so that a job that arrives in between is not missed.
    let poll = (!within.is_zero()).then(|| parts.queue.long_polls().begin(&claim.types));
    let _counted = poll.as_ref().map(|_| CountedLongPoll::begin(state.clone()));
    loop {
        if let Some(poll) = &poll {
            poll.begin_claim();
        }
        match parts.jobs.append(JobCommand::Claim(claim.clone())).await? {
            JobAnswer::Claimed(jobs) if !jobs.is_empty() => return Ok((counted(state, jobs), None)),
            JobAnswer::NotServed(why) => return Ok((Vec::new(), Some(why))),
            _ => {}
        }
        let now = Instant::now();
        let Some(poll) = poll.as_ref().filter(|_| now < deadline && !drain.is_cancelled()) else {
            return Ok((Vec::new(), None));
        };
        // A batch that fails after it was stored may have leased a job to it.
        claim.may_be_known = true;
        poll.open(&claim);
        tokio::select! {
            () = poll.woken() => {}
            () = sleep_until(deadline.min(now + CLAIM_AGAIN)) => {}
            () = drain.cancelled() => {}
        }
        if let Some(job) = poll.close().await {
            return Ok((counted(state, vec![job]), None));
        }
    }
}

/// The same jobs; the time that each has waited for its first worker is counted.
fn counted(state: &JobsState, jobs: Vec<ClaimedJob>) -> Vec<ClaimedJob> {
    for job in jobs.iter().filter(|job| job.attempt == 1) {
        let queued = at(job.leased_us) - job.facts.created_at;
        state.parts().metrics.first_leased(queued.as_seconds_f64().max(0.0));
    }
    jobs
}

/// A long poll, as the metrics count it.
struct CountedLongPoll(JobsState);

impl CountedLongPoll {
    fn begin(state: JobsState) -> Self {
        state.parts().metrics.long_poll_began();
        Self(state)
    }
}

impl Drop for CountedLongPoll {
    fn drop(&mut self) {
        self.0.parts().metrics.long_poll_ended();
    }
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
        let Some(token) = token else { return read_fence(client, job, worker, None) };
        read_fence(client, job, worker, Some((token, &self.lease_key().await?)))
    }

    /// The lease that the body of an answer names.
    async fn fence_of(&self, client: &Client, job: i64, body: &WorkBody) -> Result<Fence, Refused> {
        let (worker, token) = body.names();
        self.fence(client, job, worker, token).await
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
        let worker = fence.worker.clone();
        let change = body.heartbeat(fence)?;
        if let Some(worker) = &worker {
            state.parts().beats.heard(worker, Some(job));
        }
        let settled = state.change(&client, job, change).await?;
        Ok(json!({
            "status": "ok",
            "lease_expires_at": settled.expires_us.map(at),
            "recorded": settled.is_recorded,
            "config": worker_config(&state.parts().settings),
        }))
    };
    state.json(answer).await
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
        let result = match body.declared() {
            None => body.result,
            Some(key) => {
                let output = state.declared_output(job, &fence, &key).await?;
                Some(result_with(body.result, &key, output))
            }
        };
        let change = completion(fence.clone(), result)?;
        idle(&state, &fence);
        state.change(&client, job, change).await?;
        Ok(json!({ "status": "completed" }))
    };
    state.json(answer).await
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
            // The field and the words of the original.
            return Err(Refused::field("worker_id", "and error are required"));
        }
        let fence = state.fence_of(&client, job, &body).await?;
        let change = body.fail(fence.clone(), rand::random())?;
        idle(&state, &fence);
        let settled = state.change(&client, job, change).await?;
        Ok(json!({ "status": "failed", "will_retry": settled.status != Status::Dead }))
    };
    state.json(answer).await
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
        state.change(&client, job, body.release(fence)).await?;
        Ok(json!({ "status": "released" }))
    };
    state.json(answer).await
}

/// The worker was heard of, and no longer works on the job.
fn idle(state: &JobsState, fence: &Fence) {
    if let Some(worker) = &fence.worker {
        state.parts().beats.heard(worker, None);
    }
}
