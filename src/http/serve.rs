//! Listeners. Each is bound before it is served, so that its port is known (port 0 works) and an address in
//! use is reported before anything starts. All are served by [`Edge::serve`], so that none lacks the guard
//! and the limits.

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

use super::connections::ConnectionLimits;
use super::context::Dialect;
use super::guard::{Guard, guard};
use super::metrics::HttpMetrics;
use super::server::{Server, Timeouts};
use super::{Cors, Endpoint, Routes};
use crate::config::Http;
use crate::lifecycle::{BoxError, Lifecycle};
use crate::telemetry::Metrics;

/// Why an address cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address}: set another address in `{setting}`, or other ports with --port-base of `quipu up`"
)]
pub struct BindError {
    /// The setting that holds the address.
    pub setting: &'static str,
    /// The requested address.
    pub address: SocketAddr,
    #[source]
    source: io::Error,
}

/// A bound listener that is not served yet.
#[derive(Debug)]
pub struct Listener {
    name: &'static str,
    tcp: TcpListener,
    address: SocketAddr,
    hosts: Vec<String>,
    sockets: Option<(usize, usize)>,
    dialect: Dialect,
    cors: Option<Cors>,
}

impl Listener {
    /// Binds the address in `setting`. `name` is used in logs and metrics.
    ///
    /// # Errors
    /// When the address is in use, not on this machine, or not permitted.
    pub async fn bind(
        name: &'static str,
        setting: &'static str,
        address: SocketAddr,
    ) -> Result<Self, BindError> {
        let failed = |source| BindError { setting, address, source };
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        Ok(Self {
            name,
            tcp,
            address,
            hosts: Vec::new(),
            sockets: None,
            dialect: Dialect::default(),
            cors: None,
        })
    }

    /// Adds a host name that only this listener accepts.
    #[must_use]
    pub fn with_host(mut self, host: Option<String>) -> Self {
        self.hosts.extend(host);
        self
    }

    /// Raises the connection limits for long-lived connections that the room limits itself: in total, and per
    /// address. Loopback addresses then count only towards the total.
    #[must_use]
    pub fn with_sockets(self, connections_max: usize, per_address_max: usize) -> Self {
        Self { sockets: Some((connections_max, per_address_max)), ..self }
    }

    /// Gives errors their text under `error` as well, where clients of the original read it.
    #[must_use]
    pub fn with_error_field(mut self) -> Self {
        self.dialect.has_error_field = true;
        self
    }

    /// Gives errors their text in the field `X-Reason` as well.
    #[must_use]
    pub fn with_reason_field(mut self) -> Self {
        self.dialect.has_reason = true;
        self
    }

    /// Lets pages of every site use the listener.
    #[must_use]
    pub fn with_cors(self, cors: Cors) -> Self {
        Self { cors: Some(cors), ..self }
    }

    /// The bound address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// State shared by all listeners of a process. Clones share it.
#[derive(Debug, Clone)]
pub struct Edge {
    settings: Arc<Http>,
    metrics: HttpMetrics,
    descriptors: Arc<Semaphore>,
    endpoints: Arc<Mutex<BTreeMap<&'static str, Vec<Endpoint>>>>,
}

impl Edge {
    /// Creates the shared state. All listeners together have at most `connections_max` connections: what the
    /// process's limit on open descriptors leaves.
    #[must_use]
    pub fn new(settings: Http, metrics: &Metrics, connections_max: usize) -> Self {
        let http_metrics = HttpMetrics::default();
        metrics.register(|registry| http_metrics.register(registry));
        let descriptors = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
        Self { settings: Arc::new(settings), metrics: http_metrics, descriptors, endpoints: Arc::default() }
    }

    /// Wraps the routes in the guard, as [`Edge::serve`] does, and records their endpoints.
    pub fn router(&self, name: &'static str, own_hosts: &[String], routes: Routes) -> Router {
        self.guarded(name, own_hosts, Dialect::default(), routes)
    }

    fn guarded(&self, name: &'static str, own_hosts: &[String], dialect: Dialect, routes: Routes) -> Router {
        let (unguarded, endpoints, slow) = routes.into_parts();
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).insert(name, endpoints);
        let hosts = self.settings.hosts.iter().chain(own_hosts).cloned().collect();
        let state = Guard {
            listener: name,
            hosts,
            settings: Arc::clone(&self.settings),
            metrics: self.metrics.clone(),
            dialect,
            slow,
        };
        unguarded.layer(from_fn_with_state(Arc::new(state), guard))
    }

    /// The endpoints registered so far, by listener.
    #[must_use]
    pub fn endpoints(&self) -> BTreeMap<&'static str, Vec<Endpoint>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Serves `routes` in a task until the drain, then finishes pending requests and waits for upgraded
    /// connections. An endless stream must watch the drain itself; otherwise the end of the grace time aborts
    /// it.
    pub fn serve(&self, lifecycle: &Lifecycle, listener: Listener, routes: Routes) {
        let Listener { name, tcp, hosts, sockets, dialect, cors, .. } = listener;
        let mut guarded = self.guarded(name, &hosts, dialect, routes);
        let is_for_every_site = cors.is_some();
        // Outside the guard: a page has to see its refusals as well.
        if let Some(Cors(layer)) = cors {
            guarded = guarded.layer(layer);
        }
        let settings = &self.settings;
        let (sockets_max, sockets_per_address_max) = sockets.unwrap_or_default();
        let connection_limits = ConnectionLimits::new(
            settings.connections_max.get().saturating_add(sockets_max),
            settings.connections_per_address_max.get().saturating_add(sockets_per_address_max),
            sockets.is_none(),
            settings.trusted_proxies.clone(),
            Arc::clone(&self.descriptors),
        );
        let seconds = |seconds: NonZeroU32| Duration::from_secs(seconds.get().into());
        let timeouts =
            Timeouts { header: seconds(settings.header_timeout_s), write: seconds(settings.write_timeout_s) };
        let refusal_field = if is_for_every_site { "access-control-allow-origin: *\r\n" } else { "" };
        let (metrics, own) = (self.metrics.clone(), lifecycle.clone());
        let server = Server::new(name, guarded, connection_limits, timeouts, metrics, own, refusal_field);
        lifecycle.spawn(name, async move {
            server.run(tcp).await;
            Ok::<(), BoxError>(())
        });
    }
}
