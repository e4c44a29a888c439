//! Retries or cancels all jobs of a status: a page that says which, and a form that does it, a thousand at a time.

use axum::Form;
use axum::extract::{Query, State};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::manage::priority_of;
use super::parts::{NAME_SHOWN, foreign, why_field};
use super::queue::address;
use super::refused::refused_page;
use super::visitor::Visitor;
use crate::http::page::grouped;
use crate::services::jobs::command::Change;
use crate::services::jobs::decide::{PRIORITY_FIRST, PRIORITY_LAST, Scope};
use crate::services::jobs::edge::JobsState;
use crate::services::jobs::edge::limits::CHANGED_MAX;
use crate::services::jobs::edge::manage::{cancelling, retrying};
use crate::services::jobs::edge::many::{Changed, Choice, Found, PREVIEWED, chosen};
use crate::services::jobs::edge::refusal::Refused;
use crate::services::jobs::edge::submit::given;
use crate::services::jobs::event::Status;
use crate::services::jobs::read::{self, JobFilter, JobView};

/// What is done to all jobs of a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Retry,
    Cancel,
}

impl Action {
    /// The statuses of jobs to which it can be done.
    fn allowed(self) -> &'static [Status] {
        match self {
            Self::Retry => Status::RETRIABLE,
            Self::Cancel => Status::CANCELLABLE,
        }
    }

    const fn verb(self) -> &'static str {
        match self {
            Self::Retry => "Retry",
            Self::Cancel => "Cancel",
        }
    }

    const fn done(self) -> &'static str {
        match self {
            Self::Retry => "retried",
            Self::Cancel => "cancelled",
        }
    }

    const fn path(self) -> &'static str {
        match self {
            Self::Retry => "retry-all",
            Self::Cancel => "cancel-all",
        }
    }
}

/// Which jobs, and what retry and cancel of one job take. An empty field is none.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ManyForm {
    status: String,
    r#type: String,
    priority: String,
    reset_attempts: String,
    why: String,
}

impl ManyForm {
    fn choice(&self, action: Action) -> Result<Choice<'_>, Refused> {
        Ok(Choice {
            status: chosen(&self.status, action.allowed())?,
            job_type: given(&self.r#type),
            before: None,
            most: CHANGED_MAX,
        })
    }

    fn change(&self, action: Action) -> Result<Change, Refused> {
        let why = given(self.why.trim());
        match action {
            Action::Cancel => Ok(cancelling(why)),
            Action::Retry => retrying(!self.reset_attempts.is_empty(), priority_of(&self.priority)?, why),
        }
    }
}

pub(super) async fn preview_retry(
    visitor: Visitor,
    State(state): State<JobsState>,
    Query(form): Query<ManyForm>,
) -> Response {
    preview(&state, &visitor, &form, Action::Retry).await
}

pub(super) async fn preview_cancel(
    visitor: Visitor,
    State(state): State<JobsState>,
    Query(form): Query<ManyForm>,
) -> Response {
    preview(&state, &visitor, &form, Action::Cancel).await
}

async fn preview(state: &JobsState, visitor: &Visitor, form: &ManyForm, action: Action) -> Response {
    let read = async {
        visitor.require(Scope::Read)?;
        visitor.require(Scope::Manage)?;
        let choice = form.choice(action)?;
        let found = state.choose(choice).await?;
        let filter =
            JobFilter { status: Some(choice.status.as_str()), job_type: choice.job_type, before: None };
        let most = i32::try_from(PREVIEWED).unwrap_or(i32::MAX);
        let first = read::bare_jobs(&state.parts().pools.session, filter, 0, most).await?;
        Ok::<_, Refused>(previewed(form, choice, action, &found, &first))
    };
    match read.await {
        Ok(main) => super::answer(visitor, "", &action.path().replace('-', " "), false, main),
        Err(refused) => refused_page(state, &visitor.context, refused),
    }
}

pub(super) async fn retry(
    visitor: Visitor,
    State(state): State<JobsState>,
    Form(form): Form<ManyForm>,
) -> Response {
    change(&state, &visitor, &form, Action::Retry).await
}

pub(super) async fn cancel(
    visitor: Visitor,
    State(state): State<JobsState>,
    Form(form): Form<ManyForm>,
) -> Response {
    change(&state, &visitor, &form, Action::Cancel).await
}

async fn change(state: &JobsState, visitor: &Visitor, form: &ManyForm, action: Action) -> Response {
    let outcome = async {
        visitor.require(Scope::Manage)?;
        let (choice, change) = (form.choice(action)?, form.change(action)?);
        let Found { jobs, has_more } = state.choose(choice).await?;
        let changed = state.change_many(&visitor.client, jobs, choice.status, change).await?;
        Ok::<_, Refused>(done(form, choice, action, changed, has_more))
    };
    match outcome.await {
        Ok(main) => super::answer(visitor, "", action.done(), false, main),
        Err(refused) => refused_page(state, &visitor.context, refused),
    }
}

