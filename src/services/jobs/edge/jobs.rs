//! Jobs as clients read them: lists, one job, and its history.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;

use super::JobsState;
use super::access::Client;
use super::limits::{OFFSET_MAX, PAGE_DEFAULT, PAGE_MAX};
use super::refusal::Refused;
use super::shapes::{HistoryJson, JobJson, Members, member, some_or_null};
use super::submit::given;
use crate::http::Failure;
use crate::services::jobs::decide::Scope;
use crate::services::jobs::event::Status;
use crate::services::jobs::read::{self, HistoryEntry};

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
    state.json(answer).await
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
    state.answer(answer).await
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
    state.json(answer).await
}
