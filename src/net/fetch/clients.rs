//! Builds the `reqwest` clients: one for each trust level, whose resolver checks every address, and one that
//! connects only to the proxies of hidden networks.

use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::tls::TlsInfo;
use reqwest::{Client, ClientBuilder, Proxy, Response};
use tokio_rustls::rustls;

use super::hops::Hop;
use crate::base::Network;
use crate::config;
use crate::net::dial::{Dialler, connect_error, required_proof};
use crate::net::dns::Resolver;
use crate::net::remote_text::sanitize;
use crate::net::socks::{Isolation, USER};
use crate::net::tls::{Proof, Tls};
use crate::net::{BodyBroken, Certificate, DialError, FetchError, Trust};

/// Longest header block of HTTP/2, in bytes.
const HEADERS_BYTES_MAX: u32 = 64 * 1024;
/// A connection without received data for this long is closed, whatever the timeout of the request.
const READ_MAX: Duration = Duration::from_mins(1);
/// Time for a connection to a server that the operator named.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Idle connections kept to an object storage.
const STORAGE_IDLE_MAX: usize = 8;

/// How clients use their connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct Habits {
    /// Longest time without received data, from the request on.
    read_max: Option<Duration>,
    /// Longest time until a connection is open.
    connect_max: Option<Duration>,
    /// Idle connections that are kept for each host.
    idle_max: usize,
    /// Whether compressed responses are asked for and decompressed.
    decompresses: bool,
}

impl Habits {
    /// For single requests to any server.
    pub(super) const ONCE: Self =
        Self { read_max: Some(READ_MAX), connect_max: None, idle_max: 0, decompresses: true };
    /// For many requests to a server that the operator named. The caller sets the time limits: while a long
    /// body is sent, nothing is received. A response is taken as it is, because it can be an object.
    pub(super) const REGULAR: Self =
        Self { read_max: None, connect_max: Some(CONNECT_MAX), idle_max: 8, decompresses: false };
    /// For an object storage.
    const STORAGE: Self = Self {
        read_max: Some(READ_MAX),
        connect_max: Some(CONNECT_MAX),
        idle_max: STORAGE_IDLE_MAX,
        decompresses: false,
    };
}

/// HTTP clients by trust level, and one for hidden networks.
#[derive(Debug)]
pub(super) struct Clients {
    named: Client,
    discovered: Client,
    hidden: Client,
}

impl Clients {
    pub(super) fn new(dialler: &Dialler, habits: Habits) -> Result<Self, DialError> {
        let Dialler { networks, resolver, tls, isolation } = dialler;
        let built = |builder: ClientBuilder| builder.build().map_err(|e| DialError::Settings(e.to_string()));
        let direct = |trust: Trust| -> Result<Client, DialError> {
            let guard = GuardedResolver { resolver: resolver.clone(), trust };
            // Strangers name servers without end.
            let idle_max = if trust == Trust::Named { habits.idle_max } else { 0 };
            let habits = Habits { idle_max, ..habits };
            built(client_builder(tls, Proof::Name, habits)?.dns_resolver(guard))
        };
        let (networks, isolation) = (networks.clone(), isolation.clone());
        let proxy = Proxy::custom(move |url| proxy_for(&networks, &isolation, url));
        // This client resolves only the names of proxies. Names of hidden networks are sent to the proxy
        // unresolved.
        let proxies = GuardedResolver { resolver: resolver.clone(), trust: Trust::Named };
        // A circuit takes its time.
        let habits = Habits { connect_max: None, ..habits };
        let hidden = built(client_builder(tls, Proof::Key, habits)?.proxy(proxy).dns_resolver(proxies))?;
        Ok(Self { named: direct(Trust::Named)?, discovered: direct(Trust::Discovered)?, hidden })
    }

    /// The client that may request this URL.
    pub(super) fn for_hop(&self, hop: &Hop) -> &Client {
        match (hop.network(), hop.trust) {
            (Network::Clearnet, Trust::Named) => &self.named,
            (Network::Clearnet, Trust::Discovered) => &self.discovered,
            _ => &self.hidden,
        }
    }
}

