//! `/jobs`: how many jobs there are, for how long the oldest one waits, and a list of them.

use std::collections::BTreeMap;

use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::http::header::HOST;
use axum::response::Response;
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::parts::{NAME_SHOWN, foreign, meaning, status, when};
use super::refused::refused_page;
use super::upload::{self, form_file_bytes_max};
use super::visitor::Visitor;
use crate::http::page::{grouped, span};
use crate::services::jobs::decide::{Scope, TYPE_BYTES_MAX};
use crate::services::jobs::edge::JobsState;
use crate::services::jobs::edge::limits::{OFFSET_MAX, PAGE_DEFAULT};
use crate::services::jobs::edge::refusal::Refused;
use crate::services::jobs::edge::submit::given;
use crate::services::jobs::event::Status;
use crate::services::jobs::read::{self, JobFilter, JobView, Stats};
use crate::store::figures::{JobBacklog, job_backlog};

/// Types that the page names; the filter finds the others.
const TYPES_SHOWN: usize = 50;

/// The query of the page. An empty field is none.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct QueueQuery {
    status: String,
    r#type: String,
    offset: String,
}

impl QueueQuery {
    fn filter(&self) -> Result<JobFilter<'_>, Refused> {
        if !self.status.is_empty() && Status::parse(&self.status).is_none() {
            return Err(Refused::field("status", format!("is none of {}", Status::WORDS.join(", "))));
        }
        Ok(JobFilter { status: given(&self.status), job_type: given(&self.r#type), before: None })
    }

    fn offset(&self) -> i32 {
        self.offset.parse().unwrap_or(0).clamp(0, OFFSET_MAX)
    }
}

/// What the page shows.
struct Queue<'a> {
    now: DateTime<Utc>,
    /// Where scripts reach this listener.
    host: &'a str,
    filter: JobFilter<'a>,
    offset: i32,
    stats: Stats,
    /// Number of jobs that the filter lets through.
    total: i64,
    backlog: Vec<JobBacklog>,
    jobs: Vec<JobView>,
    /// Whether the client may change jobs.
    is_manager: bool,
    /// The largest file that the client may submit, bytes; `None` if it may not, or there is no place for files.
    file_bytes_max: Option<u64>,
}

pub(super) async fn page(
    visitor: Visitor,
    State(state): State<JobsState>,
    Query(query): Query<QueueQuery>,
    headers: HeaderMap,
) -> Response {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("127.0.0.1:4707");
    let read = async {
        visitor.require(Scope::Read)?;
        let pool = &state.parts().pools.session;
        let (filter, offset) = (query.filter()?, query.offset());
        let total = read::total(pool, filter.status, filter.job_type).await?;
        // The search for jobs of a type that has none reads all jobs.
        let jobs =
            if total > 0 { read::bare_jobs(pool, filter, offset, PAGE_DEFAULT).await? } else { Vec::new() };
        Ok(Queue {
            now: state.parts().clock.now(),
            host,
            filter,
            offset,
            stats: read::stats(pool).await?,
            total,
            backlog: job_backlog(pool).await?,
            jobs,
            is_manager: visitor.may(Scope::Manage),
            file_bytes_max: visitor.may(Scope::Submit).then(|| form_file_bytes_max(&state)).flatten(),
        })
    };
    match read.await {
        Ok(queue) => super::answer(&visitor, "/jobs", "jobs", true, queue.main()),
        Err(refused) => refused_page(&state, &visitor.context, refused),
    }
}

/// The address of a list.
pub(super) fn address(status: Option<&str>, job_type: Option<&str>, offset: i32) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let fields = [
        status.map(|status| format!("status={}", encoded(status))),
        job_type.map(|job_type| format!("type={}", encoded(job_type))),
        (offset > 0).then(|| format!("offset={offset}")),
    ];
    let fields: Vec<String> = fields.into_iter().flatten().collect();
    if fields.is_empty() { "/jobs".to_owned() } else { format!("/jobs?{}", fields.join("&")) }
}

