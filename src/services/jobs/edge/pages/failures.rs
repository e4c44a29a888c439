//! The failures of a job: the last error, and every attempt that failed.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde_json::Value;

use super::parts::{NAME_SHOWN, TEXT_SHOWN, foreign, json, json_text, when};
use crate::http::page::{spaced, span};
use crate::services::jobs::event::Kind;
use crate::services::jobs::read::{HistoryEntry, JobView};

/// Failed attempts that the page shows, the newest of them.
const SHOWN: usize = 100;

/// The last error, for a job that has not been completed since.
pub(super) fn last_error(view: &JobView) -> Markup {
    html! {
        @if let Some(error) = &view.last_error {
            div.notice.bad {
                p.aside { "last error" }
                p.error { (foreign(error, TEXT_SHOWN)) }
            }
        }
    }
}

/// The attempts that failed, the newest first.
pub(super) fn failures(history: &[HistoryEntry], now: DateTime<Utc>) -> Markup {
    let failed: Vec<_> = history.iter().rev().filter(|entry| entry.is_failure()).collect();
    let leased = history.iter().filter(|entry| entry.kind == Kind::Leased.as_str());
    let began: HashMap<i32, DateTime<Utc>> = leased.map(|entry| (entry.attempt, entry.recorded_at)).collect();
    html! {
        @if !failed.is_empty() {
            section {
                h2 { "Failures" }
                ol.failures {
                    @for entry in failed.iter().take(SHOWN) { (failure(entry, began.get(&entry.attempt), now)) }
                }
                @if failed.len() > SHOWN { p.aside { "and earlier ones" } }
            }
        }
    }
}

fn failure(entry: &HistoryEntry, began: Option<&DateTime<Utc>>, now: DateTime<Utc>) -> Markup {
    html! {
        li {
            p.failure-head {
                "Attempt " (entry.attempt)
                @if let Some(worker) = &entry.worker { " at " (foreign(worker, NAME_SHOWN)) }
                ", " (when(now, entry.recorded_at))
                @if let Some(began) = began { ", after " (span((entry.recorded_at - *began).as_seconds_f64())) }
            }
            p.error {
                @if let Some(why) = &entry.why { (foreign(why, TEXT_SHOWN)) }
                @else if entry.kind == Kind::Expired.as_str() { "the lease ended without an answer of the worker" }
                @else { "the worker gave no reason" }
            }
            @if let Some(detail) = &entry.detail {
                details id={ "failure-" (entry.step) } { summary { "Details" } (details(detail)) }
            }
        }
    }
}

/// What a worker said beside the error. The members of an object are shown one by one, so that a traceback has its
/// lines.
fn details(detail: &str) -> Markup {
    let Ok(Value::Object(members)) = serde_json::from_str(detail) else { return json_text(detail) };
    html! {
        @for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
            p.aside { (foreign(&spaced(name), NAME_SHOWN)) }
            (json(value))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_traceback_has_its_lines_and_an_attempt_its_length() {
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        let entry = |kind: &str, seconds, why: Option<&str>, detail| HistoryEntry {
            step: 1,
            position: 1,
            recorded_at: at(seconds),
            kind: kind.to_owned(),
            was: None,
            status: "failed".to_owned(),
            priority: 3,
            attempt: 1,
            failures: 1,
            worker: Some("w".to_owned()),
            expires_at: None,
            ready_at: None,
            actor: "worker:w".to_owned(),
            why: why.map(str::to_owned),
            detail,
            is_detail_left_out: false,
        };
        let detail = json!({ "traceback": "line 1\n<line 2>", "context": null });
        let history =
            [entry("leased", 0, None, None), entry("failed", 12, Some("no font"), Some(detail.to_string()))];
        let shown = failures(&history, at(60)).into_string();
        assert!(shown.contains("<pre><bdi>line 1\n&lt;line 2&gt;</bdi></pre>"), "{shown}");
        assert!(shown.contains("after 12\u{202f}s") && !shown.contains("context"), "{shown}");
        assert_eq!(failures(&history[..1], at(60)).into_string(), "");
    }
}
