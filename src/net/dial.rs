//! Opens connections: chooses the network by the host's last label, resolves or uses a SOCKS proxy, and adds
//! TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use url::Url;

use super::dns::Resolver;
use super::remote_text::sanitize;
use super::socks::Isolation;
use super::tls::{Proof, Tls};
use super::{Certificate, DialError, Trust, socks};
use crate::base::Network;
use crate::config;

/// A connection, with or without TLS.
pub(super) type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// An open connection with the facts that the handshakes established.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) stream: Stream,
    /// IP address of the peer. `None` behind a proxy, which resolves the name itself.
    pub(super) peer: Option<IpAddr>,
    pub(super) certificate: Option<Certificate>,
}

/// Opens connections, directly or through the SOCKS proxy of the host's network.
#[derive(Debug)]
pub(super) struct Dialler {
    pub(super) networks: config::Networks,
    pub(super) resolver: Resolver,
    pub(super) tls: Tls,
    pub(super) isolation: Isolation,
}

impl Dialler {
    /// Connects to the host and port of `url`, with TLS for `wss` and `https`. `within` covers DNS, TCP or
    /// SOCKS, and TLS.
    pub(super) async fn dial(&self, url: &Url, trust: Trust, within: Duration) -> Result<Dialled, DialError> {
        let timed_out = || DialError::Timeout(within);
        let until = Instant::now() + within;
        let no_host = || DialError::Dns { host: String::new(), why: "the URL has no host".to_owned() };
        let host = url.host_str().ok_or_else(no_host)?;
        let port = url.port_or_known_default().ok_or_else(no_host)?;
        let network = Network::of_host(host);
        let tcp = match network {
            _ if !self.networks.get(network).enabled => return Err(DialError::Disabled(network)),
            Network::Clearnet => {
                let addresses = timeout_at(until, self.resolver.addresses(host, trust)).await;
                connect_first(&addresses.map_err(|_| timed_out())??, port, until)
                    .await
                    .map_err(|e| e.unwrap_or_else(timed_out))?
            }
            hidden => {
                let through = self.through_proxy(hidden, host, port, url, until);
                timeout_at(until, through).await.map_err(|_| timed_out())??
            }
        };
        let peer = match network {
            Network::Clearnet => tcp.peer_addr().ok().map(|address| address.ip()),
            _ => None,
        };
        if !matches!(url.scheme(), "wss" | "https") {
            return Ok(Dialled { stream: Either::Left(tcp), peer, certificate: None });
        }
        let handshake = self.tls.handshake(tcp, host, required_proof(network));
        let (stream, certificate) = timeout_at(until, handshake).await.map_err(|_| timed_out())??;
        Ok(Dialled { stream: Either::Right(stream), peer, certificate })
    }

    async fn through_proxy(
        &self,
        network: Network,
        host: &str,
        port: u16,
        url: &Url,
        until: Instant,
    ) -> Result<TcpStream, DialError> {
        let settings = self.networks.get(network);
        let missing = || DialError::Settings(format!("networks.{network}.proxy_address"));
        let proxy = settings.proxy_address.as_deref().ok_or_else(missing)?;
        let (proxy_host, proxy_port) = proxy.rsplit_once(':').ok_or_else(missing)?;
        let proxy_port = proxy_port.parse().map_err(|_| missing())?;
        let addresses = self.resolver.addresses(proxy_host, Trust::Named).await;
        let addresses = addresses.map_err(|e| DialError::Proxy(e.to_string()))?;
        let tcp = connect_first(&addresses, proxy_port, until).await;
        let tcp = tcp.map_err(|e| {
            DialError::Proxy(e.map_or_else(|| "no connection in time".to_owned(), |e| e.to_string()))
        })?;
        socks::connect(tcp, host, port, &self.isolation.password(url.as_str())).await
    }
}

/// What a server's certificate has to prove in each network.
pub(super) const fn required_proof(network: Network) -> Proof {
    match network {
        Network::Clearnet => Proof::Name,
        Network::Tor | Network::I2p | Network::Loki => Proof::Key,
    }
}

/// Connects to the first address that answers. Each attempt gets an equal share of the remaining time, so
/// that one address that drops packets does not use up all of it. `Err(None)` means that the time ran out.
async fn connect_first(
    addresses: &[IpAddr],
    port: u16,
    until: Instant,
) -> Result<TcpStream, Option<DialError>> {
    let mut failed = None;
    for (left, address) in (1..=addresses.len()).rev().zip(addresses) {
        let now = Instant::now();
        let share = until.saturating_duration_since(now) / u32::try_from(left).unwrap_or(u32::MAX);
        match timeout_at(now + share, connect(SocketAddr::new(*address, port))).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(error)) => failed = Some(connect_error(&error)),
            Err(_) => {}
        }
    }
    Err(failed)
}

/// `nodelay`: without it a small frame waits up to 40 ms for the peer's delayed acknowledgement. `keepalive`:
/// the kernel notices a peer that vanished.
async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    socket.set_keepalive(true)?;
    socket.connect(address).await
}

pub(super) fn connect_error(error: &io::Error) -> DialError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => DialError::Refused,
        _ => DialError::Unreachable(sanitize(&error.to_string())),
    }
}
