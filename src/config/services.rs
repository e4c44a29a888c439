//! Section `services`: a struct for each service, and `ingest`, which the services that receive events share.
//! Long ones have a file of their own. `config/services/<name>.yaml` of an implementation fills
//! `services.<name>`.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json_path::JsonPath;

use super::problems::{Problems, Section};
use super::{Blossom, Jobs, Messages, Monitor, PrioritySynchronizer, Synchronizer};

/// Section `services`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Services {
    /// Adds the seed relays once; known ones stay as they are.
    pub initializer: Initializer,
    /// Finds relays that stored events and lists on the web name, and hands them to the validator.
    pub finder: Finder,
    /// Checks whether candidates are relays. The number of concurrent checks and their timeouts are set in
    /// `networks`.
    pub validator: Validator,
    /// Archives the events of relays, those furthest behind first. The priority synchronizer uses this
    /// section too. The number of connections and their timeouts are set in `networks`.
    pub synchronizer: Synchronizer,
    /// Archives like the synchronizer, but some relays before all others. Only one of the two runs.
    pub priority_synchronizer: PrioritySynchronizer,
    /// Checks every relay (information document, opening, reading, DNS, certificate, HTTP headers), records a
    /// snapshot and publishes the results if told to. The number of concurrent relays and the timeouts of
    /// connections are set in `networks`.
    pub monitor: Monitor,
    /// Updates the analytic projections.
    pub projector: Projector,
    /// Writes ticks for the readers of the journals. It runs wherever a journal is written; one process holds
    /// its lease.
    pub ticker: Ticker,
    /// Reads the state of the database for the metrics that one process exports for all. Wherever it runs, one
    /// process holds its lease.
    pub observer: Observer,
    /// Stores and forwards messages. In `sender_…`, `recipient_…`, `acknowledgements_per_second` and
    /// `proofs_per_minute` 0 means no limit.
    pub messages: Messages,
    /// Queues jobs and leases them to workers.
    pub jobs: Jobs,
    /// Stores blobs on many Blossom servers under one address.
    pub blossom: Blossom,
    /// Serves the console at `http.console_address`.
    pub console: Console,
    /// Verifies and appends Nostr events, for every service that receives them.
    pub ingest: Ingest,
}

/// Section `services.initializer`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Initializer {
    /// Whether `quipu up` runs it.
    pub enabled: bool,
    /// A file in the implementation's `data/`, or an absolute path: one relay URL per line. Invalid lines are
    /// reported with their number and skipped. Private addresses and local names in it are listed as refused
    /// and never dialled; add such a relay with `quipu relays add`.
    pub seed_file: String,
}

impl Default for Initializer {
    fn default() -> Self {
        Self { enabled: true, seed_file: "seed_relays.txt".to_owned() }
    }
}

/// Section `services.finder`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Finder {
    /// Whether `quipu up` runs it.
    pub enabled: bool,
    /// Whether it searches the stored events. In an implementation that stores no tags it would find nothing.
    pub reads_events: bool,
    /// Lists of relays on the web, such as
    /// `[{url: "https://lists.example.com/relays.json", path: "$[*].url"}]`. `path` is a `JSONPath` to the
    /// relay URLs in a JSON response; without it the response has one URL per line. Empty by default: no
    /// server is contacted unless you name it.
    pub lists: Vec<RelayList>,
    /// Interval between two requests for the same list, failed ones included.
    pub lists_interval_s: NonZeroU32,
    /// Interval between two searches for new events.
    pub interval_s: NonZeroU32,
    /// Candidates of one network that may wait for the validator; further ones are dropped.
    pub candidates_max: NonZeroU32,
    /// Candidates of one registrable domain (by the public suffix list) that may wait, over all its
    /// sub-domains, ports and paths. IP addresses are counted by their /24 or /48.
    pub candidates_per_domain_max: NonZeroU32,
    /// Candidates of one network that may be found within 24 hours.
    pub candidates_per_day_max: NonZeroU32,
    /// Candidates of one registrable domain that may be found within 24 hours, counted in the same way.
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

impl Section for Finder {
    fn problems(&self, problems: &mut Problems<'_>) {
        for RelayList { url, path } in &self.lists {
            let is_web = |url: &url::Url| matches!(url.scheme(), "http" | "https");
            if !url::Url::parse(url).is_ok_and(|url| is_web(&url)) {
                problems.refuse("lists", format!("`{url}`: expected an http or https URL"));
            }
            if let Some(path) = path
                && let Err(error) = JsonPath::parse(path)
            {
                problems.refuse("lists", format!("`{path}` is not a JSONPath: {error}"));
            }
        }
    }
}

