//! `/workers`: who works, on what, and when each was last heard of.

use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::parts::{NAME_SHOWN, foreign, status, when};
use super::refused::refused_page;
use super::visitor::Visitor;
use crate::http::page::grouped;
use crate::services::jobs::decide::Scope;
use crate::services::jobs::edge::JobsState;
use crate::services::jobs::edge::refusal::Refused;
use crate::services::jobs::event::WorkerStatus;
use crate::services::jobs::read::{self, WorkerView};

/// Workers that the page shows.
const WORKERS_SHOWN: usize = 500;

pub(super) async fn page(visitor: Visitor, State(state): State<JobsState>) -> Response {
    let read = async {
        visitor.require(Scope::Read)?;
        Ok::<_, Refused>(read::workers(&state.parts().pools.session).await?)
    };
    match read.await {
        Ok(workers) => {
            let main = main(&workers, state.parts().clock.now(), visitor.may(Scope::Manage));
            super::answer(&visitor, "/workers", "workers", true, main)
        }
        Err(refused) => refused_page(&state, &visitor.context, refused),
    }
}

fn main(workers: &[WorkerView], now: DateTime<Utc>, is_manager: bool) -> Markup {
    html! {
        section #panel-workers.workers aria-labelledby="workers-title" {
            h2 #workers-title { "Workers" @if !workers.is_empty() { small { (grouped(i64::try_from(workers.len()).unwrap_or(i64::MAX))) } } }
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
                    tbody { @for worker in workers.iter().take(WORKERS_SHOWN) { (row(worker, now, is_manager)) } }
                }
                @if workers.len() > WORKERS_SHOWN { p.aside { a href="/api/workers" { "All workers" } } }
            }
        }
    }
}

/// The job that a worker works on; a worker that is away works on none.
fn job_of(worker: &WorkerView) -> Option<i64> {
    let is_away = worker.status == WorkerStatus::Offline.as_str();
    worker.job.filter(|_| !is_away)
}

fn row(worker: &WorkerView, now: DateTime<Utc>, is_manager: bool) -> Markup {
    html! {
        tr {
            td.name {
                b { (foreign(&worker.worker, NAME_SHOWN)) }
                @if let Some(name) = worker.name.as_ref().filter(|name| **name != worker.worker) { " " (foreign(name, NAME_SHOWN)) }
                span.source { (foreign(&worker.job_type, NAME_SHOWN)) @if !worker.is_enabled { ", disabled" } }
                @if is_manager { (actions(worker)) }
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
fn actions(worker: &WorkerView) -> Markup {
    let offered: &[(&str, &str)] = match worker.status.as_str() {
        "online" => &[("drain", "Drain"), ("suspend", "Suspend")],
        "draining" => &[("resume", "Resume"), ("suspend", "Suspend")],
        "suspended" => &[("resume", "Resume"), ("remove", "Remove")],
        _ => &[("remove", "Remove")],
    };
    let id = utf8_percent_encode(&worker.worker, NON_ALPHANUMERIC).to_string();
    html! {
        div.buttons {
            @for (action, title) in offered {
                form action={ "/actions/workers/" (id) "/" (action) } method="post" { button type="submit" { (title) } }
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
        let shown = main(&[worker], at, true).into_string();
        assert!(
            shown.contains("action=\"/actions/workers/%2E%2E%2Fx%22%3E%3Cscript%3E%E2%80%AE/drain\""),
            "{shown}"
        );
        assert!(shown.contains("../x&quot;&gt;&lt;script&gt;⟨U+202E⟩"), "{shown}");
        assert!(!shown.contains("<script>") && !shown.contains('\u{202e}'), "{shown}");
        assert!(shown.contains("href=\"/jobs/7\""), "{shown}");
    }
}