/// A client for a server that the operator names, which keeps connections: all requests have the same trust.
pub(in crate::net) fn storage_client(dialler: &Dialler) -> Result<Client, DialError> {
    let guard = GuardedResolver { resolver: dialler.resolver.clone(), trust: Trust::Named };
    let builder = client_builder(&dialler.tls, Proof::Name, Habits::STORAGE)?.dns_resolver(guard);
    builder.build().map_err(|e| DialError::Settings(e.to_string()))
}

fn client_builder(tls: &Tls, proof: Proof, habits: Habits) -> Result<ClientBuilder, DialError> {
    let (mut config, _verifier) = tls.config(proof)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let builder = Client::builder()
        .tls_backend_preconfigured(config)
        .tls_info(true)
        .user_agent(crate::net::USER_AGENT)
        .redirect(Policy::none())
        .referer(false)
        .no_proxy()
        .pool_max_idle_per_host(habits.idle_max)
        .gzip(habits.decompresses)
        .http2_max_header_list_size(HEADERS_BYTES_MAX);
    let builder = match habits.connect_max {
        Some(longest) => builder.connect_timeout(longest),
        None => builder,
    };
    Ok(match habits.read_max {
        Some(longest) => builder.read_timeout(longest),
        None => builder,
    })
}

/// The proxy for a host of a hidden network, with a circuit of its own for that host. A clearnet host has no
/// proxy here, and the resolver of this client then refuses it.
fn proxy_for(networks: &config::Networks, isolation: &Isolation, url: &url::Url) -> Option<url::Url> {
    let host = url.host_str()?;
    let address = networks.get(Network::of_host(host)).proxy_address.as_deref()?;
    let mut proxy = url::Url::parse(&format!("socks5h://{address}")).ok()?;
    proxy.set_username(USER).ok()?;
    proxy.set_password(Some(&isolation.password(host))).ok()?;
    Some(proxy)
}

/// Resolver for `reqwest`, which calls it for every name that it dials. Refuses addresses that the trust
/// level does not allow.
struct GuardedResolver {
    resolver: Resolver,
    trust: Trust,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (resolver, trust) = (self.resolver.clone(), self.trust);
        Box::pin(async move {
            let found = resolver.addresses(name.as_str(), trust).await?;
            Ok(Box::new(found.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs)
        })
    }
}

/// Certificate of the server that answered. On the clearnet it has been verified: otherwise there would be no
/// response.
pub(super) fn certificate(response: &Response, network: Network) -> Option<Certificate> {
    let der = response.extensions().get::<TlsInfo>()?.peer_certificate()?;
    let problem = match required_proof(network) {
        Proof::Name => None,
        Proof::Key => Some("not verified: the name of a hidden service proves itself".to_owned()),
    };
    Some(Certificate::read(der, problem))
}

/// Converts an error of `reqwest`: the innermost cause that is a known type decides.
pub(super) fn failure(error: &reqwest::Error) -> FetchError {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    let mut deepest = String::new();
    while let Some(current) = cause {
        deepest = current.to_string();
        if let Some(dial) = current.downcast_ref::<DialError>() {
            return dial.clone().into();
        }
        if let Some(broken) = current.downcast_ref::<BodyBroken>() {
            return broken.clone().into();
        }
        if let Some(tls) = current.downcast_ref::<rustls::Error>() {
            return DialError::Tls { why: sanitize(&tls.to_string()), certificate: None }.into();
        }
        let inner = current.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(os) =
            current.downcast_ref::<io::Error>().filter(|_| inner.is_none() && error.is_connect())
        {
            return connect_error(os).into();
        }
        cause = inner.map(|inner| inner as &(dyn StdError + 'static)).or_else(|| current.source());
    }
    if error.is_timeout() && error.is_connect() {
        return DialError::Timeout(CONNECT_MAX).into();
    }
    if error.is_timeout() {
        return FetchError::Timeout(READ_MAX);
    }
    if error.is_connect() {
        return DialError::Unreachable(sanitize(&deepest)).into();
    }
    FetchError::Http(sanitize(&deepest))
}
