//! Parts that several pages have.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde_json::Value;

use crate::http::page::{age, span};
use crate::services::jobs::decide::{ERROR_BYTES_MAX, PRIORITY_FIRST, PRIORITY_LAST};
use crate::services::jobs::event::Status;

/// Characters of a name, a path or a first line that a list shows.
pub(super) const NAME_SHOWN: usize = 120;

/// Characters of an error or a reason.
pub(super) const TEXT_SHOWN: usize = 4_000;

/// Characters of a JSON value. The API has all of it.
const JSON_SHOWN: usize = 20_000;

/// The field for a reason, which the history keeps.
pub(super) fn why_field() -> Markup {
    html! { label { span { "reason" } input type="text" name="why" maxlength=(ERROR_BYTES_MAX) placeholder="optional" autocomplete="off"; } }
}

/// The field for a priority.
pub(super) fn priority_field(chosen: i16) -> Markup {
    let place = |priority| match priority {
        PRIORITY_FIRST => " (first)",
        PRIORITY_LAST => " (last)",
        _ => "",
    };
    html! {
        label {
            span { "priority" }
            select name="priority" {
                @for priority in PRIORITY_FIRST..=PRIORITY_LAST {
                    option value=(priority) selected[priority == chosen] { (priority) (place(priority)) }
                }
            }
        }
    }
}

/// A stranger's text: in its own direction, at most `most` characters, with every character written out that
/// cannot be seen or changes the direction of what follows.
pub(super) fn foreign(text: &str, most: usize) -> Markup {
    html! { bdi { (visible(text, most)) } }
}

/// The text of [`foreign`] alone, for attributes.
pub(super) fn visible(text: &str, most: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(most * 4));
    for (place, letter) in text.chars().enumerate() {
        if place == most {
            shown.push('…');
            break;
        }
        match letter {
            '\n' | '\t' => shown.push(letter),
            letter if is_hidden(letter) => {
                let _ = write!(shown, "⟨U+{:04X}⟩", u32::from(letter));
            }
            letter => shown.push(letter),
        }
    }
    shown
}

/// Control characters, marks of direction, and spaces without width.
fn is_hidden(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// A JSON value over several lines.
pub(super) fn json(value: &Value) -> Markup {
    let text = match value {
        Value::String(text) => text.clone(),
        value => serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string()),
    };
    html! { pre { (foreign(&text, JSON_SHOWN)) } }
}

/// A stored JSON text over several lines; as it is if it cannot be read.
pub(super) fn json_text(text: &str) -> Markup {
    if let Ok(value) = serde_json::from_str(text) {
        json(&value)
    } else {
        html! { pre { (foreign(text, JSON_SHOWN)) } }
    }
}

/// How long ago a time was, or in how long it will be; the time itself in the title.
pub(super) fn when(now: DateTime<Utc>, then: DateTime<Utc>) -> Markup {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds below 2^53 are exact: 285,000 years")]
    let ahead_s = ((then - now).num_milliseconds() as f64 / 1_000.0).ceil();
    let text = if ahead_s >= 1.0 { format!("in {}", span(ahead_s)) } else { age(now, then) };
    html! {
        time datetime=(then.to_rfc3339()) title=(then.format("%Y-%m-%d %H:%M:%S UTC")) { (text) }
    }
}

/// The status of a job or a worker with its mark.
pub(super) fn status(word: &str) -> Markup {
    let class = match word {
        "running" | "online" => "ok",
        "dead" => "bad",
        "failed" | "draining" | "suspended" => "wait",
        "completed" | "offline" => "done",
        _ => "",
    };
    html! { span.status { span class={ "mark " (class) } {} (word) } }
}

/// What a status of jobs means.
pub(super) fn meaning(word: &str) -> &'static str {
    match Status::parse(word) {
        Some(Status::Pending) => "can be claimed",
        Some(Status::Waiting) => "waits for other jobs",
        Some(Status::Running) => "leased to a worker",
        Some(Status::Failed) => "an attempt failed, the next one is planned",
        Some(Status::Completed) => "done",
        Some(Status::Dead) => "too many attempts failed",
        Some(Status::Cancelled) => "will not run",
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_or_turns_the_text_is_written_out() {
        assert_eq!(visible("a\u{202e}b\u{7}\n", 10), "a⟨U+202E⟩b⟨U+0007⟩\n");
        assert_eq!(visible("עברית é", 10), "עברית é");
        assert_eq!(visible("abcdef", 3), "abc…");
        assert_eq!(foreign("<b>", 9).into_string(), "<bdi>&lt;b&gt;</bdi>");
    }

    #[test]
    fn a_time_is_shown_from_now_in_both_directions() {
        let now = DateTime::from_timestamp(1_000, 0).unwrap();
        let shown = |seconds| when(now, DateTime::from_timestamp(seconds, 0).unwrap()).into_string();
        assert!(shown(1_060).contains(">in 60\u{202f}s<") && shown(940).contains(">60\u{202f}s ago<"));
        assert!(shown(940).contains(r#"title="1970-01-01 00:15:40 UTC""#));
    }
}
