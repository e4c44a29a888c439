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
        /// `operator` (command line), `seed` (a seed file) or `validator`, which proved it. Only the operator's relays may have a
        /// private address.
        source: &'static str,
    },
    /// It is no longer crawled.
    Retire {
        /// Which.
        relay: Relay,
        /// `{"reason": …}`, in the operator's words.
        detail: Value,
    },
    /// It is crawled again after it was retired.
    Restore {
        /// Which.
        relay: Relay,
        /// `{"reason": …}`, in the operator's words.
        detail: Value,
    },
    /// It is never dialled, unless the operator names it.
    Refuse {
        /// Which.
        relay: Relay,
        /// `{"reason": …}`, see [`super::decide::refusal`].
        detail: Value,
    },
    /// A session with it showed something worth keeping.
    Observe {
        /// Which.
        relay: Relay,
        /// `{"what": …}` and whatever belongs to it.
        detail: Value,
    },
    /// Somebody named a URL that may be a relay.
    Find {
        /// Its canonical URL.
        url: RelayUrl,
        /// `{"source": "event", "event": …}` or `{"source": "list", "list": …}`; an object. Its `domain` is added when it is recorded.
        detail: Value,
        /// Room for it. All commands of a process bring the same.
        bounds: CandidateBounds,
    },
    /// A candidate is given up.
    Drop {
        /// Its canonical URL.
        url: RelayUrl,
        /// `{"reason": …, "tries": …}`.
        detail: Value,
    },
}

/// Most candidates that are taken up, so that a flood of hints cannot fill the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CandidateBounds {
    /// Waiting at one time, of one network.
    pub waiting_max: i32,
    /// Waiting of one registrable domain.
    pub domain_max: i32,
    /// Found within a day, of one network.
    pub day_max: i32,
    /// Found within a day, of one registrable domain.
    pub domain_day_max: i32,
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
    /// Questions it took.
    pub requests: i32,
    /// When it was asked for at the earliest, unix seconds by this process's clock.
    pub asked_at: i64,
    /// The fence of the relay's lease: what a process finds out counts only while the relay is its own.
    pub fence: i64,
}

/// A relay was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotCommand {
    /// Its canonical URL.
    pub url: RelayUrl,
    /// What was found.
    pub snapshot: Snapshot,
}
