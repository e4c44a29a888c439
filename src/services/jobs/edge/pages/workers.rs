//! `/workers`: who works, on what, and when each was last heard of. Administrators create workers with secrets of
//! their own, and enable and disable them.

use axum::Form;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::parts::{NAME_SHOWN, foreign, status, when};
use super::refused::refused_page;
use super::visitor::{Administrator, Visitor};
use crate::http::page::grouped;
use crate::services::jobs::decide::{NAME_BYTES_MAX, Scope, TYPE_BYTES_MAX};
use crate::services::jobs::edge::JobsState;
use crate::services::jobs::event::{WorkerEvent, WorkerStatus};
use crate::services::jobs::read::{self, WorkerView};
use crate::store::Error;

/// Workers that the page shows.
const WORKERS_SHOWN: i64 = 500;

/// The path of the page.
const PATH: &str = "/workers";

/// The fields of a new worker.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WorkerForm {
    id: String,
    name: String,
    r#type: String,
}

/// What the visitor can do to workers.
#[derive(Debug, Clone, Copy)]
struct Rights {
    is_manager: bool,
    is_administrator: bool,
}

impl Rights {
    fn of(visitor: &Visitor) -> Self {
        Self { is_manager: visitor.may(Scope::Manage), is_administrator: visitor.may_become_administrator() }
    }
}

pub(super) async fn page(visitor: Visitor, State(state): State<JobsState>) -> Response {
    match visitor.require(Scope::Read) {
        Ok(()) => shown(&state, &visitor, None).await,
        Err(refused) => refused_page(&state, &visitor.context, refused),
    }
}

/// The page; with the id of a worker and the secret that it was just given.
async fn shown(state: &JobsState, visitor: &Visitor, new: Option<(&str, &str)>) -> Response {
    let pool = &state.parts().pools.session;
    let read = async {
        let counts = read::worker_counts(pool).await?;
        Ok::<_, Error>((read::workers(pool, WORKERS_SHOWN, false).await?, counts.all))
    };
    match read.await {
        Ok((workers, all)) => {
            let main = main(&workers, all, state.parts().clock.now(), Rights::of(visitor), new);
            super::answer(visitor, PATH, "workers", new.is_none(), main)
        }
        Err(error) => refused_page(state, &visitor.context, error.into()),
    }
}

pub(super) async fn create(
    Administrator(visitor): Administrator,
    State(state): State<JobsState>,
    Form(form): Form<WorkerForm>,
) -> Response {
    let (id, name, job_type) = (form.id.trim(), form.name.trim(), form.r#type.trim());
    match state.new_worker(&visitor.client, id, name, job_type).await {
        Ok(secret) => shown(&state, &visitor, Some((id, &secret))).await,
        Err(refused) => refused_page(&state, &visitor.context, refused),
    }
}

pub(super) async fn regenerate(
    Administrator(visitor): Administrator,
    State(state): State<JobsState>,
    Path(id): Path<String>,
) -> Response {
    match state.regenerated_secret(&visitor.client, &id).await {
        Ok(secret) => shown(&state, &visitor, Some((&id, &secret))).await,
        Err(refused) => refused_page(&state, &visitor.context, refused),
    }
}

/// Does something to a worker that needs this scope, and leads back to the list.
async fn managed(
    state: JobsState,
    visitor: Visitor,
    scope: Scope,
    id: String,
    event: WorkerEvent,
) -> Response {
    match state.manage_worker(&visitor.client, scope, &id, event).await {
        Ok(()) => Redirect::to(PATH).into_response(),
        Err(refused) => refused_page(&state, &visitor.context, refused),
    }
}

pub(super) async fn drain(
    visitor: Visitor,
    State(state): State<JobsState>,
    Path(id): Path<String>,
) -> Response {
    managed(state, visitor, Scope::Manage, id, WorkerEvent::Draining).await
}

pub(super) async fn suspend(
    visitor: Visitor,
    State(state): State<JobsState>,
    Path(id): Path<String>,
) -> Response {
    managed(state, visitor, Scope::Manage, id, WorkerEvent::Suspended).await
}

pub(super) async fn resume(
    visitor: Visitor,
    State(state): State<JobsState>,
    Path(id): Path<String>,
) -> Response {
    managed(state, visitor, Scope::Manage, id, WorkerEvent::Resumed).await
}

pub(super) async fn remove(
    visitor: Visitor,
    State(state): State<JobsState>,
    Path(id): Path<String>,
) -> Response {
    managed(state, visitor, Scope::Manage, id, WorkerEvent::Removed).await
}

pub(super) async fn enable(
    Administrator(visitor): Administrator,
    State(state): State<JobsState>,
    Path(id): Path<String>,
) -> Response {
    managed(state, visitor, Scope::Admin, id, WorkerEvent::Enabled).await
}

pub(super) async fn disable(
    Administrator(visitor): Administrator,
    State(state): State<JobsState>,
    Path(id): Path<String>,
) -> Response {
    managed(state, visitor, Scope::Admin, id, WorkerEvent::Disabled).await
}

/// The page, with these of `all` workers.
fn main(
    workers: &[WorkerView],
    all: i64,
    now: DateTime<Utc>,
    rights: Rights,
    new: Option<(&str, &str)>,
) -> Markup {
    html! {
        @if let Some((id, secret)) = new {
            section.created role="status" {
                h2 { "The secret of " (foreign(id, NAME_SHOWN)) }
                p { "Copy it now: QUIPU_WORKER_SECRET of the worker. It is not stored and cannot be shown again. An earlier one is no longer accepted." }
                pre #new-secret { (secret) }
            }
        }
        section #panel-workers.workers aria-labelledby="workers-title" {
            h2 #workers-title { "Workers" @if !workers.is_empty() { small { (grouped(all)) } } }
            @if workers.is_empty() {
                p.empty {
                    "No worker has registered yet. A worker that registers (POST /api/workers/register) is listed here; one that "
                    "only claims jobs is shown by the jobs that it runs."
                }
            } @else {
                table {
                    thead {
                        tr { th { "worker" } th { "state" } th.number.roomy { "job" } th.number { "heard of" } }
                    }
                    tbody { @for worker in workers { (row(worker, now, rights)) } }
                }
                @if all > WORKERS_SHOWN { p.aside { a href="/api/workers" { "All workers" } } }
            }
        }
        @if rights.is_administrator { (form()) }
    }
}

