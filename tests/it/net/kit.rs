//! Loopback peers, and sessions to them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use nostr_sdk::{Event, EventBuilder, Keys, Timestamp};
use quipu::base::RelayUrl;
use quipu::config::Networks;
use quipu::net::relay::{RelayError, RelaySession, Timeouts};
use quipu::net::{Egress, Trust};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

pub(super) const ONION: &str = "vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd.onion";
pub(super) const OTHER_ONION: &str = "duckduckgogg42xjoc72x3sjasowoarfbgcmvfimaftt6twagswzczad.onion";

/// Long enough for a loaded machine, short enough to notice a hang.
pub(super) const TIMEOUTS: Timeouts =
    Timeouts { connect: Duration::from_secs(20), idle: Duration::from_secs(20) };

pub(super) fn url(text: &str) -> RelayUrl {
    RelayUrl::parse(text).unwrap()
}

/// Clearnet only, without DNS.
pub(super) fn outside() -> Egress {
    Egress::with_dns_servers(&Networks::default(), &[]).unwrap()
}

pub(super) async fn session(url: &str) -> Result<RelaySession, RelayError> {
    RelaySession::connect(&outside(), &self::url(url), Trust::Named, TIMEOUTS).await
}

/// All networks enabled, with the same proxy.
pub(super) fn hidden(proxy: SocketAddr) -> Networks {
    let mut networks = Networks::default();
    for network in [&mut networks.tor, &mut networks.i2p, &mut networks.loki] {
        network.enabled = true;
        network.proxy_address = Some(proxy.to_string());
    }
    networks
}

pub(super) type Socket = WebSocketStream<TcpStream>;

/// A peer that performs the WebSocket handshake and then runs `script` for each connection. Dropping it stops
/// it.
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Peer {
    pub(super) async fn start<F>(script: impl Fn(Socket) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let script = Arc::new(script);
        Self::tcp(move |stream| {
            let script = Arc::clone(&script);
            async move {
                if let Ok(socket) = tokio_tungstenite::accept_async(stream).await {
                    script(socket).await;
                }
            }
        })
        .await
    }

    /// The same over plain TCP.
    pub(super) async fn tcp<F>(script: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                connections.spawn(script(stream));
            }
        });
        Self { address, _tasks: tasks }
    }

    pub(super) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }
}

/// The next message of a client as JSON.
pub(super) async fn receive(socket: &mut Socket) -> Option<Value> {
    loop {
        match socket.next().await?.ok()? {
            Message::Text(text) => return serde_json::from_str(&text).ok(),
            Message::Close(_) => return None,
            _ => {}
        }
    }
}

/// The next message of this kind; messages of other kinds are skipped.
pub(super) async fn receive_kind(socket: &mut Socket, verb: &str) -> Option<Value> {
    loop {
        let message = receive(socket).await?;
        if message[0] == verb {
            return Some(message);
        }
    }
}

pub(super) async fn say(socket: &mut Socket, message: &Value) {
    let _ = socket.send(Message::text(message.to_string())).await;
}

/// Waits until the client disconnects.
pub(super) async fn stay(mut socket: Socket) {
    while socket.next().await.is_some_and(|message| message.is_ok()) {}
}

/// Signed notes, one per second, starting at Unix time 1,700,000,000.
pub(super) fn notes(count: u64) -> Vec<Event> {
    let keys = Keys::generate();
    (0..count)
        .map(|n| {
            EventBuilder::text_note(format!("note {n}"))
                .custom_created_at(Timestamp::from_secs(1_700_000_000 + n))
                .sign_with_keys(&keys)
                .unwrap()
        })
        .collect()
}

/// A WebSocket server that counts its connections.
pub(super) async fn counted() -> (Peer, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    let peer = Peer::tcp(move |stream| {
        seen.fetch_add(1, Ordering::SeqCst);
        async move {
            if let Ok(socket) = tokio_tungstenite::accept_async(stream).await {
                stay(socket).await;
            }
        }
    })
    .await;
    (peer, count)
}
