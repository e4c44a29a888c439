//! Submitting jobs, and reading them.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Datelike as _, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use super::JobsState;
use super::access::{Body, Client};
use super::limits::{OFFSET_MAX, PAGE_DEFAULT, PAGE_MAX};
use super::refusal::Refused;
use super::shapes::{HistoryJson, JobJson, Members, member, some_or_null};
use crate::http::Failure;
use crate::services::jobs::append::{JobAnswer, Submitted};
use crate::services::jobs::command::Submission;
use crate::services::jobs::decide::{Scope, SubmissionFields, check_submission, unique_key};
use crate::services::jobs::event::Status;
use crate::services::jobs::read::{self, HistoryEntry};

/// Priority of a job whose submitter names none.
pub(super) const PRIORITY_DEFAULT: i64 = 3;

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
            priority: self.priority.unwrap_or(PRIORITY_DEFAULT),
            attempts_max: self.max_attempts.unwrap_or(i64::from(settings_attempts)),
            idempotency_key: key.as_deref(),
            tags: self.tags.as_ref(),
            metadata: self.metadata.as_ref(),
            depends_on: &self.depends_on,
        };
        check_submission(&fields)?;
        if self.run_at.is_some_and(|at| !(1970..=9999).contains(&at.year())) {
            return Err(Refused::field("run_at", "must lie between 1970 and 9999"));
        }
        let out_of_range = || Refused::field("priority", "is out of range");
        Ok(Submission {
            number: 0,
            priority: i16::try_from(fields.priority).map_err(|_| out_of_range())?,
            run_at_us: self.run_at.map(|at| at.timestamp_micros()),
            attempts_max: i32::try_from(fields.attempts_max).map_err(|_| out_of_range())?,
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
    let answer = submit_job(&state, &client, &headers, body).await;
    answer.map_err(|refused| state.refuse(refused))
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

/// The query of a list. A value out of range is ignored, as in the original.
#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    status: Option<String>,
    r#type: Option<String>,
    limit: Option<String>,
    offset: Option<String>,
    order: Option<String>,
    before: Option<i64>,
}

impl ListQuery {
    /// Below which number the list begins, if it is by number: with `before`, or with `order=newest`.
    fn before(&self) -> Result<Option<i64>, Refused> {
        match (self.order.as_deref().and_then(given), self.before) {
            (Some("newest"), before) => Ok(before.or(Some(i64::MAX))),
            (None, before) => Ok(before),
            (Some("priority"), None) => Ok(None),
            (Some("priority"), Some(_)) => Err(Refused::field("order", "is `newest` with `before`")),
            (Some(_), _) => Err(Refused::field("order", "is none of priority, newest")),
        }
    }
}

pub(super) async fn list(
    State(state): State<JobsState>,
    client: Client,
    Query(query): Query<ListQuery>,
) -> Result<Json<Members>, Failure> {
    let answer = async {
        client.require(Scope::Read)?;
        let status = query.status.as_deref().and_then(given);
        if let Some(word) = status
            && Status::parse(word).is_none()
        {
            let words: Vec<_> = Status::ALL.iter().map(|status| status.as_str()).collect();
            return Err(Refused::field("status", format!("is none of {}", words.join(", "))));
        }
        let job_type = query.r#type.as_deref().and_then(given);
        let number = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<i32>().ok());
        let limit = number(&query.limit).filter(|n| (1..=PAGE_MAX).contains(n)).unwrap_or(PAGE_DEFAULT);
        let offset = number(&query.offset).filter(|n| *n >= 0).unwrap_or(0);
        if offset > OFFSET_MAX {
            return Err(Refused::field(
                "offset",
                format!("is more than {OFFSET_MAX}: use `order=newest` and `before`"),
            ));
        }
        let filter = read::JobFilter { status, job_type, before: query.before()? };
        let pool = &state.parts().pools.session;
        let total = read::total(pool, status, job_type).await?;
        // Without a look at the totals, the search for jobs of a type that has none reads all jobs.
        let jobs = if total > 0 { read::jobs(pool, filter, offset, limit).await? } else { Vec::new() };
        let jobs: Vec<JobJson<'_>> = jobs.iter().map(JobJson::of).collect();
        Ok(Members::from([
            ("jobs", member(&some_or_null(jobs))),
            ("total", member(&total)),
            ("limit", member(&limit)),
            ("offset", member(&offset)),
        ]))
    };
    answer.await.map(Json).map_err(|refused: Refused| state.refuse(refused))
}

/// A job's number in a path.
pub(super) fn number(text: &str) -> Result<i64, Refused> {
    text.parse().map_err(|_| Refused::field("id", "is not the number of a job"))
}

pub(super) async fn job(
    State(state): State<JobsState>,
    client: Client,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let answer = async {
        client.require(Scope::Read)?;
        let view = read::job(&state.parts().pools.session, number(&id)?).await?;
        let view = view.ok_or_else(|| Refused::not_found("job"))?;
        Ok(Json(JobJson::of(&view)).into_response())
    };
    answer.await.map_err(|refused: Refused| state.refuse(refused))
}

/// Bytes of the details in one answer. A request with `before` gets those of older entries.
const DETAILS_BYTES_MAX: i64 = 4 * 1024 * 1024;

/// The query of a history.
#[derive(Debug, Deserialize)]
pub(super) struct HistoryQuery {
    /// Only entries before this step.
    before: Option<i32>,
}

impl JobsState {
    /// The entries of a job that a query asks for.
    pub(super) async fn history(&self, job: i64, query: &HistoryQuery) -> Result<Vec<HistoryEntry>, Refused> {
        let pool = &self.parts().pools.session;
        let entries = read::history(pool, job, query.before, DETAILS_BYTES_MAX).await?;
        if entries.is_empty() && query.before.is_none() {
            return Err(Refused::not_found("job"));
        }
        Ok(entries)
    }
}

pub(super) async fn history(
    State(state): State<JobsState>,
    client: Client,
    Path(id): Path<String>,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<Members>, Failure> {
    let answer = async {
        client.require(Scope::Read)?;
        let id = number(&id)?;
        let entries = state.history(id, &query).await?;
        let entries: Vec<HistoryJson<'_>> = entries.iter().map(HistoryJson::of).collect();
        Ok(Members::from([("job_id", member(&id)), ("history", member(&entries))]))
    };
    answer.await.map(Json).map_err(|refused: Refused| state.refuse(refused))
}
