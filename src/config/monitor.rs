//! Section `services.monitor`, and the key it signs with, which is a secret of the environment.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use nostr_sdk::Keys;
use serde::{Deserialize, Serialize};

use super::Environment;
use super::check::Merged;
use super::layer::{ENVIRONMENT, Problem};
use crate::base::{RelayUrl, Secret};

/// The variable that holds the monitor's secret key: hex or `nsec1…`.
pub(super) const KEY_VARIABLE: &str = "QUIPU_MONITOR_SECRET_KEY";

/// Section `services.monitor`. How many relays at once, and how long a connection may take, is said by `networks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Monitor {
    /// Whether `quipu up` runs it.
    pub enabled: bool,
    /// Check only these relays, as canonical URLs; empty for all that are known.
    pub only_relays: Vec<String>,
    /// Pause until a relay is checked again, in seconds; up to a tenth is added.
    pub interval_s: NonZeroU32,
    /// Longest for all checks of one relay together, in seconds; four times that beyond clearnet.
    pub relay_timeout_s: NonZeroU32,
    /// Longest until an information document is there, in seconds; four times that beyond clearnet.
    pub nip11_timeout_s: NonZeroU32,
    /// Longest information document, in bytes, after decompression.
    pub nip11_bytes_max: NonZeroUsize,
    /// Whether to try to write: an ephemeral event, read back by a subscription. Needs `QUIPU_MONITOR_SECRET_KEY`.
    pub write_check: bool,
    /// A MaxMind database of cities, such as `GeoLite2-City.mmdb`.
    pub geo_city_file: Option<PathBuf>,
    /// A MaxMind database of autonomous systems, such as `GeoLite2-ASN.mmdb`.
    pub geo_asn_file: Option<PathBuf>,
    /// Whether to publish what was found (NIP-66: kinds 30166 and 10166). Needs `QUIPU_MONITOR_SECRET_KEY`.
    pub publish: bool,
    /// Relays to publish to, as canonical URLs.
    pub publish_relays: Vec<String>,
    /// Shortest pause between two published reports, in milliseconds.
    pub publish_pause_ms: u32,
    /// The monitor's name. With it a profile (kind 0) and a relay list (kind 10002) are published too, which replace those of the key:
    /// set it for a key of the monitor's own.
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

impl Monitor {
    /// What a type alone cannot refuse.
    pub(super) fn problems(&self, merged: &Merged, key: Option<&Secret>) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (name, urls) in [("only_relays", &self.only_relays), ("publish_relays", &self.publish_relays)] {
            let setting = format!("services.monitor.{name}");
            for url in urls {
                match RelayUrl::parse(url) {
                    Ok(relay) if relay.as_str() == url => {}
                    Ok(relay) => {
                        problems.push(merged.refuse(&setting, format!("write `{url}` as `{relay}`")))
                    }
                    Err(error) => problems.push(merged.refuse(&setting, format!("`{url}`: {error}"))),
                }
            }
        }
        for (name, is_on) in [("write_check", self.write_check), ("publish", self.publish)] {
            if is_on && key.is_none() {
                let reason = format!("needs a key in {KEY_VARIABLE}");
                problems.push(merged.refuse(&format!("services.monitor.{name}"), reason));
            }
        }
        if self.publish && self.publish_relays.is_empty() {
            problems.push(merged.refuse("services.monitor.publish_relays", "`publish` needs at least one"));
        }
        problems
    }
}

/// The monitor's key out of the environment, if it is there.
///
/// # Errors
/// When it is none; the value is not shown.
pub(super) fn key(environment: &Environment) -> Result<Option<Secret>, Problem> {
    let Some(text) = environment.get(KEY_VARIABLE) else { return Ok(None) };
    match Keys::parse(text) {
        Ok(_) => Ok(Some(Secret::new(text))),
        Err(_) => Err(Problem {
            source: ENVIRONMENT.into(),
            key: KEY_VARIABLE.into(),
            reason: "neither 64 hex digits nor nsec1…".into(),
        }),
    }
}
