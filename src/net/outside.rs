//! The one way out of this process.

use std::net::SocketAddr;
use std::sync::Arc;

use super::fetch::Clients;
use super::names::Resolver;
use super::socks::Isolation;
use super::tls::Tls;
use super::{DialError, FetchError, Fetched, Get, Names};
use crate::base::Network;
use crate::config;

/// Everything that leads outside: networks, names, trust in servers. Built once a process; a clone is the same one.
#[derive(Debug, Clone)]
pub struct Outside(pub(super) Arc<Parts>);

/// What dials and requests share.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) networks: config::Networks,
    pub(super) names: Resolver,
    pub(super) tls: Tls,
    pub(super) isolation: Isolation,
    pub(super) clients: Clients,
}

impl Outside {
    /// With the system's DNS.
    ///
    /// # Errors
    /// [`DialError::Settings`]: `networks.ca_file` cannot be read.
    pub fn new(networks: &config::Networks) -> Result<Self, DialError> {
        Self::with(networks, Resolver::of_system()?)
    }

    /// As [`Outside::new`], but asking these DNS servers instead of the system's.
    ///
    /// # Errors
    /// As [`Outside::new`].
    pub fn asking(networks: &config::Networks, servers: &[SocketAddr]) -> Result<Self, DialError> {
        Self::with(networks, Resolver::asking(servers)?)
    }

    fn with(networks: &config::Networks, names: Resolver) -> Result<Self, DialError> {
        let names = names.with_private_names(&networks.clearnet.private_names);
        let tls = Tls::new(networks.ca_file.as_deref())?;
        let isolation = Isolation::new();
        let clients = Clients::new(networks, &names, &tls, &isolation)?;
        Ok(Self(Arc::new(Parts { networks: networks.clone(), names, tls, isolation, clients })))
    }

    /// Whether the settings allow this network.
    #[must_use]
    pub fn reaches(&self, network: Network) -> bool {
        self.0.networks.get(network).enabled
    }

    /// What DNS says of `host`. Names of Tor, I2P and Lokinet are refused without a question to anybody.
    ///
    /// # Errors
    /// [`DialError::Hidden`], [`DialError::Dns`].
    pub async fn lookup(&self, host: &str) -> Result<Names, DialError> {
        self.0.names.facts(host).await
    }

    /// Fetches over HTTP or HTTPS, within the bounds that `get` says.
    ///
    /// # Errors
    /// Any [`FetchError`]. An answer with an error's status is an answer.
    pub async fn get(&self, get: Get<'_>) -> Result<Fetched, FetchError> {
        self.0.get(get).await
    }
}