/// The form of a new worker. One that shows a token with the scope `work` needs none.
fn form() -> Markup {
    html! {
        section.actions.new-worker aria-labelledby="new-title" {
            h2 #new-title { "New worker" small { "with a secret of its own, by which it acts as itself alone" } }
            form action="/actions/workers" method="post" {
                label { span { "id" } input type="text" name="id" maxlength=(NAME_BYTES_MAX) required autocomplete="off"; }
                label { span { "type" } input type="text" name="type" maxlength=(TYPE_BYTES_MAX) required autocomplete="off"; }
                label { span { "name" } input type="text" name="name" maxlength=(NAME_BYTES_MAX) placeholder="optional" autocomplete="off"; }
                button type="submit" { "Create" }
            }
        }
    }
}

/// The job that a worker works on; a worker that is away works on none.
fn job_of(worker: &WorkerView) -> Option<i64> {
    let is_away = worker.status == WorkerStatus::Offline.as_str();
    worker.job.filter(|_| !is_away)
}

fn row(worker: &WorkerView, now: DateTime<Utc>, rights: Rights) -> Markup {
    html! {
        tr {
            td.name {
                b { (foreign(&worker.worker, NAME_SHOWN)) }
                @if let Some(name) = worker.name.as_ref().filter(|name| **name != worker.worker) { " " (foreign(name, NAME_SHOWN)) }
                span.source { (foreign(&worker.job_type, NAME_SHOWN)) @if !worker.is_enabled { ", disabled" } }
                (actions(worker, rights))
            }
            td { (status(&worker.status)) }
            td.number.roomy {
                @if let Some(job) = job_of(worker) { a href={ "/jobs/" (job) } { "#" (job) } } @else { span.aside { "–" } }
            }
            td.number { (when(now, worker.seen_at.unwrap_or(worker.updated_at))) }
        }
    }
}

/// What can be done to a worker in its state.
fn actions(worker: &WorkerView, rights: Rights) -> Markup {
    let offered: &[(&str, &str)] = match worker.status.as_str() {
        _ if !rights.is_manager => &[],
        "online" => &[("drain", "Drain"), ("suspend", "Suspend")],
        "draining" => &[("resume", "Resume"), ("suspend", "Suspend")],
        "suspended" => &[("resume", "Resume"), ("remove", "Remove")],
        _ => &[("remove", "Remove")],
    };
    let administrators: &[(&str, &str)] = if !rights.is_administrator {
        &[]
    } else if worker.is_enabled {
        &[("disable", "Disable"), ("regenerate", "New secret")]
    } else {
        &[("enable", "Enable")]
    };
    let id = utf8_percent_encode(&worker.worker, NON_ALPHANUMERIC).to_string();
    html! {
        @if !offered.is_empty() || !administrators.is_empty() {
            div.buttons {
                @for (action, title) in offered.iter().chain(administrators) {
                    form action={ "/actions/workers/" (id) "/" (action) } method="post" { button type="submit" { (title) } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_worker_cannot_leave_its_place() {
        let at = DateTime::from_timestamp(0, 0).unwrap();
        let worker = WorkerView {
            worker: "../x\"><script>\u{202e}".to_owned(),
            name: None,
            job_type: "<b>".to_owned(),
            status: "online".to_owned(),
            is_enabled: true,
            seen_at: None,
            job: Some(7),
            metadata: None,
            created_at: at,
            updated_at: at,
        };
        let rights = Rights { is_manager: true, is_administrator: false };
        let shown = main(&[worker], 1, at, rights, None).into_string();
        assert!(
            shown.contains("action=\"/actions/workers/%2E%2E%2Fx%22%3E%3Cscript%3E%E2%80%AE/drain\""),
            "{shown}"
        );
        assert!(shown.contains("../x&quot;&gt;&lt;script&gt;⟨U+202E⟩"), "{shown}");
        assert!(!shown.contains("<script>") && !shown.contains('\u{202e}'), "{shown}");
        assert!(shown.contains("href=\"/jobs/7\""), "{shown}");
    }
}
