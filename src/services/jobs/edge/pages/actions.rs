//! What the forms of the pages do. Each answers with a redirect to the page that shows the result.

use axum::Form;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;

use super::refused::refused_page;
use super::visitor::Visitor;
use crate::services::jobs::command::Change;
use crate::services::jobs::decide::Scope;
use crate::services::jobs::edge::JobsState;
use crate::services::jobs::edge::jobs::number;
use crate::services::jobs::edge::limits::cut;
use crate::services::jobs::edge::manage::checked;
use crate::services::jobs::edge::refusal::Refused;
use crate::services::jobs::event::WorkerEvent;

/// The fields of the forms of a job. An empty one is none.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct JobForm {
    priority: String,
    reset_attempts: String,
    why: String,
}

impl JobForm {
    fn priority(&self) -> Result<Option<i16>, Refused> {
        priority_of(&self.priority)
    }

    fn why(&self) -> Option<String> {
        Some(self.why.trim()).filter(|why| !why.is_empty()).map(cut)
    }
}

/// The priority in a field; `None` if it is empty.
pub(super) fn priority_of(field: &str) -> Result<Option<i16>, Refused> {
    let text = field.trim();
    if text.is_empty() {
        return Ok(None);
    }
    checked(Some(text.parse().map_err(|_| Refused::field("priority", "is not a number"))?))
}

/// Changes a job, and leads back to its page.
async fn changed(
    state: &JobsState,
    visitor: &Visitor,
    id: &str,
    change: Result<Change, Refused>,
) -> Response {
    let outcome = async {
        visitor.require(Scope::Manage)?;
        let job = number(id)?;
        state.change(&visitor.client, job, change?).await?;
        Ok(job)
    };
    match outcome.await {
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
    let change = form.priority().map(|priority| Change::Retry {
        resets_failures: !form.reset_attempts.is_empty(),
        priority,
        why: form.why(),
    });
    changed(&state, &visitor, &id, change).await
}

pub(super) async fn cancel(
    visitor: Visitor,
    State(state): State<JobsState>,
    Path(id): Path<String>,
    Form(form): Form<JobForm>,
) -> Response {
    changed(&state, &visitor, &id, Ok(Change::Cancel { why: form.why() })).await
}

pub(super) async fn priority(
    visitor: Visitor,
    State(state): State<JobsState>,
    Path(id): Path<String>,
    Form(form): Form<JobForm>,
) -> Response {
    let missing = || Refused::field("priority", "must be between 1 and 5");
    let change = form
        .priority()
        .and_then(|priority| priority.ok_or_else(missing))
        .map(|priority| Change::Reprioritize { priority, why: form.why() });
    changed(&state, &visitor, &id, change).await
}

/// Does something to a worker, and leads back to the list of workers.
async fn managed(state: JobsState, visitor: Visitor, id: String, event: WorkerEvent) -> Response {
    let outcome = async {
        visitor.require(Scope::Manage)?;
        state.worker_event(&visitor.client, &id, event, None).await?;
        state.forget_credentials();
        Ok(())
    };
    match outcome.await {
        Ok(()) => Redirect::to("/workers").into_response(),
        Err(refused) => refused_page(&state, &visitor.context, refused),
    }
}

pub(super) async fn drain(
    visitor: Visitor,
    State(state): State<JobsState>,
    Path(id): Path<String>,
) -> Response {
    managed(state, visitor, id, WorkerEvent::Draining).await
}

pub(super) async fn suspend(
    visitor: Visitor,
    State(state): State<JobsState>,
    Path(id): Path<String>,
) -> Response {
    managed(state, visitor, id, WorkerEvent::Suspended).await
}

pub(super) async fn resume(
    visitor: Visitor,
    State(state): State<JobsState>,
    Path(id): Path<String>,
) -> Response {
    managed(state, visitor, id, WorkerEvent::Resumed).await
}

pub(super) async fn remove(
    visitor: Visitor,
    State(state): State<JobsState>,
    Path(id): Path<String>,
) -> Response {
    managed(state, visitor, id, WorkerEvent::Removed).await
}
