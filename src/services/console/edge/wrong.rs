//! What is wrong, in words.

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::super::decide::{Problem, Severity};
use super::format::age;
use super::status::Status;

/// What is wrong, or that nothing is.
pub(super) fn panel(status: &Status) -> Markup {
    let class = match status.problems.first().map(|problem| problem.severity) {
        None => "fine",
        Some(Severity::Warning) => "warning",
        Some(Severity::Critical) => "critical",
    };
    html! {
        section #panel-wrong .wrong .(class) aria-label="What is wrong" {
            @if status.problems.is_empty() {
                p.verdict { span.mark.ok {} strong { "Nothing is wrong." } " " (checked(status)) }
            } @else {
                h2 { "What is wrong" small { (checked(status)) } }
                ol { @for problem in &status.problems { (entry(status.now, problem)) } }
            }
        }
    }
}

/// When it was checked, and what is not known yet.
fn checked(status: &Status) -> Markup {
    let hours = status.watched_since.map_or(0, |since| (status.now - since).num_hours());
    html! {
        small { "Checked at " (status.now.format("%H:%M:%S")) " UTC."
            @if hours < 24 {
                " Trends are judged once this console has run for "
                @if hours < 6 { "6 hours (lag) and " } "24 hours (gaps)."
            }
        }
    }
}

fn entry(now: DateTime<Utc>, problem: &Problem) -> Markup {
    let (mark, word) = match problem.severity {
        Severity::Critical => ("bad", "critical"),
        Severity::Warning => ("wait", "warning"),
    };
    html! {
        li data-alert=(problem.alert) {
            p.what { span class={ "mark " (mark) } {} strong { (text(&problem.what)) }
                @if let Some(since) = problem.since {
                    " " small title=(since.to_rfc3339()) { "since " (since.format("%Y-%m-%d %H:%M")) " UTC, " (age(now, since)) }
                } }
            p { (text(problem.why)) }
            p { b { "Do: " } (text(problem.action)) }
            p.alert { small { (word) ", more at " a href=(format!("/alerts.md#:~:text={}", problem.alert)) { (problem.alert) } } }
        }
    }
}

/// Words with commands between backticks.
fn text(words: &str) -> Markup {
    html! {
        @for (place, part) in words.split('`').enumerate() {
            @if place % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_between_backticks_is_code_and_everything_is_escaped() {
        assert_eq!(text("run `a <b>` & wait").into_string(), "run <code>a &lt;b&gt;</code> &amp; wait");
    }
}
