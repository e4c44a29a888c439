//! Jobs by the hash of their source. A source may have jobs of several types: `?type=` says which one is meant.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::Value;

use crate::http::{Failure, Rejection};
use crate::services::jobs::decide::{Scope, TEXT_BYTES_MAX, TYPE_BYTES_MAX, check_text};
use crate::services::jobs::edge::JobsState;
use crate::services::jobs::edge::access::{Body, Client};
use crate::services::jobs::edge::files::{self, Base, UploadBody};
use crate::services::jobs::edge::jobs::{self as by_number, HistoryQuery};
use crate::services::jobs::edge::refusal::Refused;
use crate::services::jobs::edge::shapes::{HistoryJson, Members, member};
use crate::services::jobs::edge::submit::{self, SubmitBody, given};
use crate::services::jobs::read::{self, SOURCE_TYPES_MAX};

/// The query that says which job of a source is meant.
#[derive(Debug, Deserialize)]
pub(super) struct TypeQuery {
    r#type: Option<String>,
}

/// How a request names a job: by a hash in the path and a type in the query.
pub(super) type Named = (Path<String>, Query<TypeQuery>);

impl JobsState {
    /// The number of the job that is meant. `scope` is what the request needs: a client without it does not learn
    /// which sources have jobs.
    async fn job_of(
        &self,
        client: &Client,
        scope: Scope,
        (Path(hash), Query(query)): &Named,
    ) -> Result<i64, Refused> {
        client.require(scope)?;
        check_text("hash", hash, TEXT_BYTES_MAX)?;
        let job_type = query.r#type.as_deref().and_then(given);
        if let Some(job_type) = job_type {
            check_text("type", job_type, TYPE_BYTES_MAX)?;
        }
        let found = read::jobs_of_source(&self.parts().pools.session, hash, job_type).await?;
        let Some(found) = found else {
            let why = format!(
                "is required, add `?type=`: there are more than {SOURCE_TYPES_MAX} types, or many jobs that are not counted yet"
            );
            return Err(Refused::field("type", why));
        };
        match found.as_slice() {
            [] => Err(Refused::not_found("job")),
            [one] => Ok(one.job),
            several => {
                let types: Vec<&str> = several.iter().map(|found| found.job_type.as_str()).collect();
                let why = format!("the source has jobs of several types, add `?type=`: {}", types.join(", "));
                let rejection = Rejection::new(StatusCode::CONFLICT, why);
                Err(Refused::Other("several_types", rejection.code("several_types").field("type")))
            }
        }
    }

    /// The same as a path.
    async fn path_of(&self, client: &Client, scope: Scope, named: &Named) -> Result<Path<String>, Failure> {
        let job = self.job_of(client, scope, named).await;
        job.map(|job| Path(job.to_string())).map_err(|refused| self.refuse(refused))
    }
}

/// The handler of a route that names a job by its source: what `by_number` does to the job that is meant. `scope` is
/// what that requires.
pub(super) fn of_source<B, T, F>(
    scope: Scope,
    by_number: impl Fn(State<JobsState>, Client, Path<String>, Body<B>) -> F + Clone + Send + Sync + 'static,
) -> impl Fn(State<JobsState>, Client, Named, Body<B>) -> BoxFuture<'static, Result<T, Failure>>
+ Clone
+ Send
+ Sync
+ 'static
where
    B: Send + 'static,
    T: Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send + 'static,
{
    move |State(state), client, named, body| {
        let by_number = by_number.clone();
        Box::pin(async move {
            let path = state.path_of(&client, scope, &named).await?;
            by_number(State(state), client, path, body).await
        })
    }
}

/// The submission of the job that a path names. What would make it a job that the path does not find is refused.
fn named_submission(body: SubmitBody, hash: String, job_type: Option<String>) -> Result<SubmitBody, Refused> {
    if given(&body.source_hash).is_some_and(|stated| stated != hash) {
        return Err(Refused::field("source_hash", "is not that of the path"));
    }
    if body.idempotency_key.is_some() {
        return Err(Refused::field("idempotency_key", "has no use: the hash of the path is the key"));
    }
    if body.unique == Some(false) {
        return Err(Refused::field("unique", "must be true: the hash of the path is the key"));
    }
    let job_type = job_type.filter(|job_type| !job_type.is_empty());
    if given(&body.r#type).is_some() && job_type.as_ref().is_some_and(|named| *named != body.r#type) {
        return Err(Refused::field("type", "is not that of the query"));
    }
    Ok(SubmitBody { r#type: job_type.unwrap_or(body.r#type), source_hash: hash, ..body })
}

pub(super) async fn submit(
    State(state): State<JobsState>,
    client: Client,
    (Path(hash), Query(query)): Named,
    Body(body): Body<SubmitBody>,
) -> Result<Response, Failure> {
    let named = client.require(Scope::Submit).and_then(|()| named_submission(body, hash, query.r#type));
    let body = named.map_err(|refused| state.refuse(refused))?;
    submit::submit(State(state), client, HeaderMap::new(), Body(body)).await
}

pub(super) async fn job(
    State(state): State<JobsState>,
    client: Client,
    named: Named,
) -> Result<Response, Failure> {
    let path = state.path_of(&client, Scope::Read, &named).await?;
    by_number::job(State(state), client, path).await
}

pub(super) async fn upload_url(
    State(state): State<JobsState>,
    client: Client,
    base: Base,
    named: Named,
    body: Body<UploadBody>,
) -> Result<Json<Value>, Failure> {
    let path = state.path_of(&client, Scope::Work, &named).await?;
    files::output_url(State(state), client, base, path, body).await
}

/// The attempts that failed, as the history has them.
pub(super) async fn failures(
    State(state): State<JobsState>,
    client: Client,
    named: Named,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<Members>, Failure> {
    let answer = async {
        let job = state.job_of(&client, Scope::Read, &named).await?;
        let entries = state.history(job, &query).await?;
        let failed = entries.iter().filter(|entry| entry.is_failure());
        let failures: Vec<HistoryJson<'_>> = failed.map(HistoryJson::of).collect();
        Ok(Members::from([("job_id", member(&job)), ("failures", member(&failures))]))
    };
    state.json(answer).await
}
