//! Jobs by the hash of their source. A source may have jobs of several types: `?type=` says which one is meant.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use crate::http::{Failure, Rejection};
use crate::services::jobs::decide::{Scope, TEXT_BYTES_MAX, TYPE_BYTES_MAX, check_text};
use crate::services::jobs::edge::JobsState;
use crate::services::jobs::edge::access::{Body, Client};
use crate::services::jobs::edge::files::{self, Base, UploadBody};
use crate::services::jobs::edge::manage::{self, ManageBody};
use crate::services::jobs::edge::refusal::Refused;
use crate::services::jobs::edge::shapes::{HistoryJson, Members, member};
use crate::services::jobs::edge::submit::{self, HistoryQuery, SubmitBody, given};
use crate::services::jobs::edge::work;
use crate::services::jobs::edge::work_body::WorkBody;
use crate::services::jobs::read::{self, SOURCE_TYPES_MAX};

/// The query that says which job of a source is meant.
#[derive(Debug, Deserialize)]
pub(super) struct TypeQuery {
    r#type: Option<String>,
}

/// How a request names a job: by a hash in the path and a type in the query.
type Named = (Path<String>, Query<TypeQuery>);

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
    submit::job(State(state), client, path).await
}

pub(super) async fn heartbeat(
    State(state): State<JobsState>,
    client: Client,
    named: Named,
    body: Body<WorkBody>,
) -> Result<Json<Value>, Failure> {
    let path = state.path_of(&client, Scope::Work, &named).await?;
    work::heartbeat(State(state), client, path, body).await
}

pub(super) async fn complete(
    State(state): State<JobsState>,
    client: Client,
    named: Named,
    body: Body<WorkBody>,
) -> Result<Json<Value>, Failure> {
    let path = state.path_of(&client, Scope::Work, &named).await?;
    work::complete(State(state), client, path, body).await
}

pub(super) async fn fail(
    State(state): State<JobsState>,
    client: Client,
    named: Named,
    body: Body<WorkBody>,
) -> Result<Json<Value>, Failure> {
    let path = state.path_of(&client, Scope::Work, &named).await?;
    work::fail(State(state), client, path, body).await
}

pub(super) async fn release(
    State(state): State<JobsState>,
    client: Client,
    named: Named,
    body: Body<WorkBody>,
) -> Result<Json<Value>, Failure> {
    let path = state.path_of(&client, Scope::Work, &named).await?;
    work::release(State(state), client, path, body).await
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

pub(super) async fn retry(
    State(state): State<JobsState>,
    client: Client,
    named: Named,
    body: Body<ManageBody>,
) -> Result<Json<Value>, Failure> {
    let path = state.path_of(&client, Scope::Manage, &named).await?;
    manage::retry(State(state), client, path, body).await
}

pub(super) async fn cancel(
    State(state): State<JobsState>,
    client: Client,
    named: Named,
    body: Body<ManageBody>,
) -> Result<Json<Value>, Failure> {
    let path = state.path_of(&client, Scope::Manage, &named).await?;
    manage::cancel(State(state), client, path, body).await
}

pub(super) async fn priority(
    State(state): State<JobsState>,
    client: Client,
    named: Named,
    body: Body<ManageBody>,
) -> Result<Json<Value>, Failure> {
    let path = state.path_of(&client, Scope::Manage, &named).await?;
    manage::priority(State(state), client, path, body).await
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
    answer.await.map(Json).map_err(|refused: Refused| state.refuse(refused))
}
