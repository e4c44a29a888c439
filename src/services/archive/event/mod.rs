//! Facts about relays: windows of their time line with their outcome, and snapshots of their checks.

mod snapshot;

pub use snapshot::Snapshot;

use serde_json::{Value, json};

/// A range of `created_at` from `since` to `until`, both inclusive, in unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Window {
    /// First second.
    pub since: i64,
    /// Last second; never before `since`.
    pub until: i64,
}

impl Window {
    /// The window; `None` if it would be empty.
    #[must_use]
    pub fn new(since: i64, until: i64) -> Option<Self> {
        (since <= until).then_some(Self { since, until })
    }

    /// True if `second` lies in the window.
    #[must_use]
    pub fn contains(self, second: i64) -> bool {
        self.since <= second && second <= self.until
    }
}

/// Why a window is incomplete, as a word to count by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapCause {
    /// One second holds more events than the relay shows.
    CrowdedSecond,
    /// The relay announced events that it does not send.
    Withheld,
    /// A message is longer than allowed.
    OversizedMessage,
    /// The relay contradicts itself.
    Contradictory,
    /// None of the events of an answer could be used.
    Unusable,
    /// Events arrive after the end of the answer that they belong to.
    LateEvents,
}

impl GapCause {
    /// Its name in `sync_log.detail` and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CrowdedSecond => "crowded_second",
            Self::Withheld => "withheld",
            Self::OversizedMessage => "oversized_message",
            Self::Contradictory => "contradictory",
            Self::Unusable => "unusable",
            Self::LateEvents => "late_events",
        }
    }
}

/// Outcome of a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WindowOutcome {
    /// All events that the relay had in the window are archived.
    Complete,
    /// The relay may hold more events than it sent.
    Gap {
        /// Why the window is not complete, as a word.
        cause: GapCause,
        /// The same for people.
        reason: String,
    },
}

impl WindowOutcome {
    /// Its name in `sync_log.outcome`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Gap { .. } => "gap",
        }
    }

    /// `sync_log.detail`.
    #[must_use]
    pub fn detail(&self) -> Value {
        match self {
            Self::Complete => json!({}),
            Self::Gap { cause, reason } => json!({ "cause": cause.as_str(), "reason": reason }),
        }
    }
}
