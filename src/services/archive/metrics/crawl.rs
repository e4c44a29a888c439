//! Prometheus metrics of the synchronizer, by network.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{FAILURE, NetworkLabel, NetworkOutcome, NetworkReason, Reason};
use crate::base::Network;
use crate::services::archive::event::WindowOutcome;
use crate::telemetry::{Label, NETWORK, describe_metrics};

const ENDED: Label = Label::listed("outcome", &[&["ok", "stopped", "failed", "refused"]]);
const WINDOW: Label = Label::listed("outcome", &[&["complete", "gap"]]);
const GIVEN_UP: Label = Label::listed("reason", &[&["false_claim", "unproven", "too_slow", "day_full"]]);
const SLOT_LOST: Label = Label::listed("reason", &[&["too_slow", "turn_over"]]);

/// Seconds. `created_at` has whole seconds, so a finer bucket would say nothing.
const LAGS: [f64; 8] = [1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0];

describe_metrics! { Process;
    SESSIONS: Counter = "quipu_archive_sessions_total" [NETWORK, ENDED],
        "Ended sessions with relays; refused: the relay is never dialled";
    SESSION_FAILURES: Counter = "quipu_archive_session_failures_total" [NETWORK, FAILURE],
        "Sessions that ended with an error, and relays that are never dialled";
    CONNECTED: Gauge = "quipu_archive_connected_relays" [NETWORK], "Relays with a running session";
    LIVE: Gauge = "quipu_archive_live_relays" [NETWORK], "Relays that are caught up and send live events";
    RECEIVED_EVENTS: Counter = "quipu_archive_received_events_total" [NETWORK],
        "Events received from relays, known and refused ones included";
    RECEIVED_BYTES: Counter = "quipu_archive_received_bytes_total" [NETWORK], "Bytes of these events as JSON";
    NEW_EVENTS: Counter = "quipu_archive_new_events_total" [NETWORK], "Events stored that a relay sent first";
    LIVE_LAG: Histogram = "quipu_archive_live_lag_seconds" [NETWORK],
        "From created_at to the commit, of new events of live subscriptions";
    WINDOWS: Counter = "quipu_archive_windows_total" [NETWORK, WINDOW], "Windows settled";
    COMPARISONS: Counter = "quipu_archive_comparisons_total" [NETWORK],
        "Windows compared with a relay instead of downloaded (NIP-77)";
    SAVED: Counter = "quipu_archive_comparison_saved_events_total" [NETWORK],
        "Events that both sides of a comparison had, which were not downloaded";
    FETCHED: Counter = "quipu_archive_comparison_fetched_events_total" [NETWORK],
        "Events that only the relay had according to a comparison, requested by id";
    COMPARISONS_GIVEN_UP: Counter = "quipu_archive_comparisons_given_up_total" [GIVEN_UP],
        "Sessions that stopped comparing and read page by page";
    SAMPLED: Counter = "quipu_archive_sampled_events_total" [],
        "Events requested to verify what relays claim in comparisons (NIP-77)";
    SLOTS_LOST: Counter = "quipu_archive_slots_lost_total" [SLOT_LOST],
        "Permits to read stored events that a relay lost";
}

/// Metrics of the synchronizer. Clones share them.
#[derive(Debug, Clone)]
pub struct SyncMetrics {
    sessions: Family<NetworkOutcome, Counter>,
    failures: Family<NetworkReason, Counter>,
    connected: Family<NetworkLabel, Gauge>,
    live: Family<NetworkLabel, Gauge>,
    received_events: Family<NetworkLabel, Counter>,
    received_bytes: Family<NetworkLabel, Counter>,
    new_events: Family<NetworkLabel, Counter>,
    live_lag: Family<NetworkLabel, Histogram, fn() -> Histogram>,
    windows: Family<NetworkOutcome, Counter>,
    comparisons: Family<NetworkLabel, Counter>,
    saved: Family<NetworkLabel, Counter>,
    fetched: Family<NetworkLabel, Counter>,
    comparisons_given_up: Family<Reason, Counter>,
    sampled: Counter,
    slots_lost: Family<Reason, Counter>,
}

impl Default for SyncMetrics {
    fn default() -> Self {
        Self {
            sessions: Family::default(),
            failures: Family::default(),
            connected: Family::default(),
            live: Family::default(),
            received_events: Family::default(),
            received_bytes: Family::default(),
            new_events: Family::default(),
            live_lag: Family::new_with_constructor(|| Histogram::new(LAGS)),
            windows: Family::default(),
            comparisons: Family::default(),
            saved: Family::default(),
            fetched: Family::default(),
            comparisons_given_up: Family::default(),
            sampled: Counter::default(),
            slots_lost: Family::default(),
        }
    }
}

