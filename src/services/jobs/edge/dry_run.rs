//! What the handlers make of a body before they ask the database: for the fuzz target `jobs`, which has none.

use chrono::DateTime;
use serde::de::DeserializeOwned;

use super::access::{Client, parse};
use super::credentials::{TokenBody, TokenFields, WorkerBody};
use super::files::{MultipartBody, UploadBody, result_with};
use super::manage::ManageBody;
use super::many::{ManyBody, chosen};
use super::refusal::Refused;
use super::schedules::ScheduleBody;
use super::submit::SubmitBody;
use super::work_body::{ClaimBody, WorkBody, completion, read_fence};
use super::workers::{BeatBody, RegisterBody};
use crate::config::Jobs;
use crate::services::jobs::command::{
    Change, Claim, Fence, JobChange, Recurrence, Submission, WorkerProfile,
};
use crate::services::jobs::decide::{
    Actor, Decision, LeaseKey, MultipartGrant, ObjectKey, check_priority, decide, unseal,
};
use crate::services::jobs::event::{JobState, Status};

/// What an accepted body asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// A new job.
    Submission(Submission),
    /// Jobs for a worker.
    Claim(Claim),
    /// A change of the job, and what is decided about it.
    Change(Change, Decision),
    /// A schedule.
    Schedule(Recurrence),
    /// A worker that registers, with its id.
    Worker(String, WorkerProfile),
    /// Something that the body alone does not say.
    Other,
}

/// Tries a body at every endpoint with a JSON body, as a program on this machine that asks about a job in this
/// state. Returns the endpoints that accept it, by the last part of their paths. `key` is that of lease tokens,
/// `now_us` the database's clock in microseconds since 1970.
#[must_use]
pub fn dry_run(bytes: &[u8], state: &JobState, key: &LeaseKey, now_us: i64) -> Vec<(&'static str, Asked)> {
    let client = Client { actor: Actor::Local, credential: None, session: None };
    let settings = Jobs::default();
    let actor = client.actor.label();
    let changed = |change: Change| {
        let asked = JobChange::new(state.job, change.clone(), actor.clone());
        Asked::Change(change, decide(state, &asked, now_us))
    };
    let work = |by: &dyn Fn(WorkBody, Fence) -> Result<Change, Refused>| {
        let body: WorkBody = parse(bytes)?;
        let (worker, token) = body.names();
        let fence = read_fence(&client, state.job, worker, token.map(|token| (token, key)))?;
        by(body, fence).map(changed)
    };
    let all = [
        ("jobs", with(bytes, |body: SubmitBody| body.checked(3, None, actor.clone()).map(Asked::Submission))),
        ("claim", with(bytes, |body: ClaimBody| body.checked(&client, &settings).map(Asked::Claim))),
        ("heartbeat", work(&|body, fence| body.heartbeat(fence))),
        ("complete", work(&complete)),
        ("fail", work(&|body, fence| body.fail(fence, 0.5))),
        ("release", work(&|body, fence| Ok(body.release(fence)))),
        ("retry", with(bytes, |body: ManageBody| body.retry().map(changed))),
        ("cancel", with(bytes, |body: ManageBody| Ok(changed(body.cancel())))),
        ("priority", with(bytes, |body: ManageBody| body.reprioritize().map(changed))),
        ("retry-all", with(bytes, |body| many(&body))),
        (
            "schedules",
            with(bytes, |body: ScheduleBody| {
                let now = DateTime::from_timestamp_micros(now_us).unwrap_or_default();
                body.checked(&settings, actor.clone(), now).map(Asked::Schedule)
            }),
        ),
        (
            "register",
            with(bytes, |body: RegisterBody| {
                body.checked(&client).map(|(worker, profile)| Asked::Worker(worker, profile))
            }),
        ),
        (
            "beat",
            with(bytes, |body: BeatBody| {
                Ok(body.checked("w".to_owned())?.map_or(Asked::Other, |(_, change)| changed(change)))
            }),
        ),
        ("tokens", with(bytes, |body: TokenBody| TokenFields::from(body).check().map(|()| Asked::Other))),
        ("workers", with(bytes, |_: WorkerBody| Ok(Asked::Other))),
        ("upload-url", with(bytes, |body| upload(&body))),
        (
            "parts",
            with(bytes, |body: MultipartBody| {
                let upload = unseal::<MultipartGrant>(key, &body.upload_id, now_us / 1_000_000);
                upload
                    .map(|_| Asked::Other)
                    .map_err(|_| Refused::field("upload_id", "is not one of this server"))
            }),
        ),
    ];
    all.into_iter().filter_map(|(name, asked)| Some((name, asked.ok()?))).collect()
}