/// `2 dead jobs of the type pdf`.
fn jobs_of(count: &str, choice: Choice<'_>) -> Markup {
    html! {
        (count) " " (choice.status.as_str()) " " @if count == "1" { "job" } @else { "jobs" }
        @if let Some(job_type) = choice.job_type { " of the type " b { (foreign(job_type, NAME_SHOWN)) } }
    }
}

fn count(number: usize) -> String {
    grouped(i64::try_from(number).unwrap_or(i64::MAX))
}

/// Which jobs, and the form.
fn previewed(
    form: &ManyForm,
    choice: Choice<'_>,
    action: Action,
    found: &Found,
    first: &[JobView],
) -> Markup {
    let list = address(Some(choice.status.as_str()), choice.job_type, 0);
    let all = count(found.jobs.len());
    html! {
        p.back { a href=(list) { "Back to the list" } }
        section.many {
            @if found.jobs.is_empty() {
                h2 { (action.verb()) " " (jobs_of("0", choice)) }
                p.empty { "There is no such job." }
            } @else {
                h2 {
                    (action.verb()) " "
                    @if found.has_more { "the first " }
                    (jobs_of(&all, choice))
                }
                @if found.has_more { p.meaning { "There are more: the page after this one goes on." } }
                ol.previewed {
                    @for job in first {
                        li {
                            a href={ "/jobs/" (job.job) } { "#" (job.job) " " (foreign(&job.job_type, NAME_SHOWN)) }
                            @if let Some(source) = job.source_path.as_deref().or(job.source_hash.as_deref()) {
                                span.source { (foreign(source, NAME_SHOWN)) }
                            }
                        }
                    }
                    @if found.jobs.len() > first.len() { li.aside { "and " (count(found.jobs.len() - first.len())) " more" } }
                }
                (fields(form, action))
            }
        }
    }
}

fn fields(form: &ManyForm, action: Action) -> Markup {
    html! {
        div.actions {
            form action={ "/actions/jobs/" (action.path()) } method="post" {
                input type="hidden" name="status" value=(form.status);
                input type="hidden" name="type" value=(form.r#type);
                @if action == Action::Retry {
                    label.check { input type="checkbox" name="reset_attempts" value="1" checked[form.status == "dead"]; " forget their failures" }
                    label {
                        span { "priority" }
                        select name="priority" {
                            option value="" { "as it is" }
                            @for priority in PRIORITY_FIRST..=PRIORITY_LAST { option value=(priority) { (priority) } }
                        }
                    }
                }
                (why_field())
                @if action == Action::Cancel { button.danger type="submit" { "Cancel them" } } @else { button type="submit" { "Retry them" } }
            }
        }
    }
}

/// What was done, and a button for the rest.
fn done(form: &ManyForm, choice: Choice<'_>, action: Action, changed: Changed, has_more: bool) -> Markup {
    html! {
        p.back { a href=(address(None, choice.job_type, 0)) { "To the queue" } }
        section.many {
            h2 { (jobs_of(&count(changed.changed), choice)) " " @if changed.changed == 1 { "was " } @else { "were " } (action.done()) }
            @if changed.passed_over > 0 {
                p.meaning { (count(changed.passed_over)) " were changed by other requests first." }
            }
            @if has_more {
                p.meaning { "There are more." }
                form action={ "/actions/jobs/" (action.path()) } method="post" {
                    @for (name, value) in [("status", &form.status), ("type", &form.r#type), ("priority", &form.priority),
                                           ("reset_attempts", &form.reset_attempts), ("why", &form.why)] {
                        input type="hidden" name=(name) value=(value);
                    }
                    button type="submit" { "Go on" }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_and_to_which_jobs_has_to_be_named() {
        let form = |status: &str| ManyForm { status: status.to_owned(), ..ManyForm::default() };
        assert!(form("dead").choice(Action::Retry).is_ok());
        for (status, action) in [
            ("dead", Action::Cancel),
            ("", Action::Retry),
            ("completed", Action::Retry),
            ("lost", Action::Cancel),
        ] {
            assert!(form(status).choice(action).is_err(), "{status}");
        }
    }

    #[test]
    fn the_rest_is_changed_in_the_same_way() {
        let form = ManyForm {
            status: "dead".to_owned(),
            r#type: "<b>\"".to_owned(),
            priority: "2".to_owned(),
            reset_attempts: "1".to_owned(),
            why: "new font".to_owned(),
        };
        let choice = form.choice(Action::Retry).unwrap();
        let changed = Changed { changed: 1_000, passed_over: 2 };
        let shown = done(&form, choice, Action::Retry, changed, true).into_string();
        for part in [
            "1\u{202f}000 dead jobs of the type <b><bdi>&lt;b&gt;&quot;</bdi></b> were retried",
            "2 were changed by other requests first",
            "name=\"type\" value=\"&lt;b&gt;&quot;\"",
            "name=\"priority\" value=\"2\"",
            "name=\"reset_attempts\" value=\"1\"",
            "name=\"why\" value=\"new font\"",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }
}
