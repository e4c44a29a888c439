//! An instance that runs the service jobs, and the same service in this process, on one database.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use quipu::app::Parts;
use quipu::config::Settings;
use quipu::lifecycle::Lifecycle;
use quipu::services::jobs::metrics::JobMetrics;
use quipu::services::jobs::{self, External};
use quipu::telemetry::Metrics;

use super::library::Library;
use super::support::instance::Instance;
use super::support::lifecycle;

pub(crate) struct Room {
    pub(crate) instance: Instance,
    /// Address of the instance's listener.
    pub(crate) http: SocketAddr,
    pub(crate) library: Library,
    parts: Parts,
    lifecycle: Lifecycle,
}

impl Room {
    pub(crate) async fn start() -> Self {
        let instance = Instance::start(&["services.jobs.enabled=true"]).await;
        instance.prepare_wal().await;
        println!("{}", instance.durability().await);
        let lifecycle = lifecycle();
        let mut settings = Settings::default();
        settings.services.jobs.address = Some((Ipv4Addr::LOCALHOST, 0).into());
        let parts = Parts::open(&instance.urls(), settings, lifecycle.clone(), Metrics::new("bench"));
        let parts = parts.expect("valid URLs");
        let started =
            jobs::start(&parts, External::default(), JobMetrics::default(), &mut BTreeMap::new()).await;
        let library = Library::new(started.expect("the room starts"));
        Self { http: instance.address("jobs"), instance, library, parts, lifecycle }
    }

    pub(crate) async fn stop(self) {
        drop((self.library, self.parts));
        self.lifecycle.drain();
        self.lifecycle.run_until_stopped(futures_util::stream::pending::<&str>()).await;
        drop(self.instance);
    }
}
