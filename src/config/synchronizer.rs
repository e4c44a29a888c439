//! Sections `services.synchronizer` and `services.priority_synchronizer`.

use std::num::{NonZeroU32, NonZeroUsize};

use serde::{Deserialize, Serialize};

/// Section `services.synchronizer`. The priority synchronizer works by it, too.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the settings file")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Synchronizer {
    /// Whether `quipu up` runs it.
    pub enabled: bool,
    /// Crawl only these relays, as canonical URLs; empty for all that are known.
    pub only_relays: Vec<String>,
    /// Most relays whose past is read at the same time. How many are connected is up to `networks`.
    pub catching_up_max: NonZeroUsize,
    /// Most relays that are too slow for `catching_up_max` whose past is read at the same time, beside those.
    pub slow_catching_up_max: NonZeroUsize,
    /// Fewest events a second, new ones or of windows that are proven by them, that a relay delivers to keep its place among
    /// `catching_up_max`. Only time in which the relay is waited for counts.
    pub catching_up_events_per_s_min: NonZeroU32,
    /// Longest that a relay keeps such a place without delivering so much, in seconds of waiting for it.
    pub slow_after_s: NonZeroU32,
    /// Longest that any relay keeps its place before it queues for the next turn, in seconds.
    pub turn_s: NonZeroU32,
    /// Events asked for by one REQ, its `limit`. Relays cap it, often at 500.
    pub page_events: NonZeroUsize,
    /// Pause until what a relay got since the last time is compared, in seconds.
    pub interval_s: NonZeroU32,
    /// Oldest `created_at` asked for, in Unix seconds.
    pub since_unix_s: u64,
    /// How far behind the present a window ends, in seconds: younger events may still be arriving.
    pub end_lag_s: u32,
    /// Whether relays stay connected and send what they get at once.
    pub live: bool,
    /// Ages at which every second of a relay is asked for once more, in seconds: what came late or backdated is found then.
    pub recheck_after_s: Vec<u32>,
    /// A proof is forgotten after so many days, and the relay's whole past is asked for again.
    pub recheck_all_days: NonZeroU32,
    /// Whether relays that speak NIP-77 are compared with, instead of downloaded from.
    pub negentropy: bool,
    /// Most events of ours in one comparison. Each costs about 100 bytes of memory meanwhile.
    pub negentropy_events_max: NonZeroUsize,
    /// Most sightings of one relay that are learnt by comparing, in 24 hours of one process. Beyond that it is read page by page.
    pub compared_sightings_per_day_max: NonZeroU32,
    /// Whether a relay that asks who we are gets an answer (NIP-42), by `QUIPU_SYNCHRONIZER_SECRET_KEY` or a key made for this run.
    pub authenticate: bool,
    /// How long a relay stays ours without a sign of life, in seconds. A killed process's relays are taken over after that.
    pub lease_s: NonZeroU32,
    /// Pause after a session that failed, in seconds. Each further one is twice as long.
    pub retry_min_s: NonZeroU32,
    /// Longest such pause, in seconds.
    pub retry_max_s: NonZeroU32,
}

impl Default for Synchronizer {
    fn default() -> Self {
        Self {
            enabled: true,
            only_relays: Vec::new(),
            catching_up_max: nonzero!(NonZeroUsize, 32),
            slow_catching_up_max: nonzero!(NonZeroUsize, 4),
            catching_up_events_per_s_min: nonzero!(NonZeroU32, 5),
            slow_after_s: nonzero!(NonZeroU32, 10),
            turn_s: nonzero!(NonZeroU32, 60),
            page_events: nonzero!(NonZeroUsize, 500),
            interval_s: nonzero!(NonZeroU32, 3_600),
            since_unix_s: 0,
            end_lag_s: 60,
            live: true,
            recheck_after_s: vec![3_600, 86_400],
            recheck_all_days: nonzero!(NonZeroU32, 90),
            negentropy: true,
            negentropy_events_max: nonzero!(NonZeroUsize, 100_000),
            compared_sightings_per_day_max: nonzero!(NonZeroU32, 1_000_000),
            authenticate: true,
            lease_s: nonzero!(NonZeroU32, 60),
            retry_min_s: nonzero!(NonZeroU32, 60),
            retry_max_s: nonzero!(NonZeroU32, 21_600),
        }
    }
}

/// Section `services.priority_synchronizer`. One of the two synchronizers runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrioritySynchronizer {
    /// Whether `quipu up` runs it; then `services.synchronizer.enabled` must be false.
    pub enabled: bool,
    /// A file in the implementation's `data/`, or an absolute path: one relay URL a line. These go first and stay connected.
    pub relays_file: String,
}

impl Default for PrioritySynchronizer {
    fn default() -> Self {
        Self { enabled: false, relays_file: "priority_relays.txt".to_owned() }
    }
}
