//! The way through a SOCKS5 proxy: the name goes to the proxy as it is, and each relay has a circuit of its own.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rand::Rng;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_socks::io::AsyncSocket;
use tokio_socks::tcp::Socks5Stream;

use super::DialError;
use super::error::{SocksReply, words};

/// User name for every circuit; the password tells them apart.
pub(super) const USER: &str = "quipu";

/// Makes the proxy's passwords: Tor builds a circuit for each pair of name and password (its `IsolateSOCKSAuth`).
/// One relay has the same one as long as the process lives; the password says nothing about the relay.
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

    /// The password for what is reached as `subject`: a relay's URL, or a host.
    pub(super) fn password(&self, subject: &str) -> String {
        hex::encode(Sha256::new().chain_update(self.0).chain_update(subject).finalize())
    }
}

/// Asks the proxy behind `tcp` for a connection to `host`, which is sent as a name (ATYP 3) and resolved there.
pub(super) async fn connect(
    tcp: TcpStream,
    host: &str,
    port: u16,
    password: &str,
) -> Result<TcpStream, DialError> {
    let mut tap = Tap { tcp, heard: Vec::with_capacity(HEARD_MAX) };
    let target = (host, port);
    match Socks5Stream::connect_with_password_and_socket(&mut tap, target, USER, password).await {
        Ok(_connected) => Ok(tap.tcp),
        Err(error) => {
            Err(tap.refusal().map_or_else(|| DialError::Proxy(words(&error.to_string())), DialError::Socks))
        }
    }
}

/// Bytes up to the reply's code: method, result of the authentication, first half of the reply.
const HEARD_MAX: usize = 6;

/// The socket, remembering how the proxy's side began: the library has no word for Tor's own codes.
struct Tap {
    tcp: TcpStream,
    heard: Vec<u8>,
}

impl Tap {
    /// The code of the proxy's reply, when it has come and is a refusal.
    fn refusal(&self) -> Option<SocksReply> {
        let ([5, 0, 5, reply, ..] | [5, 2, _, 0, 5, reply]) = *self.heard.as_slice() else { return None };
        (reply != 0).then_some(SocksReply(reply))
    }
}

impl AsyncSocket for &mut Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<std::io::Result<usize>> {
        let mut read = ReadBuf::new(buf);
        ready!(AsyncRead::poll_read(Pin::new(&mut self.tcp), cx, &mut read))?;
        let room = HEARD_MAX - self.heard.len();
        let filled = read.filled();
        self.heard.extend_from_slice(&filled[..filled.len().min(room)]);
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
    fn a_tor_3_passwords_differ_by_relay_stay_the_same_and_say_nothing() {
        let isolation = Isolation::new();
        let (a, b) = (isolation.password("ws://a.onion"), isolation.password("ws://b.onion"));
        assert_ne!(a, b);
        assert_eq!(a, isolation.password("ws://a.onion"));
        assert_ne!(a, Isolation::new().password("ws://a.onion"), "each process has its own key");
        assert_eq!(a.len(), 64);
    }
}