/// One list of relays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RelayList {
    /// URL, `http://…` or `https://…`. It may have a private address, because you name it.
    pub url: String,
    /// `JSONPath` (RFC 9535) to the relay URLs in a JSON response; without it the response has one URL per
    /// line.
    #[serde(default)]
    pub path: Option<String>,
}

/// Section `services.validator`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Validator {
    /// Whether `quipu up` runs it.
    pub enabled: bool,
    /// Interval between two searches for due candidates.
    pub interval_s: NonZeroU32,
    /// Pause after a candidate's first failed check; it doubles with each further failure.
    pub retry_min_s: NonZeroU32,
    /// Longest pause between two checks of a candidate.
    pub retry_max_s: NonZeroU32,
    /// Failed checks after which a candidate is dropped.
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Projector {
    /// Whether `quipu up` runs it.
    pub enabled: bool,
    /// Longest interval between two looks for a new tick; a hint shortens it.
    pub interval_ms: NonZeroU64,
}

impl Default for Projector {
    fn default() -> Self {
        Self { enabled: true, interval_ms: nonzero!(NonZeroU64, 1_000) }
    }
}

/// Section `services.ticker`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ticker {
    /// Shortest time between two ticks.
    pub tick_min_ms: NonZeroU64,
}

impl Default for Ticker {
    fn default() -> Self {
        Self { tick_min_ms: nonzero!(NonZeroU64, 100) }
    }
}

/// Section `services.observer`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Observer {
    /// Whether `quipu up` runs it.
    pub enabled: bool,
    /// Interval between two readings, usually that of the scrapes. What costs more is read every fourth or
    /// twentieth time. It is also the interval at which each process measures its connection pools.
    pub interval_s: NonZeroU32,
}

impl Default for Observer {
    fn default() -> Self {
        Self { enabled: true, interval_s: nonzero!(NonZeroU32, 15) }
    }
}

/// Section `services.console`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Console {
    /// Whether `quipu up` runs it.
    pub enabled: bool,
    /// Where a browser reaches the Grafana with Quipu's dashboards, `http://…` or `https://…`. The console
    /// links to it, and requests nothing from it. Without it there is no link.
    pub grafana_url: Option<String>,
    /// Where a browser reaches the Prometheus that scrapes Quipu; likewise.
    pub prometheus_url: Option<String>,
    /// Where a browser reaches its Alertmanager; likewise.
    pub alertmanager_url: Option<String>,
}

impl Default for Console {
    fn default() -> Self {
        Self { enabled: true, grafana_url: None, prometheus_url: None, alertmanager_url: None }
    }
}

impl Section for Console {
    fn problems(&self, problems: &mut Problems<'_>) {
        let links = [
            ("grafana_url", &self.grafana_url),
            ("prometheus_url", &self.prometheus_url),
            ("alertmanager_url", &self.alertmanager_url),
        ];
        for (key, url) in links.into_iter().filter_map(|(key, url)| Some((key, url.as_ref()?))) {
            match url::Url::parse(url) {
                // The page shows it to everyone who reaches the console.
                Ok(parsed) if !parsed.username().is_empty() || parsed.password().is_some() => {
                    problems.refuse(key, "a URL without user and password is expected");
                }
                Ok(parsed) if matches!(parsed.scheme(), "http" | "https") => {}
                _ => problems.refuse(key, format!("`{url}`: expected an http or https URL")),
            }
        }
    }
}

/// How a request to vanish (NIP-62) is handled. Public queries omit the key's events in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Vanish {
    /// The request is stored, and nothing is erased.
    #[default]
    Record,
    /// The key's events up to the request are erased, and a tombstone prevents their return.
    Honour,
}

/// Section `services.ingest`: limits on the path from a received event to its commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ingest {
    /// Events in one transaction. A larger batch is not faster and delays the commit.
    pub batch_events_max: NonZeroUsize,
    /// How requests to vanish (NIP-62) are handled.
    pub vanish: Vanish,
    /// Canonical URLs of this archive. Requests to vanish that name one of them count, as do requests to all
    /// relays.
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

impl Section for Ingest {
    fn problems(&self, problems: &mut Problems<'_>) {
        problems.refuse_other_than_relays("vanish_relay_urls", &self.vanish_relay_urls);
    }
}
