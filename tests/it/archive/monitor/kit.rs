//! A monitor with its own clock and database.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, Utc};
use nostr_sdk::{Keys, ToBech32 as _};
use quipu::base::{Clock, RelayUrl, Secret};
use quipu::config;
use quipu::lifecycle::{CycleOutcome, Service as _};
use quipu::net::Egress;
use quipu::services::archive::command::RelayCommand;
use quipu::services::archive::event::Snapshot;
use quipu::services::archive::metrics::MonitorMetrics;
use quipu::services::archive::react::{Monitor, MonitorParts, Publisher};
use quipu::services::archive::{MetadataJournal, RelayJournal, read};
use quipu::store::lease::Leases;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::store::kit::{Kit, number};

/// A clock that stands still until moved. The second number counts calls down; the call that reaches 0
/// panics.
#[derive(Debug)]
pub(super) struct StandingClock(AtomicI64, AtomicI64);

impl Clock for StandingClock {
    fn now(&self) -> DateTime<Utc> {
        assert_ne!(self.1.fetch_sub(1, Ordering::SeqCst), 1, "planted in the clock");
        DateTime::from_timestamp(self.0.load(Ordering::SeqCst), 0).unwrap()
    }
}

/// Resources shared by the monitors of a test.
pub(super) struct Bench {
    pub(super) kit: Kit,
    pub(super) clock: Arc<StandingClock>,
    pub(super) settings: config::Monitor,
    pub(super) networks: config::Networks,
    pub(super) metrics: MonitorMetrics,
    pub(super) outside: Option<Egress>,
    pub(super) keys: Keys,
}

impl Bench {
    /// Starts at the present, because relays check the time of events.
    pub(super) async fn new() -> Self {
        let mut networks = config::Networks::default();
        networks.clearnet.connect_timeout_s = NonZeroU32::new(20).unwrap();
        networks.clearnet.idle_timeout_s = NonZeroU32::new(20).unwrap();
        let settings = config::Monitor {
            nip11_timeout_s: NonZeroU32::new(20).unwrap(),
            publish_pause_ms: 0,
            ..config::Monitor::default()
        };
        let now = quipu::base::SystemClock.now().timestamp();
        Self {
            kit: Kit::new().await,
            clock: Arc::new(StandingClock(AtomicI64::new(now), AtomicI64::new(0))),
            settings,
            networks,
            metrics: MonitorMetrics::default(),
            outside: None,
            keys: Keys::generate(),
        }
    }

    /// Advances the clock.
    pub(super) fn later(&self, seconds: i64) {
        self.clock.0.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Makes the clock panic once, at the `call`th call from now.
    pub(super) fn plant_panic(&self, call: i64) {
        self.clock.1.store(call, Ordering::SeqCst);
    }

    /// Advances the clock until every relay is due.
    pub(super) fn next_round(&self) {
        self.later(i64::from(self.settings.interval_s.get()) * 11 / 10 + 1);
    }

    pub(super) async fn add(&mut self, url: &str, source: &'static str) {
        let url = RelayUrl::parse(url).unwrap();
        self.kit.writer(RelayJournal).append(RelayCommand::Add { url, source }).await.unwrap();
    }

    /// The monitor of a new process, with its own leases and no memory.
    pub(super) fn monitor(&mut self) -> (Monitor, Option<Publisher>) {
        let outside = self.outside.clone();
        let parts = MonitorParts {
            pools: self.kit.pools.clone(),
            snapshots: self.kit.writer(MetadataJournal),
            leases: Leases::new(self.kit.pools.write.clone()),
            outside: outside.unwrap_or_else(|| Egress::with_dns_servers(&self.networks, &[]).unwrap()),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
        };
        let key = Secret::new(self.keys.secret_key().to_bech32().unwrap());
        Monitor::new(parts, self.settings.clone(), self.networks.clone(), Some(&key)).unwrap()
    }

    /// Checks all due relays, as a new process.
    pub(super) async fn round(&mut self) {
        let (monitor, _) = self.monitor();
        assert_eq!(monitor.cycle(&CancellationToken::new()).await.unwrap(), CycleOutcome::Idle);
    }

    /// The relay's snapshots, newest first.
    pub(super) async fn snapshots(&self, url: &str) -> Vec<Snapshot> {
        read::snapshots(&self.kit.pools.session, url, 100).await.unwrap()
    }

    pub(super) async fn newest(&self, url: &str) -> Snapshot {
        read::newest_snapshot(&self.kit.pools.session, url).await.unwrap().expect("it was checked")
    }

    pub(super) async fn count(&self, sql: &str) -> i64 {
        number(&self.kit.database.owner().await, sql).await
    }
}

/// Why a check of a snapshot failed, with its message.
pub(super) fn failure(snapshot: &Snapshot, check: &str) -> Value {
    snapshot.detail.get("failures").map_or(Value::Null, |failures| failures[check].clone())
}
