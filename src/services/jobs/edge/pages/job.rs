//! `/jobs/{id}`: one job, what happened to it, and what can be done.

use axum::extract::{Path, Query, State};
use axum::response::Response;
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde::Deserialize;

use super::failures::{failures, last_error};
use super::parts::{
    NAME_SHOWN, TEXT_SHOWN, foreign, json_text, meaning, priority_field, status, when, why_field,
};
use super::refused::refused_page;
use super::visitor::Visitor;
use crate::http::page::{bytes, span};
use crate::services::jobs::decide::{PRIORITY_FIRST, PRIORITY_LAST, Scope};
use crate::services::jobs::edge::JobsState;
use crate::services::jobs::edge::jobs::number;
use crate::services::jobs::edge::refusal::Refused;
use crate::services::jobs::event::{Kind, Status};
use crate::services::jobs::read::{self, HistoryEntry, JobView};

/// Entries of the history that the page shows, the newest of them. The API has more.
const HISTORY_SHOWN: usize = 200;

/// Bytes of the details of failures that the page reads, those of the newest entries.
const DETAILS_BYTES_MAX: i64 = 1024 * 1024;

/// What the page shows.
struct Job {
    now: DateTime<Utc>,
    view: JobView,
    history: Vec<HistoryEntry>,
    /// Whether the client may change it.
    is_manager: bool,
    /// Whether the client wanted to submit it, and it was there already.
    was_known: bool,
}

/// The query of the page.
#[derive(Debug, Deserialize)]
pub(super) struct JobQuery {
    known: Option<String>,
}

pub(super) async fn page(
    visitor: Visitor,
    State(state): State<JobsState>,
    Path(id): Path<String>,
    Query(query): Query<JobQuery>,
) -> Response {
    let read = async {
        visitor.require(Scope::Read)?;
        let (pool, id) = (&state.parts().pools.session, number(&id)?);
        let view = read::job(pool, id).await?.ok_or_else(|| Refused::not_found("job"))?;
        let history = read::history(pool, id, None, DETAILS_BYTES_MAX).await?;
        let now = state.parts().clock.now();
        let (is_manager, was_known) = (visitor.may(Scope::Manage), query.known.is_some());
        Ok::<_, Refused>(Job { now, view, history, is_manager, was_known })
    };
    match read.await {
        Ok(job) => super::answer(&visitor, "", &format!("job {}", job.view.job), true, job.main()),
        Err(refused) => refused_page(&state, &visitor.context, refused),
    }
}

impl Job {
    fn main(&self) -> Markup {
        let view = &self.view;
        html! {
            p.back { a href="/jobs" { "All jobs" } }
            @if self.was_known { p.notice { "This file was submitted before under this type. This is its job; no other one was made." } }
            div.job-page data-job=(view.job) {
                div.job-main {
                    div #panel-job {
                        h2.title { "#" (view.job) " " (foreign(&view.job_type, NAME_SHOWN)) (status(&view.status)) }
                        p.meaning { (meaning(&view.status)) (self.next()) }
                        @if self.view.has_failed() { (last_error(view)) }
                        (self.progress())
                        (self.facts())
                    }
                    div #panel-result { (self.result()) }
                    div #panel-failures { (failures(&self.history, self.now)) }
                    (self.submitted())
                }
                div.job-side {
                    @if self.is_manager { div #panel-actions { (self.actions()) } }
                    div #panel-history { (self.history()) }
                }
            }
        }
    }

    /// What comes next, and when.
    fn next(&self) -> Markup {
        let view = &self.view;
        html! {
            @if self.view.is(&[Status::Running]) {
                @if let Some(worker) = &view.worker { ": " b { (foreign(worker, NAME_SHOWN)) } }
                @if let Some(expires_at) = view.expires_at { "; the lease ends " (when(self.now, expires_at)) }
            } @else if let Some(ready_at) = view.ready_at.filter(|at| *at > self.now) {
                ", " (when(self.now, ready_at))
            }
        }
    }

    /// The progress that the worker has reported last. A bar if it says `percent`.
    fn progress(&self) -> Markup {
        let Some(progress) = self.view.progress.as_deref().filter(|_| self.view.is(&[Status::Running]))
        else {
            return html! {};
        };
        let value: serde_json::Value = serde_json::from_str(progress).unwrap_or_default();
        let percent = value.get("percent").and_then(serde_json::Value::as_f64);
        let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
        html! {
            section aria-label="Progress" {
                @if let Some(percent) = percent { progress max="100" value=(percent) { (percent) " %" } }
                (json_text(progress))
            }
        }
    }

