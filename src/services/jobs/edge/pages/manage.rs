//! What the forms of a job do: retry, cancel, another priority. Each answers with a redirect to the page of the job.

use axum::Form;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;

use super::refused::refused_page;
use super::visitor::Visitor;
use crate::services::jobs::command::Change;
use crate::services::jobs::decide::check_priority;
use crate::services::jobs::edge::JobsState;
use crate::services::jobs::edge::manage::{cancelling, reprioritizing, retrying};
use crate::services::jobs::edge::refusal::Refused;
use crate::services::jobs::edge::submit::given;

/// The fields of the forms of a job. An empty one is none.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct JobForm {
    priority: String,
    reset_attempts: String,
    why: String,
}

impl JobForm {
    fn why(&self) -> Option<&str> {
        given(self.why.trim())
    }
}

/// The priority in a field; `None` if it is empty.
pub(super) fn priority_of(field: &str) -> Result<Option<i64>, Refused> {
    let Some(text) = given(field.trim()) else { return Ok(None) };
    let priority = text.parse().map_err(|_| Refused::field("priority", "is not a number"))?;
    check_priority(priority)?;
    Ok(Some(priority))
}

/// Changes a job, and leads back to its page.
async fn changed(
    state: &JobsState,
    visitor: &Visitor,
    id: &str,
    change: Result<Change, Refused>,
) -> Response {
    match state.manage_job(&visitor.client, id, change).await {
        Ok(job) => Redirect::to(&format!("/jobs/{job}")).into_response(),
        Err(refused) => refused_page(state, &visitor.context, refused),
    }
}

pub(super) async fn retry(
    visitor: Visitor,
    State(state): State<JobsState>,
    Path(id): Path<String>,
    Form(form): Form<JobForm>,
) -> Response {
    let priority = priority_of(&form.priority);
    let change = priority.and_then(|number| retrying(!form.reset_attempts.is_empty(), number, form.why()));
    changed(&state, &visitor, &id, change).await
}

pub(super) async fn cancel(
    visitor: Visitor,
    State(state): State<JobsState>,
    Path(id): Path<String>,
    Form(form): Form<JobForm>,
) -> Response {
    changed(&state, &visitor, &id, Ok(cancelling(form.why()))).await
}

pub(super) async fn priority(
    visitor: Visitor,
    State(state): State<JobsState>,
    Path(id): Path<String>,
    Form(form): Form<JobForm>,
) -> Response {
    let change = priority_of(&form.priority).and_then(|number| reprioritizing(number, form.why()));
    changed(&state, &visitor, &id, change).await
}
