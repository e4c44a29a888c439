//! Submits a job.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Datelike as _, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use super::JobsState;
use super::access::{Body, Client};
use super::refusal::Refused;
use crate::http::Failure;
use crate::services::jobs::append::{JobAnswer, Submitted};
use crate::services::jobs::command::Submission;
use crate::services::jobs::decide::{
    PRIORITY_DEFAULT, Scope, SubmissionFields, check_submission, unique_key,
};

/// The body of `POST /api/jobs`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct SubmitBody {
    #[serde(default)]
    pub(super) r#type: String,
    #[serde(default)]
    pub(super) source_hash: String,
    #[serde(default)]
    pub(super) source_path: String,
    #[serde(default)]
    pub(super) source_size: i64,
    pub(super) priority: Option<i64>,
    pub(super) max_attempts: Option<i64>,
    pub(super) tags: Option<Value>,
    pub(super) metadata: Option<Value>,
    /// Two jobs with the same key are one, whatever their type and source.
    pub(super) idempotency_key: Option<String>,
    /// `false`: a job of the same type and source may be submitted again.
    pub(super) unique: Option<bool>,
    /// Not to be claimed before.
    pub(super) run_at: Option<DateTime<Utc>>,
    #[serde(default)]
    pub(super) depends_on: Vec<i64>,
}

/// A text; `None` for an empty one, which the original writes for none.
pub(super) fn given(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

impl SubmitBody {
    /// Checks the fields, and makes a submission without its number.
    pub(super) fn checked(
        self,
        settings_attempts: u32,
        key: Option<String>,
        actor: String,
    ) -> Result<Submission, Refused> {
        let key = self.idempotency_key.or(key);
        let is_unique = self.unique.unwrap_or(true);
        if self.r#type.is_empty() || (self.source_hash.is_empty() && key.is_none() && is_unique) {
            let problem =
                "and source_hash are required (source_hash not with idempotency_key or \"unique\": false)";
            return Err(Refused::field("type", problem));
        }
        let source_hash = given(&self.source_hash);
        let fields = SubmissionFields {
            job_type: &self.r#type,
            source_hash,
            source_path: given(&self.source_path),
            source_size: Some(self.source_size),
            priority: self.priority.unwrap_or(i64::from(PRIORITY_DEFAULT)),
            attempts_max: self.max_attempts.unwrap_or(i64::from(settings_attempts)),
            idempotency_key: key.as_deref(),
            tags: self.tags.as_ref(),
            metadata: self.metadata.as_ref(),
            depends_on: &self.depends_on,
        };
        let numbers = check_submission(&fields)?;
        if self.run_at.is_some_and(|at| !(1970..=9999).contains(&at.year())) {
            return Err(Refused::field("run_at", "must lie between 1970 and 9999"));
        }
        Ok(Submission {
            number: 0,
            priority: numbers.priority,
            run_at_us: self.run_at.map(|at| at.timestamp_micros()),
            attempts_max: numbers.attempts_max,
            unique_key: unique_key(&self.r#type, source_hash.filter(|_| is_unique), key.as_deref()),
            source_hash: source_hash.map(str::to_owned),
            source_path: given(&self.source_path).map(str::to_owned),
            source_size: (self.source_size > 0).then_some(self.source_size),
            tags: self.tags.filter(|tags| !tags.is_null()),
            metadata: self.metadata.filter(|metadata| !metadata.is_null()),
            depends_on: self.depends_on,
            job_type: self.r#type,
            actor,
        })
    }
}

pub(super) async fn submit(
    State(state): State<JobsState>,
    client: Client,
    headers: HeaderMap,
    Body(body): Body<SubmitBody>,
) -> Result<Response, Failure> {
    state.answer(submit_job(&state, &client, &headers, body)).await
}

async fn submit_job(
    state: &JobsState,
    client: &Client,
    headers: &HeaderMap,
    body: SubmitBody,
) -> Result<Response, Refused> {
    client.require(Scope::Submit)?;
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).map(str::to_owned);
    let stored = state.submit(state.checked(client, body, key)?).await?;
    if stored.is_known {
        let body = json!({ "job_id": stored.job, "existing": true, "status": stored.status });
        Ok((StatusCode::OK, Json(body)).into_response())
    } else {
        let body = json!({ "job_id": stored.job, "existing": false });
        Ok((StatusCode::CREATED, Json(body)).into_response())
    }
}

impl JobsState {
    /// Checks what a client submits. `key` counts if the body has no idempotency key.
    pub(super) fn checked(
        &self,
        client: &Client,
        body: SubmitBody,
        key: Option<String>,
    ) -> Result<Submission, Refused> {
        body.checked(self.parts().settings.attempts_max.get(), key, client.actor.label())
    }

    /// Stores a job, unless it is the same as an earlier one.
    pub(super) async fn submit(&self, submission: Submission) -> Result<Submitted, Refused> {
        let parts = self.parts();
        match parts.numbers.submit(&parts.jobs, submission).await? {
            JobAnswer::Submitted(stored) => Ok(stored),
            JobAnswer::UnknownDependency => {
                Err(Refused::field("depends_on", "names a job that does not exist"))
            }
            JobAnswer::Erased => {
                let why =
                    "the job was stored and has been erased since; submit it anew if it is to run again";
                Err(Refused::coded(StatusCode::GONE, "erased", why))
            }
            _ => Err(Refused::Contended),
        }
    }
}
