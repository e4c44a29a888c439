//! Listeners. Each is bound first and handed over, so its port is known (0 works), and an occupied one is refused before
//! anything has begun. All are served by [`Edge::serve`], so none lacks the guard and the bounds.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::connections::Bounds;
use super::guard::{Guard, guard};
use super::metrics::HttpMetrics;
use super::server::{Limits, Server};
use super::{Endpoint, Routes};
use crate::config::Http;
use crate::lifecycle::{BoxError, Lifecycle};
use crate::telemetry::Metrics;

/// Why nothing can listen there.
#[derive(Debug, thiserror::Error)]
#[error("{address} cannot be listened on; `{setting}`, or --port-base of `quipu up`, takes another one")]
pub struct BindError {
    /// The setting that names the address.
    pub setting: &'static str,
    /// The address that was asked for.
    pub address: SocketAddr,
    #[source]
    source: io::Error,
}

/// A bound address that is not served yet.
#[derive(Debug)]
pub struct Listener {
    name: &'static str,
    tcp: TcpListener,
    address: SocketAddr,
    hosts: Vec<String>,
    sockets: Option<(usize, usize)>,
}

impl Listener {
    /// Binds the address that `setting` names. `name` stands in logs and metrics.
    ///
    /// # Errors
    /// When it is taken, not of this machine, or not permitted.
    pub async fn bind(
        name: &'static str,
        setting: &'static str,
        address: SocketAddr,
    ) -> Result<Self, BindError> {
        let failed = |source| BindError { setting, address, source };
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        Ok(Self { name, tcp, address, hosts: Vec::new(), sockets: None })
    }

    /// Adds a name under which this listener alone is reached.
    #[must_use]
    pub fn with_host(mut self, host: Option<String>) -> Self {
        self.hosts.extend(host);
        self
    }

    /// Adds room for connections that last and that the room itself bounds: for all, and for each address. Loopback addresses
    /// count for all alone.
    #[must_use]
    pub fn with_sockets(self, connections_max: usize, per_address_max: usize) -> Self {
        Self { sockets: Some((connections_max, per_address_max)), ..self }
    }

    /// The bound address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// What all listeners of a process share. Clones are the same.
#[derive(Debug, Clone)]
pub struct Edge {
    settings: Arc<Http>,
    counted: HttpMetrics,
    descriptors: Arc<Semaphore>,
    endpoints: Arc<Mutex<BTreeMap<&'static str, Vec<Endpoint>>>>,
}

impl Edge {
    /// Listeners with these settings; at most `connections_max` connections at all of them, which is what the descriptor
    /// limit of the process leaves.
    #[must_use]
    pub fn new(settings: Http, metrics: &Metrics, connections_max: usize) -> Self {
        let counted = HttpMetrics::default();
        metrics.register(|registry| counted.register(registry));
        let descriptors = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
        Self { settings: Arc::new(settings), counted, descriptors, endpoints: Arc::default() }
    }

    /// The routes behind the guard, as they are served.
    pub fn router(&self, name: &'static str, own_hosts: &[String], routes: Routes) -> Router {
        let (unguarded, endpoints) = routes.into_parts();
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).insert(name, endpoints);
        let hosts = self.settings.hosts.iter().chain(own_hosts).cloned().collect();
        let state = Guard {
            listener: name,
            hosts,
            settings: Arc::clone(&self.settings),
            counted: self.counted.clone(),
        };
        unguarded.layer(from_fn_with_state(Arc::new(state), guard))
    }

    /// Every endpoint that is served by now, by listener.
    #[must_use]
    pub fn endpoints(&self) -> BTreeMap<&'static str, Vec<Endpoint>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Serves `routes` as a task until the drain, then finishes the requests under way and waits for upgraded connections. An
    /// answer that streams without end must watch the drain itself, or the grace time ends it.
    pub fn serve(&self, lifecycle: &Lifecycle, listener: Listener, routes: Routes) {
        let Listener { name, tcp, hosts, sockets, .. } = listener;
        let guarded = self.router(name, &hosts, routes);
        let settings = &self.settings;
        let (sockets_max, sockets_per_address_max) = sockets.unwrap_or_default();
        let bounds = Bounds::new(
            settings.connections_max.get().saturating_add(sockets_max),
            settings.connections_per_address_max.get().saturating_add(sockets_per_address_max),
            sockets.is_none(),
            settings.trusted_proxies.clone(),
            Arc::clone(&self.descriptors),
        );
        let seconds = |seconds: NonZeroU32| Duration::from_secs(seconds.get().into());
        let limits =
            Limits { header: seconds(settings.header_timeout_s), write: seconds(settings.write_timeout_s) };
        let server = Server::new(name, guarded, bounds, limits, self.counted.clone(), lifecycle.clone());
        lifecycle.spawn(name, async move {
            server.run(tcp).await;
            Ok::<(), BoxError>(())
        });
    }
}
