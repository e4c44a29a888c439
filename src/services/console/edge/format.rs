//! Formats rates, details and names for people.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde_json::Value;

pub(super) use crate::http::page::{age, bytes, grouped, spaced, span};

/// A rate; below 100 with one decimal.
pub(super) fn rate(per_second: f64) -> String {
    if per_second > 0.0 && per_second < 0.05 {
        "<0.1".to_owned()
    } else if per_second < 99.95 {
        format!("{per_second:.1}")
    } else {
        #[expect(clippy::cast_possible_truncation, reason = "rounded for people; saturates")]
        let whole = per_second.round() as i64;
        grouped(whole)
    }
}

/// Age of an event by its signed time, which can be any number.
pub(super) fn signed_age(now: DateTime<Utc>, created_at: i64) -> String {
    match DateTime::from_timestamp(created_at, 0) {
        Some(then) => age(now, then),
        None => "date out of range".to_owned(),
    }
}

/// The members of a detail as pairs; empty members are left out.
pub(super) fn pairs(detail: &Value) -> Vec<(&str, Cow<'_, str>)> {
    let members = detail.as_object().into_iter().flatten();
    members
        .filter_map(|(name, value)| match value {
            Value::Null => None,
            Value::Object(object) if object.is_empty() => None,
            _ => Some((name.as_str(), time(name, value).map_or_else(|| text(value), Cow::Owned))),
        })
        .collect()
}

/// Members of details that hold unix seconds. The same list is in `console.js`.
const TIMES: [&str; 6] = ["asked_at", "created_at", "expires_at", "generated_at", "since", "until"];

/// Unix seconds of the year 10000.
const YEAR_10000: i64 = 253_402_300_800;

/// A member that holds unix seconds, as UTC to the minute. Seconds outside 1970 to 9999 stay numbers.
fn time(name: &str, value: &Value) -> Option<String> {
    let seconds = value.as_i64().filter(|_| TIMES.contains(&name))?;
    let time = DateTime::from_timestamp(seconds, 0).filter(|_| (0..YEAR_10000).contains(&seconds))?;
    Some(time.format("%Y-%m-%d %H:%M").to_string())
}

fn text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    }
}

/// The name of a Nostr kind; `None` for rare kinds.
pub(super) fn kind_name(kind: i32) -> Option<&'static str> {
    Some(match kind {
        0 => "profile",
        1 => "text note",
        2 => "relay recommendation",
        3 => "follow list",
        4 => "encrypted message (old)",
        5 => "deletion request",
        6 => "repost",
        7 => "reaction",
        8 => "badge award",
        9 => "chat message",
        11 => "thread",
        13 => "seal",
        14 => "direct message",
        16 => "generic repost",
        17 => "website reaction",
        20 => "picture",
        21 => "video",
        22 => "short video",
        40 => "channel",
        41 => "channel metadata",
        42 => "channel message",
        62 => "request to vanish",
        443 => "key package",
        445 => "group event",
        1059 => "gift wrap",
        1063 => "file metadata",
        1111 => "comment",
        1311 => "live chat message",
        1617 => "patch",
        1621 => "issue",
        1984 => "report",
        1985 => "label",
        5000..=5999 => "job request",
        6000..=6999 => "job result",
        7000 => "job feedback",
        9041 => "zap goal",
        9321 => "nutzap",
        9734 => "zap request",
        9735 => "zap",
        9802 => "highlight",
        10_000 => "mute list",
        10_002 => "relay list",
        10_003 => "bookmarks",
        10_050 => "message relay list",
        10_063 => "media server list",
        10_166 => "monitor announcement",
        13_194 => "wallet info",
        17_375 => "wallet",
        20_000..=29_999 => "ephemeral",
        30_000 => "follow set",
        30_002 => "relay set",
        30_003 => "bookmark set",
        30_008 => "profile badges",
        30_009 => "badge definition",
        30_023 => "article",
        30_024 => "draft article",
        30_030 => "emoji set",
        30_078 => "application data",
        30_166 => "relay discovery",
        30_311 => "live event",
        30_315 => "user status",
        30_402 => "classified listing",
        30_617 => "repository",
        31_922 | 31_923 => "calendar event",
        31_989 => "handler recommendation",
        31_990 => "handler information",
        34_235 | 34_236 => "video (addressable)",
        34_550 => "community",
        38_383 => "peer-to-peer order",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::page::THIN;

    #[test]
    fn rates_are_short() {
        let text = |number| rate(number).replace(THIN, " ");
        assert_eq!(
            [text(0.0), text(0.016), text(3.12), text(99.94), text(99.96), text(12_345.6)],
            ["0.0", "<0.1", "3.1", "99.9", "100", "12 346"]
        );
    }

    #[test]
    fn an_event_of_any_time_has_an_age() {
        let now = DateTime::from_timestamp(0, 0).unwrap();
        assert_eq!(signed_age(now, 0), "just now");
        assert_eq!(signed_age(now, i64::MAX), "date out of range");
    }

    #[test]
    fn empty_members_of_a_detail_are_left_out() {
        let detail = serde_json::json!({ "source": "relay", "stored": 3, "refused": {}, "none": null });
        assert_eq!(pairs(&detail), [("source", "relay".into()), ("stored", "3".into())]);
        assert!(pairs(&Value::Null).is_empty());
    }

    #[test]
    fn times_of_a_detail_are_dates() {
        let detail =
            serde_json::json!({ "events": 1_735_689_600, "since": 1_735_689_600, "until": i64::MAX });
        let expected = [
            ("events", "1735689600".into()),
            ("since", "2025-01-01 00:00".into()),
            ("until", "9223372036854775807".into()),
        ];
        assert_eq!(pairs(&detail), expected);
    }
}
