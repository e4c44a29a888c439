//! Connections: through the network that the host's last part names, to addresses that may be dialled, with TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use url::Url;

use super::error::words;
use super::outside::Parts;
use super::tls::Proof;
use super::{Certificate, DialError, Trust, socks};
use crate::base::Network;

/// A connection, encrypted or not.
pub(super) type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// A connection and who is at its other end.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) stream: Stream,
    /// The peer's address; none through a proxy.
    pub(super) peer: Option<IpAddr>,
    pub(super) certificate: Option<Certificate>,
}

impl Parts {
    /// Connects to the host and port of `url`, with TLS when its scheme says so.
    pub(super) async fn dial(&self, url: &Url, trust: Trust, within: Duration) -> Result<Dialled, DialError> {
        let late = || DialError::Timeout(within);
        let until = Instant::now() + within;
        let no_host = || DialError::Dns { host: String::new(), why: "no host".to_owned() };
        let host = url.host_str().ok_or_else(no_host)?;
        let port = url.port_or_known_default().ok_or_else(no_host)?;
        let network = Network::of_host(host);
        let tcp = match network {
            _ if !self.networks.get(network).enabled => return Err(DialError::Disabled(network)),
            Network::Clearnet => {
                let addresses = timeout_at(until, self.names.addresses(host, trust)).await;
                first(&addresses.map_err(|_| late())??, port, until)
                    .await
                    .map_err(|e| e.unwrap_or_else(late))?
            }
            hidden => {
                let through = self.through_proxy(hidden, host, port, url, until);
                timeout_at(until, through).await.map_err(|_| late())??
            }
        };
        let peer = match network {
            Network::Clearnet => tcp.peer_addr().ok().map(|address| address.ip()),
            _ => None,
        };
        if !matches!(url.scheme(), "wss" | "https") {
            return Ok(Dialled { stream: Either::Left(tcp), peer, certificate: None });
        }
        let shaking = self.tls.handshake(tcp, host, proof(network));
        let (stream, certificate) = timeout_at(until, shaking).await.map_err(|_| late())??;
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
        let addresses = self.names.addresses(proxy_host, Trust::Named).await;
        let addresses = addresses.map_err(|e| DialError::Proxy(e.to_string()))?;
        let tcp = first(&addresses, proxy_port, until).await;
        let tcp =
            tcp.map_err(|e| DialError::Proxy(e.map_or_else(|| "no answer".to_owned(), |e| e.to_string())))?;
        socks::connect(tcp, host, port, &self.isolation.password(url.as_str())).await
    }
}

/// What a certificate has to prove in a network.
pub(super) const fn proof(network: Network) -> Proof {
    match network {
        Network::Clearnet => Proof::Name,
        Network::Tor | Network::I2p | Network::Loki => Proof::Key,
    }
}

/// Connects to the first address that answers; each may take its share of the time that is left. `None` when the time
/// is up.
async fn first(addresses: &[IpAddr], port: u16, until: Instant) -> Result<TcpStream, Option<DialError>> {
    let mut failed = None;
    for (left, address) in (1..=addresses.len()).rev().zip(addresses) {
        let now = Instant::now();
        let share = until.saturating_duration_since(now) / u32::try_from(left).unwrap_or(u32::MAX);
        match timeout_at(now + share, connect(SocketAddr::new(*address, port))).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(error)) => failed = Some(refusal(&error)),
            Err(_) => {}
        }
    }
    Err(failed)
}

/// Small frames leave at once, or a page turn would wait 40 ms for the peer's delayed acknowledgement; and a peer that
/// vanished is noticed by the system as well.
async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    socket.set_keepalive(true)?;
    socket.connect(address).await
}

pub(super) fn refusal(error: &io::Error) -> DialError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => DialError::Refused,
        _ => DialError::Unreachable(words(&error.to_string())),
    }
}
