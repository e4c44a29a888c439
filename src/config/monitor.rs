//! Section `services.monitor`.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::environment;
use super::problems::{Problems, Section};

/// Section `services.monitor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Monitor {
    /// Whether `quipu up` runs it.
    pub enabled: bool,
    /// Check only these relays, as canonical URLs; empty for all that are known.
    pub only_relays: Vec<String>,
    /// Interval between two checks of a relay; up to a tenth is added at random.
    pub interval_s: NonZeroU32,
    /// Time limit for all checks of one relay together; four times as long beyond clearnet.
    pub relay_timeout_s: NonZeroU32,
    /// Time limit for fetching the information document (NIP-11); four times as long beyond clearnet.
    pub nip11_timeout_s: NonZeroU32,
    /// Longest information document, after decompression.
    pub nip11_bytes_max: NonZeroUsize,
    /// Whether to check writing: an ephemeral event is published and read back by a subscription. Needs
    /// `QUIPU_MONITOR_SECRET_KEY`.
    pub write_check: bool,
    /// A MaxMind database of cities, such as `GeoLite2-City.mmdb`.
    #[schemars(extend("format" = "path"))]
    pub geo_city_file: Option<PathBuf>,
    /// A MaxMind database of autonomous systems, such as `GeoLite2-ASN.mmdb`.
    #[schemars(extend("format" = "path"))]
    pub geo_asn_file: Option<PathBuf>,
    /// Whether to publish the results (NIP-66: kinds 30166 and 10166). Needs `QUIPU_MONITOR_SECRET_KEY`.
    pub publish: bool,
    /// Relays to publish to, as canonical URLs.
    pub publish_relays: Vec<String>,
    /// Shortest pause between two published reports.
    pub publish_pause_ms: u32,
    /// The monitor's name. If set, a profile (kind 0) and a relay list (kind 10002) are published too. These
    /// replace existing ones of the same key, so set it only for a key that the monitor alone uses.
    pub publish_name: Option<String>,
}

impl Default for Monitor {
    fn default() -> Self {
        Self {
            enabled: true,
            only_relays: Vec::new(),
            interval_s: nonzero!(NonZeroU32, 14_400),
            relay_timeout_s: nonzero!(NonZeroU32, 60),
            nip11_timeout_s: nonzero!(NonZeroU32, 5),
            nip11_bytes_max: nonzero!(NonZeroUsize, 524_288),
            write_check: false,
            geo_city_file: None,
            geo_asn_file: None,
            publish: false,
            publish_relays: Vec::new(),
            publish_pause_ms: 250,
            publish_name: None,
        }
    }
}

impl Section for Monitor {
    fn problems(&self, problems: &mut Problems<'_>) {
        problems.refuse_other_than_relays("only_relays", &self.only_relays);
        problems.refuse_other_than_relays("publish_relays", &self.publish_relays);
        for (key, is_on) in [("write_check", self.write_check), ("publish", self.publish)] {
            if is_on && !problems.has_monitor_key {
                problems.refuse(key, format!("needs a key in {}", environment::MONITOR_KEY));
            }
        }
        if self.publish && self.publish_relays.is_empty() {
            problems.refuse("publish_relays", "`publish` needs at least one");
        }
    }
}