impl Queue<'_> {
    fn main(&self) -> Markup {
        html! {
            div #panel-queue {
                (self.unserved())
                (self.figures())
                (self.types())
            }
            section.list aria-labelledby="list-title" {
                div.list-head {
                    h2 #list-title { "Jobs" }
                    (self.filters())
                }
                (self.many())
                div #panel-list { (self.list()) }
            }
            @if let Some(most) = self.file_bytes_max { (upload::form(most, &self.type_names())) }
        }
    }

    /// The types that are known.
    fn type_names(&self) -> Vec<&str> {
        let mut types: Vec<&str> = self.stats.counts.iter().map(|count| count.job_type.as_str()).collect();
        types.dedup();
        types.truncate(TYPES_SHOWN);
        types
    }

    /// What can be done to all jobs of the chosen status.
    fn many(&self) -> Markup {
        let status = self.filter.status.and_then(Status::parse).filter(|_| self.is_manager);
        let offered = |any: &[Status]| status.is_some_and(|status| any.contains(&status));
        let to = |action: &str| {
            let list = address(self.filter.status, self.filter.job_type, 0);
            list.replacen("/jobs", &format!("/jobs/{action}"), 1)
        };
        html! {
            @if !self.jobs.is_empty() && (offered(Status::RETRIABLE) || offered(Status::CANCELLABLE)) {
                p.buttons {
                    @if offered(Status::RETRIABLE) { a.button href=(to("retry-all")) { "Retry all…" } }
                    @if offered(Status::CANCELLABLE) { a.button.danger href=(to("cancel-all")) { "Cancel all…" } }
                }
            }
        }
    }

    /// Jobs that nothing works on.
    fn unserved(&self) -> Markup {
        let unserved = self.backlog.iter().filter(|backlog| backlog.is_unserved());
        html! {
            @for backlog in unserved.take(TYPES_SHOWN) {
                p.notice {
                    "No worker is online for " b { (foreign(&backlog.job_type, NAME_SHOWN)) } ": the oldest of its jobs, "
                    a href={ "/jobs/" (backlog.oldest_job) } { "#" (backlog.oldest_job) } ", has waited for "
                    (span(backlog.oldest_s)) "."
                }
            }
        }
    }

    fn figures(&self) -> Markup {
        let of = |status: Status| self.stats.jobs(Some(status.as_str()));
        let link = |status: Status, text: &str| {
            html! { a href=(address(Some(status.as_str()), None, 0)) { (text) } }
        };
        let oldest = self.backlog.first().map(|backlog| span(backlog.oldest_s));
        let (failed, waiting, cancelled) = (of(Status::Failed), of(Status::Waiting), of(Status::Cancelled));
        html! {
            dl.figures {
                div {
                    dt { (link(Status::Pending, "Pending")) }
                    dd { (grouped(of(Status::Pending))) }
                    dd.note {
                        @if let Some(oldest) = oldest { "the oldest has waited for " (oldest) } @else { "nothing can be claimed" }
                    }
                    @if waiting > 0 { dd.note { (link(Status::Waiting, &format!("{} wait for other jobs", grouped(waiting)))) } }
                }
                div {
                    dt { (link(Status::Running, "Running")) }
                    dd { (grouped(of(Status::Running))) }
                    dd.note {
                        a href="/workers" { (grouped(self.stats.workers.online)) " of " (grouped(self.stats.workers.all)) " workers online" }
                    }
                }
                div {
                    dt { (link(Status::Completed, "Completed")) }
                    dd { (grouped(of(Status::Completed))) }
                    @if cancelled > 0 { dd.note { (link(Status::Cancelled, &format!("{} cancelled", grouped(cancelled)))) } }
                }
                div {
                    dt { (link(Status::Dead, "Dead")) }
                    dd { (grouped(of(Status::Dead))) }
                    dd.note {
                        @if failed > 0 { (link(Status::Failed, &format!("{} will be tried again", grouped(failed)))) }
                        @else { "no attempt waits to be tried again" }
                    }
                }
            }
        }
    }

    /// Counts by type.
    fn types(&self) -> Markup {
        let mut types: BTreeMap<&str, BTreeMap<&str, i64>> = BTreeMap::new();
        for count in &self.stats.counts {
            *types.entry(&count.job_type).or_default().entry(&count.status).or_default() += count.jobs;
        }
        let of = |counts: &BTreeMap<&str, i64>, status: Status| {
            counts.get(status.as_str()).copied().filter(|jobs| *jobs != 0)
        };
        let columns = [
            ("pending", Status::Pending, false),
            ("running", Status::Running, false),
            ("failed", Status::Failed, true),
            ("completed", Status::Completed, true),
            ("dead", Status::Dead, false),
        ];
        html! {
            @if !types.is_empty() {
                section.types aria-labelledby="types-title" {
                    h2 #types-title { "By type" }
                    table {
                        thead {
                            tr {
                                th { "type" }
                                @for (title, _, is_roomy) in columns { th.number.roomy[is_roomy] { (title) } }
                                th.number { "oldest" }
                            }
                        }
                        tbody {
                            @for (job_type, counts) in types.iter().take(TYPES_SHOWN) {
                                tr {
                                    td.name { a href=(address(None, Some(*job_type), 0)) { (foreign(job_type, NAME_SHOWN)) } }
                                    @for (_, status, is_roomy) in columns {
                                        td.number.roomy[is_roomy] {
                                            @if let Some(jobs) = of(counts, status) {
                                                a href=(address(Some(status.as_str()), Some(*job_type), 0)) { (grouped(jobs)) }
                                            } @else { span.aside { "–" } }
                                        }
                                    }
                                    td.number { (self.oldest(job_type)) }
                                }
                            }
                        }
                    }
                    @if types.len() > TYPES_SHOWN { p.aside { "and " (types.len() - TYPES_SHOWN) " more types" } }
                }
            }
        }
    }

    fn oldest(&self, job_type: &str) -> Markup {
        let found = self.backlog.iter().find(|backlog| backlog.job_type == job_type);
        html! {
            @if let Some(backlog) = found {
                a href={ "/jobs/" (backlog.oldest_job) } { (span(backlog.oldest_s)) }
            } @else { span.aside { "–" } }
        }
    }

    fn filters(&self) -> Markup {
        html! {
            form.filters action="/jobs" method="get" role="search" {
                label {
                    span { "status" }
                    select name="status" {
                        option value="" { "any" }
                        @for word in Status::WORDS {
                            option value=(word) title=(meaning(word)) selected[self.filter.status == Some(*word)] { (word) }
                        }
                    }
                }
                label {
                    span { "type" }
                    input type="text" name="type" list="types" placeholder="any" maxlength=(TYPE_BYTES_MAX) autocomplete="off"
                        value=[self.filter.job_type];
                }
                datalist #types { @for job_type in self.type_names() { option value=(job_type) {} } }
                button type="submit" { "Show" }
            }
        }
    }

    fn list(&self) -> Markup {
        let is_filtered = self.filter.status.is_some() || self.filter.job_type.is_some();
        html! {
            @if self.jobs.is_empty() && self.offset > 0 {
                p.empty { "The list ends before this page. " a href=(address(self.filter.status, self.filter.job_type, 0)) { "To its beginning" } }
            } @else if self.jobs.is_empty() && is_filtered {
                p.empty { "No job has this status and type. " a href="/jobs" { "Show all" } }
            } @else if self.jobs.is_empty() {
                div.first {
                    p.empty { "No job was submitted yet. This submits one:" }
                    pre { "curl http://" (self.host) "/api/jobs -d '{\"type\": \"pdf\", \"source_hash\": \"abc\"}'" }
                }
            } @else {
                table.jobs {
                    thead {
                        tr { th { "job" } th { "status" } th.number.roomy { "priority" } th.number.roomy { "attempts" } th.number { "changed" } }
                    }
                    tbody { @for job in &self.jobs { (self.row(job)) } }
                }
                (self.pages())
            }
        }
    }

    fn row(&self, job: &JobView) -> Markup {
        let source = job.source_path.as_deref().or(job.source_hash.as_deref());
        html! {
            tr {
                td.name {
                    a.job href={ "/jobs/" (job.job) } { "#" (job.job) " " (foreign(&job.job_type, NAME_SHOWN)) }
                    @if let Some(source) = source { span.source { (foreign(source, NAME_SHOWN)) } }
                    @if let Some(error) = job.last_error.as_deref().filter(|_| job.has_failed()) {
                        span.error { (foreign(error.lines().next().unwrap_or_default(), NAME_SHOWN)) }
                    }
                    @if let Some(worker) = job.worker.as_deref().filter(|_| job.is(&[Status::Running])) {
                        span.source { "at " (foreign(worker, NAME_SHOWN)) }
                    }
                }
                td { (status(&job.status)) }
                td.number.roomy { (job.priority) }
                td.number.roomy { (job.attempts()) " of " (job.attempts_max) }
                td.number {
                    (when(self.now, job.updated_at))
                    @if let Some(ready_at) = job.ready_at.filter(|at| *at > self.now) {
                        span.source { "next " (when(self.now, ready_at)) }
                    }
                }
            }
        }
    }

    fn pages(&self) -> Markup {
        let (total, offset) = (self.total, i64::from(self.offset));
        let last = offset + i64::try_from(self.jobs.len()).unwrap_or(0);
        let next = self.offset + PAGE_DEFAULT;
        let to = |offset| address(self.filter.status, self.filter.job_type, offset);
        html! {
            nav.paging aria-label="Pages of the list" {
                span.aside { (grouped(offset + 1)) " to " (grouped(last)) " of " (grouped(total.max(last))) }
                @if self.offset > 0 { a rel="prev" href=(to((self.offset - PAGE_DEFAULT).max(0))) { "Previous" } }
                @if last < total && next <= OFFSET_MAX { a rel="next" href=(to(next)) { "Next" } }
                @else if last < total { span.aside { "for the others choose a status or a type" } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_list_holds_any_type() {
        assert_eq!(address(None, None, 0), "/jobs");
        assert_eq!(
            address(Some("dead"), Some("a&b=\"ü"), 50),
            "/jobs?status=dead&type=a%26b%3D%22%C3%BC&offset=50"
        );
    }

    #[test]
    fn an_empty_field_is_no_filter_and_an_unknown_status_is_refused() {
        let query = |status: &str, offset: &str| QueueQuery {
            status: status.to_owned(),
            offset: offset.to_owned(),
            ..QueueQuery::default()
        };
        assert_eq!(query("", "x").filter().unwrap(), JobFilter::default());
        assert_eq!((query("", "x").offset(), query("", "-5").offset()), (0, 0));
        assert_eq!(query("", "99999999").offset(), OFFSET_MAX);
        assert!(query("lost", "").filter().is_err());
    }
}
