//! Sections `services.synchronizer` and `services.priority_synchronizer`.

use std::num::{NonZeroU32, NonZeroUsize};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problems::{Problems, Section};

/// Section `services.synchronizer`. The priority synchronizer uses it too.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the settings file")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Synchronizer {
    /// Whether `quipu up` runs it.
    pub enabled: bool,
    /// Crawl only these relays, as canonical URLs; empty for all that are known. They may have private
    /// addresses, because you name them.
    pub only_relays: Vec<String>,
    /// Relays whose stored events are read at the same time. The number of connections is set in `networks`.
    pub catching_up_max: NonZeroUsize,
    /// Relays that are too slow for a slot among `catching_up_max` and whose stored events are read at the
    /// same time, in addition to those.
    pub slow_catching_up_max: NonZeroUsize,
    /// Events per second that a relay must deliver to stay among `catching_up_max`: new events, and events of
    /// windows that they prove complete. Only time spent waiting for the relay counts. A slower relay
    /// continues among the slow ones.
    pub catching_up_events_per_s_min: NonZeroU32,
    /// Time of waiting for a relay over which its speed is judged, after each half of it. No response may
    /// take longer.
    pub slow_after_s: NonZeroU32,
    /// Longest turn of a relay while others wait for a slot.
    pub turn_s: NonZeroU32,
    /// Events per request, the `limit` of a REQ. Relays cap it, often at 500.
    pub page_events: NonZeroUsize,
    /// Interval after which a relay's new events are compared again.
    pub interval_s: NonZeroU32,
    /// Oldest `created_at` requested.
    pub since_unix_s: u64,
    /// Distance between the present and the end of a window: younger events may still be arriving.
    pub end_lag_s: u32,
    /// Whether to stay connected and receive new events at once.
    pub live: bool,
    /// Ages at which every second of a relay's time line is requested again, to find late and backdated
    /// events.
    pub recheck_after_s: Vec<u32>,
    /// Time after which proofs of completeness expire and all events of a relay are requested again.
    pub recheck_all_days: NonZeroU32,
    /// Whether relays that support NIP-77 are compared by reconciliation instead of read page by page.
    pub negentropy: bool,
    /// Our events in one comparison. Each takes about 100 bytes of memory meanwhile.
    pub negentropy_events_max: NonZeroUsize,
    /// Sightings of one relay that may be learnt by comparison within 24 hours of one process. Beyond that
    /// the relay is read page by page.
    pub compared_sightings_per_day_max: NonZeroU32,
    /// Whether to authenticate to relays that require it (NIP-42), with `QUIPU_SYNCHRONIZER_SECRET_KEY` or a
    /// key generated for this run.
    pub authenticate: bool,
    /// Lease on a relay. The relays of a killed process are taken over after that time.
    pub lease_s: NonZeroU32,
    /// Pause after a failed session; it doubles with each further failure in a row.
    pub retry_min_s: NonZeroU32,
    /// Longest pause after a failed session. It also follows a session that ended because the relay sent
    /// mostly invalid events.
    pub retry_max_s: NonZeroU32,
}

impl Default for Synchronizer {
    fn default() -> Self {
        Self {
            enabled: true,
            only_relays: Vec::new(),
            catching_up_max: nonzero!(NonZeroUsize, 32),
            slow_catching_up_max: nonzero!(NonZeroUsize, 16),
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

impl Section for Synchronizer {
    fn problems(&self, problems: &mut Problems<'_>) {
        problems.refuse_other_than_relays("only_relays", &self.only_relays);
    }
}

/// Section `services.priority_synchronizer`. Only one of the two synchronizers runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PrioritySynchronizer {
    /// Whether `quipu up` runs it; then `services.synchronizer.enabled` must be false.
    pub enabled: bool,
    /// A file in the implementation's `data/`, or an absolute path: one relay URL per line. These relays are
    /// read first and stay connected.
    pub relays_file: String,
}

impl Default for PrioritySynchronizer {
    fn default() -> Self {
        Self { enabled: false, relays_file: "priority_relays.txt".to_owned() }
    }
}

impl Section for PrioritySynchronizer {
    fn problems(&self, problems: &mut Problems<'_>) {
        if self.enabled && problems.settings.services.synchronizer.enabled {
            let reason = "one of the two synchronizers runs: set `services.synchronizer.enabled` to false";
            problems.refuse("enabled", reason);
        }
    }
}
