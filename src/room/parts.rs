//! The parts that all services of a process share: connection pools, writers of journals, hints, health,
//! metrics.

use std::sync::Arc;
use std::time::Duration;

use super::descriptors::Descriptors;
use super::{DescriptorNeeds, LoopSpec};
use crate::base::{Clock, SystemClock};
use crate::config::Settings;
use crate::http::Edge;
use crate::lifecycle::{BoxError, HealthRegistry, Lifecycle, Service};
use crate::store::append::{Journal, Writer};
use crate::store::ingest::{IngestJournal, IngestMetrics, Intake, Source};
use crate::store::lease::Leases;
use crate::store::{
    AppendMetrics, DatabaseUrls, Error, Hints, PoolMetrics, PoolSizes, Pools, SHARDS, Shards, Space,
};
use crate::telemetry::Metrics;

/// The parts of one process. A writer is made on demand; its task ends when the last clone of the writer is
/// dropped.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The connection pools of the database.
    pub pools: Pools,
    /// Notifications between the processes on one database.
    pub hints: Hints,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The state of each service, for `/healthz` and the console.
    pub health: HealthRegistry,
    /// The metrics of the process.
    pub metrics: Metrics,
    /// Serves every listener, within shared limits.
    pub edge: Edge,
    /// Runs every task, and ends them at the stop.
    pub lifecycle: Lifecycle,
    /// Leases that divide work between processes, held in this process's name.
    pub leases: Leases,
    /// The settings in force.
    pub settings: Arc<Settings>,
    /// The free space on the disk. Writers refuse commands while it is below the reserve.
    pub space: Space,
    append: AppendMetrics,
    ingest: IngestMetrics,
}

impl Parts {
    /// As [`Parts::open_for`], for a process that runs no service.
    ///
    /// # Errors
    /// [`Error::Broken`] when a URL cannot be understood.
    pub fn open(
        urls: &DatabaseUrls,
        settings: Settings,
        lifecycle: Lifecycle,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        Self::open_for(None, urls, settings, lifecycle, metrics)
    }

    /// Raises the limit of open descriptors and divides it for services with these `needs`, opens the connection pools and
    /// starts sending and receiving hints.
    ///
    /// # Errors
    /// [`Error::Broken`] when a URL cannot be understood.
    pub fn open_for(
        needs: Option<DescriptorNeeds>,
        urls: &DatabaseUrls,
        settings: Settings,
        lifecycle: Lifecycle,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        let pools = Pools::open(urls, PoolSizes::from(&settings.database))?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let health = HealthRegistry::new(Arc::clone(&clock));
        let (append, ingest) = (AppendMetrics::default(), IngestMetrics::default());
        let space = Space::with_reserve(settings.database.reserve_mb);
        let leases = Leases::new(pools.write.clone());
        let pool_metrics = PoolMetrics::new(pools.clone());
        metrics.register(|registry| {
            append.register(registry);
            space.register(registry);
            ingest.register(registry);
            leases.register(registry);
            pool_metrics.register(registry);
            registry.register_collector(Box::new(health.clone()));
        });
        let descriptors = Descriptors::raise(&settings, needs);
        let edge = Edge::new(settings.http.clone(), &metrics, descriptors.connections_max);
        let hints = Hints::default();
        let probe = Duration::from_secs(settings.services.observer.interval_s.get().into());
        let parts = Self {
            pools,
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
        let stop = parts.lifecycle.drain_token();
        parts.lifecycle.spawn("probe of the pools", async move {
            pool_metrics.probe(probe, stop).await;
            Ok::<(), BoxError>(())
        });
        Ok(parts)
    }

    fn spawn_hints(&self) {
        let (pool, session, stop) =
            (self.pools.write.clone(), self.pools.session.clone(), self.lifecycle.drain_token());
        let send = self.hints.clone().send(pool, stop.clone());
        let receive = self.hints.clone().receive(session, stop);
        self.lifecycle.spawn("hints", async move {
            tokio::join!(send, receive);
            Ok::<(), BoxError>(())
        });
    }

    /// Runs `service` as the loop that `spec` describes.
    pub fn run(&self, spec: &LoopSpec, service: impl Service) {
        self.lifecycle.run_service(service, spec.schedule(&self.settings), self.health.clone());
    }

    /// A writer of `journal`, with a task of its own that commits its commands in groups.
    #[must_use]
    pub fn writer<J: Journal>(&self, journal: J) -> Writer<J> {
        let (writer, task) = Writer::new(journal, self.pools.write.clone(), self.hints.clone(), &self.append);
        self.lifecycle.spawn(format!("writer of {}", J::NAME), async move {
            task.await;
            Ok::<(), BoxError>(())
        });
        writer.with_space(self.space.clone())
    }

    /// Writers of `journal` that share its commands.
    #[must_use]
    pub fn shards<J: Journal + Clone>(&self, journal: &J) -> Shards<J> {
        Shards::new([(); SHARDS].map(|()| self.writer(journal.clone())))
    }

    /// Verifies and stores Nostr events.
    #[must_use]
    pub fn intake(&self, source: Source) -> Intake {
        let batch_events_max = self.settings.services.ingest.batch_events_max.get();
        let writer = self.writer(IngestJournal { source, batch_events_max });
        Intake::new(self.pools.write.clone(), writer, self.ingest.clone())
    }
}
