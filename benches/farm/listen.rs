//! Accepts connections and serves a WebSocket session or a NIP-11 document, both on the same port.

use std::io::{self, Cursor};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_util::io::{InspectReader, InspectWriter};

use super::document::{self, RedirectTargets};
use super::relay::{Counted, Relay};
use super::{Character, session};

/// Longest head of a request, in bytes.
const HEAD_MAX: usize = 16 * 1_024;

pub(super) async fn accept(listener: TcpListener, relay: Arc<Relay>, redirects: RedirectTargets) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let relay = Arc::clone(&relay);
        connections.spawn(async move {
            let counts = relay.counts();
            counts.first_seen.get_or_init(Instant::now);
            counts.opened.fetch_add(1, Ordering::Relaxed);
            let _open = Counted::one(&counts.open, Some(&counts.open_max));
            // A client that disconnects in the middle of an answer is not an error.
            drop(serve(stream, &relay, redirects).await);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, relay: &Arc<Relay>, redirects: RedirectTargets) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    let counts = relay.counts();
    let count = |counter: &AtomicU64, bytes: &[u8]| {
        counter.fetch_add(bytes.len().try_into().expect("64 bits"), Ordering::Relaxed);
    };
    let mut reader = InspectReader::new(reader, move |bytes: &[u8]| count(&counts.received, bytes));
    let writer = InspectWriter::new(writer, move |bytes: &[u8]| count(&counts.sent, bytes));
    if relay.character() == Character::Silent {
        return wait_for_the_end(reader).await;
    }
    let head = read_head(&mut reader).await?;
    let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
    // The handshake reads the bytes consumed so far again.
    let mut stream = tokio::io::join(Cursor::new(head).chain(reader), writer);
    if text.contains("upgrade: websocket") {
        upgrade(stream, relay).await
    } else {
        counts.documents.fetch_add(1, Ordering::Relaxed);
        document::answer(&mut stream, relay.character(), redirects).await
    }
}

async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(stream: S, relay: &Arc<Relay>) -> io::Result<()> {
    #[expect(clippy::result_large_err, reason = "the library wants it so")]
    let with_date = |_: &Request, mut response: Response| {
        if let Some(date) = document::date(relay.character()) {
            response.headers_mut().insert("date", date.parse().expect("a date in letters and digits"));
        }
        Ok(response)
    };
    let socket = tokio_tungstenite::accept_hdr_async(stream, with_date).await.map_err(io::Error::other)?;
    session::serve(socket, relay).await.map_err(io::Error::other)
}

/// Reads the request up to the empty line.
async fn read_head(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_MAX {
        if reader.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    Ok(head)
}

async fn wait_for_the_end(mut reader: impl AsyncRead + Unpin) -> io::Result<()> {
    let mut heard = [0; 1_024];
    while reader.read(&mut heard).await? > 0 {}
    Ok(())
}
