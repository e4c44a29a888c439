//! The entry point for all outgoing connections and DNS lookups.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::dial::{Dialled, Dialler};
use super::dns::Resolver;
use super::fetch::{self, Caller, Fetcher};
use super::socks::Isolation;
use super::tls::Tls;
use super::{DialError, DnsRecords, Exchange, FetchError, Fetched, Get, Trust};
use crate::base::Network;
use crate::config;

/// Outgoing connections: networks, DNS and TLS trust. Built once per process; clones share the state.
#[derive(Debug, Clone)]
pub struct Egress(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dialler: Dialler,
    fetcher: Fetcher,
}

impl Egress {
    /// Uses the DNS configuration of the system.
    ///
    /// # Errors
    /// [`DialError::Settings`]: `networks.ca_file` cannot be read.
    pub fn new(networks: &config::Networks) -> Result<Self, DialError> {
        Self::with(networks, Resolver::from_system()?)
    }

    /// As [`Egress::new`], but with these DNS servers instead of the system's.
    ///
    /// # Errors
    /// As [`Egress::new`].
    pub fn with_dns_servers(networks: &config::Networks, servers: &[SocketAddr]) -> Result<Self, DialError> {
        Self::with(networks, Resolver::with_servers(servers)?)
    }

    fn with(networks: &config::Networks, resolver: Resolver) -> Result<Self, DialError> {
        let resolver = resolver.with_private_names(&networks.clearnet.private_names);
        let tls = Tls::new(networks.ca_file.as_deref())?;
        let dialler = Dialler { networks: networks.clone(), resolver, tls, isolation: Isolation::new() };
        let fetcher = Fetcher::new(&dialler)?;
        Ok(Self(Arc::new(Inner { dialler, fetcher })))
    }

    /// Whether this network is enabled in the settings.
    #[must_use]
    pub fn reaches(&self, network: Network) -> bool {
        self.0.dialler.networks.get(network).enabled
    }

    /// Looks up the DNS records of `host`. Names of Tor, I2P and Lokinet are refused without a query.
    ///
    /// # Errors
    /// [`DialError::Hidden`], [`DialError::Dns`].
    pub async fn lookup(&self, host: &str) -> Result<DnsRecords, DialError> {
        self.0.dialler.resolver.records(host).await
    }

    /// Sends a GET request over HTTP or HTTPS, within the limits in `get`.
    ///
    /// # Errors
    /// Any [`FetchError`]. A response with an error status is not an error here.
    pub async fn get(&self, get: Get<'_>) -> Result<Fetched, FetchError> {
        self.0.fetcher.get(get).await
    }

    /// Clients for requests to servers that the operator named, which keep their connections.
    ///
    /// # Errors
    /// [`DialError::Settings`]: `networks.ca_file` cannot be used.
    pub fn caller(&self) -> Result<Caller, DialError> {
        Caller::new(&self.0.dialler)
    }

    /// A client for the object storage that the operator names.
    pub(super) fn storage_client(&self) -> Result<reqwest::Client, DialError> {
        fetch::storage_client(&self.0.dialler)
    }

    /// Sends one request with a method, headers and a body, within the limits in `exchange`. Redirects are not
    /// followed.
    ///
    /// # Errors
    /// Any [`FetchError`]. A response with an error status is not an error here.
    pub async fn exchange(&self, exchange: Exchange) -> Result<http::Response<Vec<u8>>, FetchError> {
        self.0.fetcher.exchange(exchange).await
    }

    /// See [`Dialler::dial`].
    pub(super) async fn dial(&self, url: &Url, trust: Trust, within: Duration) -> Result<Dialled, DialError> {
        self.0.dialler.dial(url, trust, within).await
    }
}
