//! The database and the upstreams, for commands that prove and copy.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::stream;

use crate::cli::Context;
use crate::lifecycle::Lifecycle;
use crate::net::Egress;
use crate::room::Parts;
use crate::services::blossom::append::{BlobJournal, Changes};
use crate::services::blossom::metrics::BlobMetrics;
use crate::services::blossom::react::ReactParts;
use crate::services::blossom::upstream::{UpstreamKeys, Upstreams};
use crate::telemetry::Metrics;

/// What the loops of the service work with, for one command.
pub(super) struct Opened {
    pub(super) react: Arc<ReactParts>,
    lifecycle: Lifecycle,
}

impl Opened {
    pub(super) async fn new(context: Context) -> Result<Self> {
        let urls = context.urls_to_write().await?;
        let Context { configuration, data } = context;
        let mut settings = configuration.settings;
        settings.services.blossom.folder.get_or_insert_with(|| data.join("blobs"));
        let blossom = settings.services.blossom.clone();
        let outside = Egress::new(&settings.networks).context("networks")?;
        let lifecycle = Lifecycle::new(Duration::from_secs(5));
        let parts = Parts::open(&urls, settings, lifecycle.clone(), Metrics::new(env!("CARGO_PKG_VERSION")))?;
        let (keys, metrics) = (
            UpstreamKeys { signer: configuration.blossom_key, objects: configuration.blob_keys },
            BlobMetrics::default(),
        );
        let upstreams = Upstreams::open(&blossom, &keys, &outside, &parts.clock, &metrics)?;
        let journal = parts.writer(BlobJournal { changes: Changes::new(parts.hints.clone()) });
        let react = Arc::new(ReactParts {
            pools: parts.pools.clone(),
            leases: parts.leases.clone(),
            journal,
            upstreams: Arc::new(upstreams),
            clock: Arc::clone(&parts.clock),
            settings: blossom,
            metrics,
        });
        Ok(Self { react, lifecycle })
    }

    /// Number of upstreams.
    pub(super) fn upstreams(&self) -> usize {
        self.react.upstreams.list().len()
    }

    /// Waits until everything is committed.
    pub(super) async fn close(self) {
        drop(self.react);
        self.lifecycle.drain();
        self.lifecycle.run_until_stopped(stream::pending::<&str>()).await;
    }
}
