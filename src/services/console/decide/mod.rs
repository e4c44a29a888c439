//! What is wrong, in words: the rules of the console's first panel.
//!
//! A rule is the condition of an alert of `monitoring/alerts/` with the same threshold, which a test compares,
//! asked of the database instead of Prometheus. An alert also waits until its condition has held for some
//! minutes, so that a short fault sends no message; the page says it at once. Alerts on counters of single
//! processes (restarts, panics, refusals, connections) have no rule here: one process does not see them.

mod archive;
mod blobs;
mod history;
mod store;
#[cfg(test)]
mod tests;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

pub(super) use history::{History, Sample};
pub(super) use store::full_in_days;

/// How bad it is, as the label `severity` of the alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Severity {
    /// Data is lost, refused or wrong now.
    Critical,
    /// It will be, or a part is broken that can wait for the day.
    Warning,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Problem {
    /// The alert with the same condition; a section of `docs/alerts.md`.
    pub(super) alert: &'static str,
    pub(super) severity: Severity,
    /// What is wrong, a sentence.
    pub(super) what: String,
    /// Since when, if it is known.
    pub(super) since: Option<DateTime<Utc>>,
    /// Why it matters.
    pub(super) why: &'static str,
    /// What to do. Commands stand between backticks.
    pub(super) action: &'static str,
}

/// The words of a rule that are always the same.
#[derive(Debug)]
struct Rule {
    alert: &'static str,
    severity: Severity,
    why: &'static str,
    action: &'static str,
}

impl Rule {
    fn problem(&self, what: impl Into<String>, since: Option<DateTime<Utc>>) -> Problem {
        let Self { alert, severity, why, action } = *self;
        Problem { alert, severity, what: what.into(), since, why, action }
    }
}

/// What the rules look at. What could not be read is `None` or empty, and named in `unread`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Facts {
    pub(super) now: DateTime<Utc>,
    /// Services of this process that fail or wait.
    pub(super) troubles: Vec<Trouble>,
    /// Whether the console could read the database.
    pub(super) is_database_read: bool,
    /// Groups of figures that could not be read.
    pub(super) unread: Vec<&'static str>,
    /// Free bytes above the reserve, on the file system of the database; `None` if they cannot be measured.
    pub(super) spare_bytes: Option<i64>,
    /// Bytes that a day adds.
    pub(super) daily_growth_bytes: Option<f64>,
    /// The newest run of `quipu verify`: its end, and the number of problems that it found.
    pub(super) verified: Option<(DateTime<Utc>, i32)>,
    /// Projections, with the age of their oldest unread batch in seconds.
    pub(super) lags: Vec<(String, f64)>,
    /// Whether the totals by minute exist: they do not while they are being built.
    pub(super) has_totals: bool,
    /// The newest minute in which an event was stored.
    pub(super) last_stored_at: Option<DateTime<Utc>>,
    /// When the first relay became known.
    pub(super) first_relay_at: Option<DateTime<Utc>>,
    pub(super) networks: Vec<Network>,
    /// Known gaps.
    pub(super) gaps: Option<i64>,
    pub(super) messages: Option<Messages>,
    pub(super) blobs: Option<Blobs>,
}

/// A service that fails or waits.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Trouble {
    pub(super) service: String,
    pub(super) since: DateTime<Utc>,
    /// In one line.
    pub(super) reason: String,
    /// It waits for something outside of Quipu; else it fails.
    pub(super) is_waiting: bool,
}

/// Relays of one network.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Network {
    pub(super) name: String,
    /// Relays that are neither retired nor refused.
    pub(super) active: i64,
    /// Of these, relays that the latest check could read.
    pub(super) readable: i64,
    /// Sessions that failed within [`RECENT`].
    pub(super) failed_sessions: i64,
    /// Whether a relay answered within [`RECENT`].
    pub(super) is_heard: bool,
    /// When a session was last known to read from one of them.
    pub(super) last_heard_at: Option<DateTime<Utc>>,
    /// Age in seconds of the oldest open second of the median relay.
    pub(super) median_s: Option<f64>,
    /// Active relays whose certificate ends within seven days or has ended.
    pub(super) expiring: i64,
}

/// Messages within [`RECENT`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Messages {
    pub(super) accepted: i64,
    pub(super) acknowledged: i64,
    /// Age of the oldest message that no device has acknowledged, in seconds.
    pub(super) oldest_s: Option<f64>,
}

/// Blobs that have an owner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Blobs {
    /// Those without any copy.
    pub(super) unavailable: i64,
    /// Age of the oldest copy that was accepted and not read back, in seconds.
    pub(super) oldest_unverified_s: Option<f64>,
}

/// The span of the rules that ask for something recent.
pub(super) const RECENT: TimeDelta = TimeDelta::hours(1);

/// Everything that is wrong, the worst first.
pub(super) fn problems(facts: &Facts, history: &History) -> Vec<Problem> {
    let mut found = store::problems(facts);
    found.extend(archive::problems(facts, history));
    found.extend(blobs::problems(facts));
    found.sort_by_key(|problem| problem.severity);
    found
}

/// The moment `seconds` before `now`.
fn ago(now: DateTime<Utc>, seconds: f64) -> Option<DateTime<Utc>> {
    #[expect(clippy::cast_possible_truncation, reason = "whole seconds; saturates")]
    let seconds = seconds as i64;
    now.checked_sub_signed(TimeDelta::try_seconds(seconds)?)
}
