//! What has happened to a relay: which window of its time line was walked and how that ended, and what checks of it found.

mod snapshot;

pub use snapshot::Snapshot;

use serde_json::{Value, json};

/// From `since` to `until`, both inclusive, in unix seconds of `created_at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Window {
    /// First second.
    pub since: i64,
    /// Last second; never before `since`.
    pub until: i64,
}

impl Window {
    /// The window, unless it would be empty.
    #[must_use]
    pub fn new(since: i64, until: i64) -> Option<Self> {
        (since <= until).then_some(Self { since, until })
    }

    /// Whether `second` lies in it.
    #[must_use]
    pub fn contains(self, second: i64) -> bool {
        self.since <= second && second <= self.until
    }
}

/// How a window ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WindowOutcome {
    /// Everything the relay had in it is archived.
    Complete,
    /// The relay holds more than it would give.
    Gap {
        /// Why we think so.
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
            Self::Gap { reason } => json!({ "reason": reason }),
        }
    }
}