impl SyncMetrics {
    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        SESSIONS.register(registry, self.sessions.clone());
        SESSION_FAILURES.register(registry, self.failures.clone());
        CONNECTED.register(registry, self.connected.clone());
        LIVE.register(registry, self.live.clone());
        RECEIVED_EVENTS.register(registry, self.received_events.clone());
        RECEIVED_BYTES.register(registry, self.received_bytes.clone());
        NEW_EVENTS.register(registry, self.new_events.clone());
        LIVE_LAG.register(registry, self.live_lag.clone());
        WINDOWS.register(registry, self.windows.clone());
        COMPARISONS.register(registry, self.comparisons.clone());
        SAVED.register(registry, self.saved.clone());
        FETCHED.register(registry, self.fetched.clone());
        COMPARISONS_GIVEN_UP.register(registry, self.comparisons_given_up.clone());
        SAMPLED.register(registry, self.sampled.clone());
        SLOTS_LOST.register(registry, self.slots_lost.clone());
    }

    /// Counts a session that ended without an error; `is_stopped` if this process ended it.
    pub(in crate::services::archive) fn session_ended(&self, network: Network, is_stopped: bool) {
        self.session(network, if is_stopped { "stopped" } else { "ok" });
    }

    /// Counts a session that ended with an error.
    pub(in crate::services::archive) fn session_failed(&self, network: Network, reason: &'static str) {
        self.session(network, "failed");
        self.failure(network, reason);
    }

    /// Counts a relay that is never dialled.
    pub(in crate::services::archive) fn session_refused(&self, network: Network, reason: &'static str) {
        self.session(network, "refused");
        self.failure(network, reason);
    }

    fn session(&self, network: Network, outcome: &'static str) {
        self.sessions.get_or_create(&NetworkOutcome { network: network.as_str(), outcome }).inc();
    }

    fn failure(&self, network: Network, reason: &'static str) {
        self.failures.get_or_create(&NetworkReason { network: network.as_str(), reason }).inc();
    }

    /// Sets the number of running sessions of a network, and how many of them are caught up.
    pub(in crate::services::archive) fn connected(&self, network: Network, relays: usize, live: usize) {
        let label = NetworkLabel { network: network.as_str() };
        self.connected.get_or_create(&label).set(i64::try_from(relays).unwrap_or(i64::MAX));
        self.live.get_or_create(&label).set(i64::try_from(live).unwrap_or(i64::MAX));
    }

    /// The counters of a session with a relay of `network`.
    pub(in crate::services::archive) fn of(&self, network: Network) -> SessionMetrics {
        let label = NetworkLabel { network: network.as_str() };
        SessionMetrics {
            received_events: self.received_events.get_or_create_owned(&label),
            received_bytes: self.received_bytes.get_or_create_owned(&label),
            new_events: self.new_events.get_or_create_owned(&label),
            live_lag: self.live_lag.get_or_create_owned(&label),
        }
    }

    pub(in crate::services::archive) fn window(&self, network: Network, outcome: &WindowOutcome) {
        let label = NetworkOutcome { network: network.as_str(), outcome: outcome.as_str() };
        self.windows.get_or_create(&label).inc();
    }

    /// Counts a comparison: `saved` events that both sides had, and `fetched` that only the relay had.
    pub(in crate::services::archive) fn compared(&self, network: Network, saved: usize, fetched: usize) {
        let label = NetworkLabel { network: network.as_str() };
        self.comparisons.get_or_create(&label).inc();
        self.saved.get_or_create(&label).inc_by(number(saved));
        self.fetched.get_or_create(&label).inc_by(number(fetched));
    }

    pub(in crate::services::archive) fn comparing_given_up(&self, reason: &'static str) {
        self.comparisons_given_up.get_or_create(&Reason { reason }).inc();
    }

    pub(in crate::services::archive) fn sampled(&self, events: usize) {
        self.sampled.inc_by(number(events));
    }

    pub(in crate::services::archive) fn slot_lost(&self, reason: &'static str) {
        self.slots_lost.get_or_create(&Reason { reason }).inc();
    }
}

/// The counters of one session, resolved once.
#[derive(Debug, Clone)]
pub(in crate::services::archive) struct SessionMetrics {
    received_events: Counter,
    received_bytes: Counter,
    new_events: Counter,
    live_lag: Histogram,
}

impl SessionMetrics {
    /// Counts events of one answer, and their bytes as JSON.
    pub(in crate::services::archive) fn received(&self, events: u64, bytes: usize) {
        self.received_events.inc_by(events);
        self.received_bytes.inc_by(number(bytes));
    }

    /// Counts events that were stored.
    pub(in crate::services::archive) fn stored(&self, events: u32) {
        self.new_events.inc_by(u64::from(events));
    }

    /// Receives the time from `created_at` to the commit of each new live event.
    pub(in crate::services::archive) fn live_lag(&self) -> Histogram {
        self.live_lag.clone()
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
