//! What the archive can be asked to record.

use serde_json::{Value, json};

use super::decide::Window;
use crate::base::RelayUrl;
use crate::store::Relay;

/// Something happened to a relay.
#[derive(Debug, Clone, PartialEq)]
pub enum RelayCommand {
    /// It became known.
    Add {
        /// Its canonical URL.
        url: RelayUrl,
        /// Who named it: `seed`, `operator`.
        source: &'static str,
    },
    /// It is no longer crawled.
    Retire {
        /// Which.
        relay: Relay,
        /// Why, in the operator's words.
        reason: String,
    },
    /// A session with it showed something worth keeping.
    Observe {
        /// Which.
        relay: Relay,
        /// `{"what": …}` and whatever belongs to it.
        detail: Value,
    },
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

/// A window of a relay was walked to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowCommand {
    /// Which relay.
    pub relay: Relay,
    /// Which part of its time line.
    pub window: Window,
    /// How it ended.
    pub outcome: WindowOutcome,
    /// Events received in it.
    pub events: i32,
    /// REQs it took.
    pub requests: i32,
}
