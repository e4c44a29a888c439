//! SOCKS5 client: sends the name unresolved to the proxy, and uses a separate circuit for each relay.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rand::Rng;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_socks::io::AsyncSocket;
use tokio_socks::tcp::Socks5Stream;

use super::DialError;
use super::error::SocksReply;
use super::remote_text::sanitize;

/// User name of every circuit; circuits differ by their password.
pub(super) const USER: &str = "quipu";

/// Derives the proxy passwords. Tor builds a separate circuit for each pair of user name and password
/// (`IsolateSOCKSAuth`). One relay keeps its password while the process runs. The password is a salted hash,
/// so the proxy cannot derive the relay from it.
#[derive(Clone)]
pub(super) struct Isolation([u8; 32]);

impl std::fmt::Debug for Isolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Isolation")
    }
}

impl Isolation {
    pub(super) fn new() -> Self {
        Self(rand::rng().random())
    }

    /// Password for `subject`: a relay's URL, or a host.
    pub(super) fn password(&self, subject: &str) -> String {
        hex::encode(Sha256::new().chain_update(self.0).chain_update(subject).finalize())
    }
}

/// Asks the proxy behind `tcp` to connect to `host`, which is sent as a name (ATYP 3) and resolved by the
/// proxy.
pub(super) async fn connect(
    tcp: TcpStream,
    host: &str,
    port: u16,
    password: &str,
) -> Result<TcpStream, DialError> {
    let mut socket = RecordingSocket { tcp, replies: Vec::with_capacity(REPLY_BYTES_MAX) };
    let target = (host, port);
    match Socks5Stream::connect_with_password_and_socket(&mut socket, target, USER, password).await {
        Ok(_connected) => Ok(socket.tcp),
        Err(error) => Err(socket
            .refusal()
            .map_or_else(|| DialError::Proxy(sanitize(&error.to_string())), DialError::Socks)),
    }
}

/// Bytes up to the reply code: method selection (2), authentication result (2), start of the reply (2).
const REPLY_BYTES_MAX: usize = 6;

/// The proxy's socket, which records the first bytes of its replies. The SOCKS library does not report Tor's
/// extended reply codes.
struct RecordingSocket {
    tcp: TcpStream,
    replies: Vec<u8>,
}

impl RecordingSocket {
    /// The reply code, if the proxy has replied and refused.
    fn refusal(&self) -> Option<SocksReply> {
        let ([5, 0, 5, reply, ..] | [5, 2, _, 0, 5, reply]) = *self.replies.as_slice() else { return None };
        (reply != 0).then_some(SocksReply(reply))
    }
}

impl AsyncSocket for &mut RecordingSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<std::io::Result<usize>> {
        let mut read = ReadBuf::new(buf);
        ready!(AsyncRead::poll_read(Pin::new(&mut self.tcp), cx, &mut read))?;
        let room = REPLY_BYTES_MAX - self.replies.len();
        let filled = read.filled();
        self.replies.extend_from_slice(&filled[..filled.len().min(room)]);
        Poll::Ready(Ok(filled.len()))
    }

    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.tcp), cx, buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tor_3_passwords_differ_by_relay_and_are_stable_within_a_process() {
        let isolation = Isolation::new();
        let (a, b) = (isolation.password("ws://a.onion"), isolation.password("ws://b.onion"));
        assert_ne!(a, b);
        assert_eq!(a, isolation.password("ws://a.onion"));
        assert_ne!(a, Isolation::new().password("ws://a.onion"), "each process has its own key");
        assert_eq!(a.len(), 64);
    }
}