fn with<T: DeserializeOwned>(
    bytes: &[u8],
    asked: impl FnOnce(T) -> Result<Asked, Refused>,
) -> Result<Asked, Refused> {
    parse(bytes).and_then(asked)
}

fn complete(body: WorkBody, fence: Fence) -> Result<Change, Refused> {
    let result = match body.declared() {
        None => body.result,
        Some(key) => {
            ObjectKey::parse("output_key", &key)?;
            Some(result_with(body.result, &key, None))
        }
    };
    completion(fence, result)
}

fn many(body: &ManyBody) -> Result<Asked, Refused> {
    chosen(&body.status, Status::ALL)?;
    body.most()?;
    body.priority.map(check_priority).transpose()?;
    Ok(Asked::Other)
}

fn upload(body: &UploadBody) -> Result<Asked, Refused> {
    ObjectKey::parse("key", &body.key)?;
    body.content_type()?;
    body.sha256()?;
    Ok(Asked::Other)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;
    use crate::services::jobs::command::FencedLease;
    use crate::services::jobs::decide::lease_token;
    use crate::services::jobs::event::Lease;

    const KEY: LeaseKey = [7; 32];
    const LEASE: FencedLease = FencedLease { attempt: 1, claim: Uuid::nil() };

    /// The endpoints that accept a body about job 1, which `w` has leased.
    fn accepting(body: &Value) -> Vec<(&'static str, Asked)> {
        let state = JobState {
            job: 1,
            step: 1,
            job_type: "pdf".to_owned(),
            status: Status::Running,
            priority: 3,
            attempt: 1,
            failures: 0,
            attempts_max: 3,
            worker: Some("w".to_owned()),
            lease: Some(Lease { claim: LEASE.claim, length_s: 60, expires_us: 60_000_000 }),
            ready_us: None,
            run_at_us: 0,
            is_blocked: false,
            logged_us: 0,
            is_just_leased: true,
        };
        dry_run(body.to_string().as_bytes(), &state, &KEY, 45_000_000)
    }

    #[test]
    fn an_endpoint_accepts_the_bodies_that_it_is_for() {
        let names =
            |body: Value| -> Vec<&str> { accepting(&body).into_iter().map(|(name, _)| name).collect() };
        let always = ["cancel", "beat", "workers"];
        let with = |mut others: Vec<&'static str>| {
            others.extend(always);
            others.sort_unstable();
            others
        };
        for (body, accepted) in [
            (json!({}), vec!["retry"]),
            (json!({ "type": "pdf", "source_hash": "a" }), vec!["retry", "jobs"]),
            (json!({ "id": "w", "type": "pdf" }), vec!["retry", "register"]),
            (
                json!({ "worker_id": "w", "job_type": "pdf" }),
                vec!["retry", "claim", "heartbeat", "complete", "fail", "release"],
            ),
            (json!({ "priority": 2, "status": "dead" }), vec!["retry", "priority", "retry-all"]),
            (json!({ "priority": 9 }), vec![]),
            (
                json!({ "name": "daily", "cron": "30 4 * * 1", "type": "pdf" }),
                vec!["retry", "schedules", "tokens"],
            ),
            (json!({ "key": "outputs/1/1/output" }), vec!["retry", "upload-url"]),
        ] {
            let mut told = names(body.clone());
            told.sort_unstable();
            assert_eq!(told, with(accepted), "{body}");
        }
    }

    #[test]
    fn a_token_decides_about_the_job() {
        let token = lease_token(&KEY, 1, LEASE);
        let appends = |body: Value| -> Vec<&str> {
            let is_appended = |asked: &Asked| matches!(asked, Asked::Change(_, Decision::Append(_)));
            let all = accepting(&body).into_iter();
            all.filter(|(name, asked)| *name != "cancel" && is_appended(asked))
                .map(|(name, _)| name)
                .collect()
        };
        let own = ["heartbeat", "complete", "fail", "release"];
        assert_eq!(appends(json!({ "worker_id": "w", "lease_token": token })), own);
        assert_eq!(appends(json!({ "lease_token": token })), own);
        assert_eq!(appends(json!({ "worker_id": "thief", "lease_token": token })), [""; 0]);
        assert_eq!(appends(json!({ "worker_id": "w", "lease_token": lease_token(&KEY, 2, LEASE) })), [""; 0]);
    }
}
