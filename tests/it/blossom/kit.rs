//! The service in the test's process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use quipu::app::Parts;
use quipu::app::registry::verify_tables;
use quipu::config::{self, Settings};
use quipu::lifecycle::Lifecycle;
use quipu::net::Egress;
use quipu::services::blossom::metrics::BlobMetrics;
use quipu::services::blossom::upstream::UpstreamKeys;
use quipu::services::blossom::{self, Started};
use quipu::store::DatabaseUrls;
use quipu::telemetry::Metrics;
use tempfile::TempDir;

use super::client_kit::{Answer, eventually, fetch};
use super::server_kit::Server;
use crate::support::database::{TestDatabase, free_ports};

/// The service as one process runs it. Dropping it drains it.
pub(super) struct Room {
    pub(super) parts: Parts,
    pub(super) address: SocketAddr,
    pub(super) started: Started,
    /// Its built-in store, if it has no upstream.
    pub(super) folder: TempDir,
}

impl Room {
    /// Starts the service on a test's database with the built-in store.
    pub(super) async fn on(database: &TestDatabase) -> Self {
        Self::with(database, |_| {}).await
    }

    /// Starts it in front of these servers.
    pub(super) async fn before(database: &TestDatabase, servers: &[&Server]) -> Self {
        Self::before_with(database, servers, |_| {}).await
    }

    /// Starts it in front of these servers, with further settings.
    pub(super) async fn before_with(
        database: &TestDatabase,
        servers: &[&Server],
        change: impl FnOnce(&mut config::Blossom),
    ) -> Self {
        Self::with(database, |settings| {
            settings.upstreams = servers.iter().map(|server| upstream(&server.url())).collect();
            change(settings);
        })
        .await
    }

    /// Starts it with changed settings.
    pub(super) async fn with(database: &TestDatabase, change: impl FnOnce(&mut config::Blossom)) -> Self {
        Self::open(&database.urls(), &UpstreamKeys::default(), change).await
    }

    /// Starts it with keys, and the given URLs, which may lead through a proxy.
    pub(super) async fn open(
        urls: &DatabaseUrls,
        keys: &UpstreamKeys,
        change: impl FnOnce(&mut config::Blossom),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        let blossom = &mut settings.services.blossom;
        blossom.address = Some(([127, 0, 0, 1], 0).into());
        blossom.folder = Some(folder.path().join("blobs"));
        change(blossom);
        let lifecycle = Lifecycle::new(Duration::from_secs(5));
        let parts = Parts::open(urls, settings, lifecycle, Metrics::new("test")).unwrap();
        let outside = Egress::new(&parts.settings.networks).unwrap();
        let (metrics, mut addresses) = (BlobMetrics::default(), BTreeMap::new());
        let started = blossom::start(&parts, keys, &outside, metrics, &mut addresses).await.unwrap();
        let address = addresses["blossom"].parse().unwrap();
        Self { parts, address, started, folder }
    }

    /// The URL of a path.
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Sends a request without headers and body.
    pub(super) async fn get(&self, path: &str) -> Answer {
        fetch("GET", &self.url(path), &[], b"").await
    }

    /// Sends HEAD.
    pub(super) async fn head(&self, path: &str) -> Answer {
        fetch("HEAD", &self.url(path), &[], b"").await
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.parts.lifecycle.drain();
    }
}

/// Lets pages of other sites use the service, at an address that is known before it starts.
pub(super) fn serve_pages(settings: &mut config::Blossom) {
    let address = SocketAddr::from(([127, 0, 0, 1], free_ports().0));
    settings.address = Some(address);
    settings.public_url = Some(format!("http://{address}"));
}

/// The setting that names an upstream.
pub(super) fn upstream(url: &str) -> config::BlossomUpstream {
    serde_json::from_value(serde_json::json!({ "url": url })).unwrap()
}

/// The kinds of the entries about one blob, oldest first, as `kind` or `kind upstream`; `names` stand for the upstreams in their
/// order.
pub(super) async fn history(database: &TestDatabase, sha256: &str, servers: &[&Server]) -> Vec<String> {
    let rows = database
        .owner()
        .await
        .query(
            "SELECT kind, upstream FROM blob_log WHERE sha256 = decode($1, 'hex') ORDER BY position",
            &[&sha256],
        )
        .await
        .unwrap();
    rows.iter()
        .map(|row| {
            let (kind, upstream): (String, Option<String>) = (row.get(0), row.get(1));
            match upstream {
                None => kind,
                Some(url) => {
                    let place = servers.iter().position(|server| server.url() == url);
                    format!("{kind} {}", place.map_or_else(|| url, |place| place.to_string()))
                }
            }
        })
        .collect()
}

/// The states of the copies of one blob, by the place of their server in `servers`.
pub(super) async fn states(
    database: &TestDatabase,
    sha256: &str,
    servers: &[&Server],
) -> Vec<Option<String>> {
    let rows = database
        .owner()
        .await
        .query("SELECT upstream, state FROM blob_replicas WHERE sha256 = decode($1, 'hex')", &[&sha256])
        .await
        .unwrap();
    let known: BTreeMap<String, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    servers.iter().map(|server| known.get(&server.url()).cloned()).collect()
}

/// Waits until the copies of a blob have these states.
pub(super) async fn become_states(
    database: &TestDatabase,
    sha256: &str,
    servers: &[&Server],
    expected: &[&str],
) {
    eventually(&format!("the states {expected:?}"), async || {
        let found = states(database, sha256, servers).await;
        found.iter().map(|state| state.as_deref().unwrap_or("none")).eq(expected.iter().copied())
    })
    .await;
}

/// The result of a query for one number.
pub(super) async fn number(database: &TestDatabase, sql: &str) -> i64 {
    database.owner().await.query_one(sql, &[]).await.unwrap().get(0)
}

/// What `quipu verify` finds in this database.
pub(super) async fn problems(database: &TestDatabase) -> Vec<String> {
    let findings = verify_tables(database.urls().owner().unwrap()).await.unwrap();
    findings.into_iter().flat_map(|finding| finding.problems).collect()
}
