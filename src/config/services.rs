//! Section `services`: one struct for each, filled by `config/services/<service>.yaml`.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};

use serde::{Deserialize, Serialize};

use super::{Messages, Monitor, PrioritySynchronizer, Synchronizer};

/// Section `services`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Services {
    /// Enters the seed relays.
    pub initializer: Initializer,
    /// Finds relays that events and lists name.
    pub finder: Finder,
    /// Finds out whether they are relays.
    pub validator: Validator,
    /// Archives what relays have.
    pub synchronizer: Synchronizer,
    /// The same, some relays before all others.
    pub priority_synchronizer: PrioritySynchronizer,
    /// Checks relays, and says what it found.
    pub monitor: Monitor,
    /// Keeps the analytic projections.
    pub projector: Projector,
    /// Stores ticks for readers of the journals.
    pub ticker: Ticker,
    /// Stores and forwards messages.
    pub messages: Messages,
    /// Serves the pages.
    pub console: Console,
    /// Verifies and appends Nostr events, for every service that receives them.
    pub ingest: Ingest,
}

/// Section `services.initializer`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Initializer {
    /// Whether `quipu up` runs it.
    pub enabled: bool,
    /// A file in the implementation's `data/`, or an absolute path: one relay URL a line.
    pub seed_file: String,
}

impl Default for Initializer {
    fn default() -> Self {
        Self { enabled: true, seed_file: "seed_relays.txt".to_owned() }
    }
}

/// Section `services.finder`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Finder {
    /// Whether `quipu up` runs it.
    pub enabled: bool,
    /// Whether it reads the stored events. Of an implementation that stores no tags it would learn nothing.
    pub reads_events: bool,
    /// Lists of relays on the web. None unless you name them: nobody is asked unasked.
    pub lists: Vec<RelayList>,
    /// Shortest time between two requests for the same list, in seconds, failed ones included.
    pub lists_interval_s: NonZeroU32,
    /// Longest pause between two looks for new events, in seconds.
    pub interval_s: NonZeroU32,
    /// Most candidates of one network that wait for the validator; what is found beyond that is passed over.
    pub candidates_max: NonZeroU32,
    /// Most candidates of one registrable domain that wait, whatever its sub-domains, ports and paths.
    pub candidates_per_domain_max: NonZeroU32,
    /// Most candidates of one network found within 24 hours.
    pub candidates_per_day_max: NonZeroU32,
    /// Most candidates of one registrable domain found within 24 hours.
    pub candidates_per_domain_day_max: NonZeroU32,
}

impl Default for Finder {
    fn default() -> Self {
        Self {
            enabled: true,
            reads_events: true,
            lists: Vec::new(),
            lists_interval_s: nonzero!(NonZeroU32, 86_400),
            interval_s: nonzero!(NonZeroU32, 10),
            candidates_max: nonzero!(NonZeroU32, 100_000),
            candidates_per_domain_max: nonzero!(NonZeroU32, 50),
            candidates_per_day_max: nonzero!(NonZeroU32, 100_000),
            candidates_per_domain_day_max: nonzero!(NonZeroU32, 200),
        }
    }
}

/// One list of relays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayList {
    /// Where it is: `http://…` or `https://…`. It may be a private address, because you name it.
    pub url: String,
    /// `JSONPath` (RFC 9535) to the addresses in a JSON answer; without it the answer has one address a line.
    #[serde(default)]
    pub path: Option<String>,
}

/// Section `services.validator`. How many candidates it tries at once, and how long it waits for each, is set for each network
/// in section `networks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Validator {
    /// Whether `quipu up` runs it.
    pub enabled: bool,
    /// Longest pause between two looks for candidates that are due, in seconds.
    pub interval_s: NonZeroU32,
    /// Pause after a candidate's first failed try, in seconds; it doubles with each further one.
    pub retry_min_s: NonZeroU32,
    /// Longest pause between two tries, in seconds.
    pub retry_max_s: NonZeroU32,
    /// Failed tries after which a candidate is given up.
    pub tries_max: NonZeroU32,
}

impl Default for Validator {
    fn default() -> Self {
        Self {
            enabled: true,
            interval_s: nonzero!(NonZeroU32, 10),
            retry_min_s: nonzero!(NonZeroU32, 3_600),
            retry_max_s: nonzero!(NonZeroU32, 604_800),
            tries_max: nonzero!(NonZeroU32, 12),
        }
    }
}

/// Section `services.projector`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Projector {
    /// Whether `quipu up` runs it.
    pub enabled: bool,
    /// Longest pause between two looks for a new tick, in milliseconds; a hint shortens it.
    pub interval_ms: NonZeroU64,
}

impl Default for Projector {
    fn default() -> Self {
        Self { enabled: true, interval_ms: nonzero!(NonZeroU64, 1_000) }
    }
}

/// Section `services.ticker`. It always runs where a journal is written; one process holds its lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ticker {
    /// Shortest time between two ticks, in milliseconds.
    pub tick_min_ms: NonZeroU64,
}

impl Default for Ticker {
    fn default() -> Self {
        Self { tick_min_ms: nonzero!(NonZeroU64, 100) }
    }
}

/// Section `services.console`. Its address is `http.console_address`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Console {
    /// Whether `quipu up` runs it.
    pub enabled: bool,
}

impl Default for Console {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// What becomes of a request to vanish (NIP-62). Public answers leave the key's events out either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vanish {
    /// It is kept, and nothing is erased.
    #[default]
    Record,
    /// The key's events up to the request are erased, and a tombstone keeps them away.
    Honour,
}

/// Section `services.ingest`: bounds of the path from a received event to its commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ingest {
    /// Most events in one transaction. More gain nothing and lengthen the wait for the commit.
    pub batch_events_max: NonZeroUsize,
    /// Requests to vanish: `record` or `honour`.
    pub vanish: Vanish,
    /// Where this archive is reached, as canonical URLs: requests to one of them count, as do those to all relays.
    pub vanish_relay_urls: Vec<String>,
}

impl Default for Ingest {
    fn default() -> Self {
        Self {
            batch_events_max: nonzero!(NonZeroUsize, 4_000),
            vanish: Vanish::Record,
            vanish_relay_urls: Vec::new(),
        }
    }
}
