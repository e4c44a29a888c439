//! A client of the room, as cheap as can be: frames come rendered, and what arrives is told apart by its `type` alone.

use std::net::SocketAddr;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// Buffers of a connection: ten thousand of them have to fit into a helper, and a frame is half a KiB.
const BUFFER_BYTES: usize = 4 * 1_024;

/// A connection that was greeted.
pub(crate) struct Client {
    ear: Ear,
    mouth: Mouth,
}

/// What comes in.
pub(crate) struct Ear(SplitStream<WebSocketStream<TcpStream>>);

/// What goes out.
pub(crate) struct Mouth(SplitSink<WebSocketStream<TcpStream>, Message>);

impl Client {
    /// Connects, claims to be `wayfarer` on the device `d1`, and waits until that is accepted.
    pub(crate) async fn connect(to: SocketAddr, wayfarer: &str) -> Self {
        let mut client = Self::dial(to).await;
        let hello = format!(r#"{{"type":"hello","wayfarer_id":"{wayfarer}","device_id":"d1"}}"#);
        client.say(hello).await;
        client.hear_only("hello_ok").await;
        client
    }

    /// Connects and says nothing.
    async fn dial(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.expect("the relay listens");
        stream.set_nodelay(true).expect("a TCP socket");
        let config =
            WebSocketConfig::default().read_buffer_size(BUFFER_BYTES).write_buffer_size(BUFFER_BYTES);
        let upgrade = client_async_with_config(format!("ws://{to}/ws"), stream, Some(config)).await;
        let (socket, _) = upgrade.expect("the relay speaks WebSocket");
        let (mouth, ear) = socket.split();
        Self { ear: Ear(ear), mouth: Mouth(mouth) }
    }

    pub(crate) async fn say(&mut self, frame: String) {
        self.mouth.say(frame).await;
    }

    pub(crate) async fn hear(&mut self) -> Utf8Bytes {
        self.ear.hear().await
    }

    /// The next frame of this type; others are passed over.
    pub(crate) async fn hear_only(&mut self, kind: &str) -> Utf8Bytes {
        loop {
            let frame = self.ear.hear().await;
            if kind_of(&frame) == kind {
                return frame;
            }
        }
    }

    /// For a reader and a writer that do not wait for each other.
    pub(crate) fn split(self) -> (Ear, Mouth) {
        (self.ear, self.mouth)
    }
}

impl Ear {
    /// The next frame. An error or the end of the connection ends the bench.
    pub(crate) async fn hear(&mut self) -> Utf8Bytes {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(frame))) => {
                    assert_ne!(kind_of(&frame), "error", "the relay refuses: {frame}");
                    return frame;
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("the relay ended the connection: {other:?}"),
            }
        }
    }
}

impl Mouth {
    pub(crate) async fn say(&mut self, frame: String) {
        self.0.send(Message::text(frame)).await.expect("the relay listens");
    }

    /// Leaves the frame in the buffer, where others join it, unless that is full.
    pub(crate) async fn begin(&mut self, frame: String) {
        self.0.feed(Message::text(frame)).await.expect("the relay listens");
    }

    pub(crate) async fn flush(&mut self) {
        self.0.flush().await.expect("the relay listens");
    }
}

/// The frame's type, found without parsing.
pub(crate) fn kind_of(frame: &str) -> &str {
    text_of(frame, "\"type\":\"")
}

/// What stands behind `key` (quotes, colon and quote included) up to the next quote.
pub(crate) fn text_of<'a>(frame: &'a str, key: &str) -> &'a str {
    let value = frame.split_once(key).map_or("", |(_, rest)| rest);
    value.split_once('"').map_or("", |(value, _)| value)
}

/// The acknowledgement of a message.
pub(crate) fn ack_of(message: &str) -> String {
    let msg_id = text_of(message, "\"msg_id\":\"");
    format!(r#"{{"type":"ack","msg_id":"{msg_id}"}}"#)
}

/// The n-th of a group of identities.
pub(crate) fn wayfarer(group: &str, number: usize) -> String {
    hex::encode(Sha256::digest(format!("{group}/{number}")))
}