    fn facts(&self) -> Markup {
        let view = &self.view;
        let taken = view.started_at.zip(view.completed_at).map(|(from, to)| (to - from).as_seconds_f64());
        let submitter =
            self.history.first().filter(|first| first.step == 0).map(|first| first.actor.as_str());
        html! {
            dl.facts {
                div { dt { "priority" } dd { (view.priority) @if view.priority == PRIORITY_FIRST { " (first)" } @else if view.priority == PRIORITY_LAST { " (last)" } } }
                div { dt { "attempts" } dd { (view.attempts()) " of " (view.attempts_max) } }
                div {
                    dt { "submitted" }
                    dd { (when(self.now, view.created_at)) @if let Some(actor) = submitter { " by " (foreign(actor, NAME_SHOWN)) } }
                }
                @if let Some(started_at) = view.started_at { div { dt { "last attempt" } dd { (when(self.now, started_at)) } } }
                @if let Some(taken) = taken.filter(|_| self.view.is(&[Status::Completed])) { div { dt { "took" } dd { (span(taken)) } } }
                @if let Some(worker) = view.worker.as_ref().filter(|_| !self.view.is(&[Status::Running])) {
                    div { dt { "last worker" } dd { (foreign(worker, NAME_SHOWN)) } }
                }
                @if let Some(path) = &view.source_path { div { dt { "source" } dd { (foreign(path, TEXT_SHOWN)) } } }
                @if let Some(hash) = &view.source_hash { div { dt { "source hash" } dd.mono { (foreign(hash, TEXT_SHOWN)) } } }
                @if let Some(size) = view.source_size { div { dt { "source size" } dd { (bytes(size)) } } }
                @if let Some(jobs) = &view.depends_on {
                    div { dt { "waits for" } dd { @for job in jobs { a href={ "/jobs/" (job) } { "#" (job) } " " } } }
                }
                @if let Some(tags) = &view.tags { div { dt { "tags" } dd { (foreign(tags, TEXT_SHOWN)) } } }
            }
        }
    }

    fn result(&self) -> Markup {
        let result = self.view.result.as_deref().filter(|_| self.view.is(&[Status::Completed]));
        html! { @if let Some(result) = result { section { h2 { "Result" } (json_text(result)) } } }
    }

    /// What the submitter gave to the worker.
    fn submitted(&self) -> Markup {
        html! {
            @if let Some(metadata) = &self.view.metadata { section { h2 { "Metadata" } (json_text(metadata)) } }
        }
    }

    fn actions(&self) -> Markup {
        let job = self.view.job;
        let path = |action: &str| format!("/actions/jobs/{job}/{action}");
        let can_retry = self.view.is(Status::RETRIABLE);
        let is_open = self.view.is(Status::CANCELLABLE);
        html! {
            @if can_retry || is_open {
                section.actions {
                    h2 { "Actions" }
                    @if can_retry {
                        form action=(path("retry")) method="post" {
                            label.check { input type="checkbox" name="reset_attempts" value="1" checked[self.view.is(&[Status::Dead])]; " forget its failures" }
                            (why_field())
                            button type="submit" { "Retry now" }
                        }
                    }
                    @if is_open {
                        form action=(path("priority")) method="post" {
                            (priority_field(self.view.priority))
                            button type="submit" { "Change" }
                        }
                        form action=(path("cancel")) method="post" {
                            (why_field())
                            button.danger type="submit" { "Cancel the job" }
                        }
                    }
                }
            }
        }
    }

    /// Every entry, the newest first.
    fn history(&self) -> Markup {
        html! {
            section {
                h2 { "History" small { "newest first" } }
                ol.history {
                    @for entry in self.history.iter().rev().take(HISTORY_SHOWN) { (self.entry(entry)) }
                }
                @if self.history.len() > HISTORY_SHOWN {
                    p.aside { a href={ "/api/jobs/" (self.view.job) "/history" } { "Earlier entries" } }
                }
            }
        }
    }

    fn entry(&self, entry: &HistoryEntry) -> Markup {
        let has_own_text = entry.kind == Kind::Failed.as_str();
        // Claimed with a token, or by a program on this machine.
        let leased_to = entry.worker.as_deref().filter(|worker| {
            entry.kind == Kind::Leased.as_str() && entry.actor != format!("worker:{worker}")
        });
        html! {
            li data-kind=(entry.kind) data-status=(entry.status) {
                p { b { (entry.kind) } @if entry.kind != entry.status { " " span.aside { "→ " (entry.status) } } }
                (when(self.now, entry.recorded_at))
                p.by {
                    "by " (foreign(&entry.actor, NAME_SHOWN))
                    @if let Some(worker) = leased_to { " for " (foreign(worker, NAME_SHOWN)) }
                    @if entry.kind == Kind::Reprioritized.as_str() { ", priority " (entry.priority) }
                    @if let Some(why) = entry.why.as_deref().filter(|_| !has_own_text) { ": " (foreign(why, NAME_SHOWN)) }
                }
            }
        }
    }
}
