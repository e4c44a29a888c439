//! Commands: the facts that callers append to the archive's journals.

use serde_json::Value;

use super::event::{Snapshot, Window, WindowOutcome};
use crate::base::RelayUrl;
use crate::store::Relay;

/// A fact about a relay or a candidate, for `relay_log`.
#[derive(Debug, Clone, PartialEq)]
pub enum RelayCommand {
    /// A relay became known.
    Add {
        /// Its canonical URL.
        url: RelayUrl,
        /// `operator` (command line), `seed` (a seed file) or `validator` (a verified candidate). Only relays
        /// of the operator may have a private address.
        source: &'static str,
    },
    /// A relay is no longer crawled.
    Retire {
        /// The relay.
        relay: Relay,
        /// `{"reason": …}` as given by the operator.
        detail: Value,
    },
    /// A retired relay is crawled again.
    Restore {
        /// The relay.
        relay: Relay,
        /// `{"reason": …}` as given by the operator.
        detail: Value,
    },
    /// A relay is never dialled unless the operator names it.
    Refuse {
        /// The relay.
        relay: Relay,
        /// `{"reason": …}`, see [`super::decide::refusal`].
        detail: Value,
    },
    /// An observation from a session with a relay.
    Observe {
        /// The relay.
        relay: Relay,
        /// `{"what": …}` and further fields of that kind of observation.
        detail: Value,
    },
    /// An event or a list named a URL that may be a relay.
    Find {
        /// Its canonical URL.
        url: RelayUrl,
        /// An object: `{"source": "event", "event": …}` or `{"source": "list", "list": …}`. Its `domain` is
        /// added when it is recorded.
        detail: Value,
        /// Limits on candidates; the same in all commands of a process.
        bounds: CandidateBounds,
    },
    /// A candidate is given up.
    Drop {
        /// Its URL as it was found: canonical, unless the rules have changed since.
        url: String,
        /// `{"reason": …, "tries": …}`.
        detail: Value,
    },
}

/// Limits on candidates, so that a flood of hints cannot fill the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CandidateBounds {
    /// Most candidates of one network that wait at a time.
    pub waiting_max: i32,
    /// Most candidates of one registrable domain that wait at a time.
    pub domain_max: i32,
    /// Most candidates of one network found within 24 hours.
    pub day_max: i32,
    /// Most candidates of one registrable domain found within 24 hours.
    pub domain_day_max: i32,
}

/// The outcome of a window of a relay, for `sync_log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowCommand {
    /// The relay.
    pub relay: Relay,
    /// The window of its time line.
    pub window: Window,
    /// Whether the window is complete.
    pub outcome: WindowOutcome,
    /// Events received in the window.
    pub events: i32,
    /// Requests sent for the window.
    pub requests: i32,
    /// Time of the earliest request, unix seconds by this process's clock.
    pub asked_at: i64,
    /// Fencing token of the relay's lease. The window is recorded only while this lease is valid.
    pub fence: i64,
}

/// A snapshot of a checked relay, for `relay_metadata`.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotCommand {
    /// Its canonical URL.
    pub url: RelayUrl,
    /// The results of the checks.
    pub snapshot: Snapshot,
}
