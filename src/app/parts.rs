//! What every service is made of: open doors, journals' writers, hints, metrics.

use std::sync::Arc;

use super::descriptors::Descriptors;
use crate::base::{Clock, SystemClock};
use crate::config::Settings;
use crate::http::Edge;
use crate::lifecycle::{BoxError, HealthRegistry, Lifecycle};
use crate::services::archive::{MetadataJournal, RelayJournal, SyncJournal};
use crate::services::messages::append::{LANES, Lanes, MessageJournal, TokenJournal};
use crate::store::append::{Journal, Writer};
use crate::store::ingest::{IngestJournal, IngestMetrics, Intake, Source};
use crate::store::lease::Leases;
use crate::store::{AppendMetrics, DatabaseUrls, DoorSizes, Doors, Error, Hints, Space};
use crate::telemetry::Metrics;

/// The parts of one process. Writers are made on demand and end when nobody can reach them any more.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The database.
    pub doors: Doors,
    /// Wake-ups between processes.
    pub hints: Hints,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where services say how they are.
    pub health: HealthRegistry,
    /// What Prometheus reads.
    pub metrics: Metrics,
    /// What serves every listener.
    pub edge: Edge,
    /// Where tasks run.
    pub lifecycle: Lifecycle,
    /// Divided work, in this process's name.
    pub leases: Leases,
    /// Settings in force.
    pub settings: Arc<Settings>,
    /// Whether the disk has room for what is appended.
    pub(super) space: Space,
    append: AppendMetrics,
    ingest: IngestMetrics,
}

impl Parts {
    /// Raises the limit of open descriptors, opens the doors and starts sending and receiving hints.
    ///
    /// # Errors
    /// [`Error::Broken`] when a URL cannot be understood.
    pub fn open(
        urls: &DatabaseUrls,
        settings: Settings,
        lifecycle: Lifecycle,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        let database = &settings.database;
        let sizes = DoorSizes {
            write: database.write_connections_max.get().into(),
            session: database.session_connections_max.get().into(),
            read: database.read_connections_max.get().into(),
        };
        let doors = Doors::open(urls, sizes)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let health = HealthRegistry::new(Arc::clone(&clock));
        let (append, ingest) = (AppendMetrics::default(), IngestMetrics::default());
        let space = Space::with_reserve(settings.database.reserve_mb);
        metrics.register(|registry| {
            append.register(registry);
            space.register(registry);
            ingest.register(registry);
            registry.register_collector(Box::new(health.clone()));
        });
        let edge = Edge::new(settings.http.clone(), &metrics, Descriptors::raise(&settings).connections_max);
        let hints = Hints::default();
        let leases = Leases::new(doors.write.clone());
        let parts = Self {
            doors,
            hints,
            clock,
            health,
            metrics,
            edge,
            lifecycle,
            leases,
            settings: Arc::new(settings),
            space,
            append,
            ingest,
        };
        parts.spawn_hints();
        Ok(parts)
    }

    fn spawn_hints(&self) {
        let (pool, session, stop) =
            (self.doors.write.clone(), self.doors.session.clone(), self.lifecycle.drain_token());
        let send = self.hints.clone().send(pool, stop.clone());
        let receive = self.hints.clone().receive(session, stop);
        self.lifecycle.spawn("hints", async move {
            tokio::join!(send, receive);
            Ok::<(), BoxError>(())
        });
    }

    fn writer<J: Journal>(&self, journal: J) -> Writer<J> {
        let (writer, task) =
            Writer::new(journal, self.doors.write.clone(), self.hints.clone(), self.append.clone());
        self.lifecycle.spawn(format!("writer of {}", J::NAME), async move {
            task.await;
            Ok::<(), BoxError>(())
        });
        writer.with_space(self.space.clone())
    }

    /// A way in for Nostr events.
    #[must_use]
    pub fn intake(&self, source: Source) -> Intake {
        let batch_events_max = self.settings.services.ingest.batch_events_max.get();
        let writer = self.writer(IngestJournal { source, batch_events_max });
        Intake::new(self.doors.write.clone(), writer, self.ingest.clone())
    }

    /// A way in for facts about relays.
    #[must_use]
    pub fn relay_writer(&self) -> Writer<RelayJournal> {
        self.writer(RelayJournal)
    }

    /// A way in for snapshots of relays.
    #[must_use]
    pub fn snapshot_writer(&self) -> Writer<MetadataJournal> {
        self.writer(MetadataJournal)
    }

    /// A way in for finished windows.
    #[must_use]
    pub fn window_writer(&self) -> Writer<SyncJournal> {
        self.writer(SyncJournal)
    }

    /// A way in for messages.
    #[must_use]
    pub fn message_lanes(&self, journal: &MessageJournal) -> Lanes {
        Lanes::new([(); LANES].map(|()| self.writer(journal.clone())))
    }

    /// A way in for tokens of wayfarers.
    #[must_use]
    pub fn token_writer(&self) -> Writer<TokenJournal> {
        self.writer(TokenJournal)
    }
}
