//! Section `services`: one struct for each, filled by `config/services/<service>.yaml`.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};

use serde::{Deserialize, Serialize};

/// Section `services`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Services {
    /// Enters the seed relays.
    pub initializer: Initializer,
    /// Archives what relays have.
    pub synchronizer: Synchronizer,
    /// Keeps the analytic projections.
    pub projector: Projector,
    /// Stores ticks for readers of the journals.
    pub ticker: Ticker,
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

/// Section `services.synchronizer`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Synchronizer {
    /// Whether `quipu up` runs it.
    pub enabled: bool,
    /// Crawl only these relays, as canonical URLs; empty for all that are known.
    pub only_relays: Vec<String>,
    /// Most relays this process is connected to at once.
    pub relays_at_once: NonZeroUsize,
    /// Events asked for by one REQ, its `limit`. Relays cap it, often at 500.
    pub page_events: NonZeroUsize,
    /// Longest to wait for a relay's connection, in seconds.
    pub connect_timeout_s: NonZeroU32,
    /// Longest silence of a relay in the middle of an answer, in seconds.
    pub idle_timeout_s: NonZeroU32,
    /// Pause until a relay that was brought up to date is asked again, in seconds.
    pub interval_s: NonZeroU32,
    /// Oldest `created_at` asked for, in Unix seconds.
    pub since_unix_s: u64,
    /// How far behind the present a window ends, in seconds: younger events may still be arriving.
    pub end_lag_s: u32,
}

impl Default for Synchronizer {
    fn default() -> Self {
        Self {
            enabled: true,
            only_relays: Vec::new(),
            relays_at_once: nonzero!(NonZeroUsize, 32),
            page_events: nonzero!(NonZeroUsize, 500),
            connect_timeout_s: nonzero!(NonZeroU32, 10),
            idle_timeout_s: nonzero!(NonZeroU32, 30),
            interval_s: nonzero!(NonZeroU32, 300),
            since_unix_s: 0,
            end_lag_s: 60,
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
    /// Names under which a proxy offers it, without scheme and port. Its address always counts.
    pub hosts: Vec<String>,
}

impl Default for Console {
    fn default() -> Self {
        Self { enabled: true, hosts: Vec::new() }
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
