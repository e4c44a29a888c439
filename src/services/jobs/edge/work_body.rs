//! What workers ask for about jobs, from the bodies of their requests.

use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::access::Client;
use super::limits::{CLAIM_JOBS_MAX, CLAIM_TYPES_MAX};
use super::refusal::Refused;
use crate::base::{JOB_LEASE_S_MAX, JOB_LEASE_S_MIN};
use crate::config::Jobs;
use crate::services::jobs::command::{Change, Claim, Fence};
use crate::services::jobs::decide::{
    Actor, DETAIL_BYTES_MAX, LeaseKey, PROGRESS_BYTES_MAX, Scope, TYPE_BYTES_MAX, check_detail,
    check_not_reserved, check_text, cut, read_lease_token,
};

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
    pub(super) count: Option<usize>,
    /// Longest time of the long poll, seconds: the claim is held open until a job is ready.
    pub(super) wait_s: Option<u32>,
    /// Length of the lease.
    lease_s: Option<i64>,
    /// Identity of this request: a repeated one gets the same jobs.
    claim_id: Option<Uuid>,
}

impl ClaimBody {
    /// The claim of this client.
    pub(super) fn checked(self, client: &Client, settings: &Jobs) -> Result<Claim, Refused> {
        let mut types = self.job_types;
        if !self.job_type.is_empty() {
            types.push(self.job_type);
        }
        types.sort_unstable();
        types.dedup();
        if self.worker_id.is_empty() || types.is_empty() {
            return Err(Refused::field("worker_id", "and job_type are required"));
        }
        client.require_worker(&self.worker_id)?;
        if types.len() > CLAIM_TYPES_MAX {
            return Err(Refused::field("job_types", format!("has more than {CLAIM_TYPES_MAX} types")));
        }
        for job_type in &types {
            check_text("job_type", job_type, TYPE_BYTES_MAX)?;
            check_not_reserved("job_type", job_type)?;
        }
        let count = self.count.unwrap_or(1);
        if !(1..=CLAIM_JOBS_MAX).contains(&count) {
            return Err(Refused::field("count", format!("must be between 1 and {CLAIM_JOBS_MAX}")));
        }
        Ok(Claim {
            may_be_known: self.claim_id.is_some(),
            id: self.claim_id.unwrap_or_else(Uuid::now_v7),
            worker: self.worker_id,
            types,
            count,
            lease_s: lease_s(self.lease_s)?
                .unwrap_or_else(|| i32::try_from(settings.lease_s.get()).unwrap_or(i32::MAX)),
            actor: client.actor.label(),
        })
    }
}

fn lease_s(given: Option<i64>) -> Result<Option<i32>, Refused> {
    let Some(seconds) = given else { return Ok(None) };
    let in_range = |seconds: &i32| (JOB_LEASE_S_MIN..=JOB_LEASE_S_MAX).contains(seconds);
    let problem = || format!("must be between {JOB_LEASE_S_MIN} and {JOB_LEASE_S_MAX}");
    let seconds = i32::try_from(seconds).ok().filter(in_range);
    seconds.map(Some).ok_or_else(|| Refused::field("lease_s", problem()))
}

/// The body of an answer of a worker. Each request uses some of the members.
#[derive(Debug, Deserialize)]
pub(super) struct WorkBody {
    #[serde(default)]
    worker_id: String,
    lease_token: Option<String>,
    progress: Option<Value>,
    lease_s: Option<i64>,
    pub(super) result: Option<Value>,
    output_key: Option<String>,
    #[serde(default)]
    pub(super) error: String,
    traceback: Option<Value>,
    context: Option<Value>,
    why: Option<String>,
}

impl WorkBody {
    /// Worker and token, as they name a lease.
    pub(super) fn names(&self) -> (&str, Option<&str>) {
        (&self.worker_id, self.lease_token.as_deref())
    }

    pub(super) fn heartbeat(self, fence: Fence) -> Result<Change, Refused> {
        check_detail("progress", self.progress.as_ref(), PROGRESS_BYTES_MAX)?;
        Ok(Change::Heartbeat { fence, lease_s: lease_s(self.lease_s)?, progress: self.progress })
    }

    /// The key of the output that a completion declares.
    pub(super) fn declared(&self) -> Option<String> {
        let stated = self.result.as_ref().and_then(|result| result["output_key"].as_str());
        self.output_key.as_deref().or(stated).filter(|key| !key.is_empty()).map(str::to_owned)
    }

    pub(super) fn fail(self, fence: Fence, jitter: f64) -> Result<Change, Refused> {
        let context = match (&self.traceback, &self.context) {
            (None, None) => None,
            (traceback, context) => Some(json!({ "traceback": traceback, "context": context })),
        };
        check_detail("context", context.as_ref(), DETAIL_BYTES_MAX)?;
        Ok(Change::Fail { fence, error: cut(&self.error), context, jitter, is_final: false })
    }

    pub(super) fn release(self, fence: Fence) -> Change {
        Change::Release { fence, why: self.why.as_deref().map(cut) }
    }
}

/// The lease that a worker names by a token, which was made with this key, or by its id.
pub(super) fn read_fence(
    client: &Client,
    job: i64,
    worker: &str,
    token: Option<(&str, &LeaseKey)>,
) -> Result<Fence, Refused> {
    let worker = match &client.actor {
        Actor::Worker { id } if worker.is_empty() => id.clone(),
        _ => worker.to_owned(),
    };
    let Some((token, key)) = token else {
        if worker.is_empty() {
            return Err(Refused::field("worker_id", "is required without lease_token"));
        }
        client.require_worker(&worker)?;
        return Ok(Fence { worker: Some(worker), lease: None });
    };
    let lease = read_lease_token(key, job, token);
    let lease = lease.map_err(|error| Refused::field("lease_token", format!("is {error}")))?;
    if worker.is_empty() {
        client.require(Scope::Work)?;
        return Ok(Fence { worker: None, lease: Some(lease) });
    }
    client.require_worker(&worker)?;
    Ok(Fence { worker: Some(worker), lease: Some(lease) })
}

/// The completion with this result.
pub(super) fn completion(fence: Fence, result: Option<Value>) -> Result<Change, Refused> {
    check_detail("result", result.as_ref(), DETAIL_BYTES_MAX)?;
    Ok(Change::Complete { fence, result })
}
