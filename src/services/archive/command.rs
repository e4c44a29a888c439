//! What the archive can be asked to record.

use serde_json::Value;

use super::event::{Snapshot, Window, WindowOutcome};
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
        /// `{"reason": …}`, in the operator's words.
        detail: Value,
    },
    /// A session with it showed something worth keeping.
    Observe {
        /// Which.
        relay: Relay,
        /// `{"what": …}` and whatever belongs to it.
        detail: Value,
    },
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

/// A relay was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotCommand {
    /// Its canonical URL.
    pub url: RelayUrl,
    /// What was found.
    pub snapshot: Snapshot,
}
