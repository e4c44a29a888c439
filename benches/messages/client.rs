//! A client with little overhead: frames are rendered by the caller, and received frames are recognised by
//! their `type` without parsing.

use std::net::SocketAddr;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// Buffers of a connection, small because a helper holds ten thousand connections; a frame has half a KiB.
const BUFFER_BYTES: usize = 4 * 1_024;

/// An accepted connection.
pub(crate) struct Client {
    reader: Reader,
    writer: Writer,
}

/// The receiving half.
pub(crate) struct Reader(SplitStream<WebSocketStream<TcpStream>>);

/// The sending half.
pub(crate) struct Writer(SplitSink<WebSocketStream<TcpStream>, Message>);

impl Client {
    /// Connects as `wayfarer` with the device `d1` and waits until the relay accepts it.
    pub(crate) async fn connect(to: SocketAddr, wayfarer: &str) -> Self {
        let mut client = Self::open(to).await;
        let hello = format!(r#"{{"type":"hello","wayfarer_id":"{wayfarer}","device_id":"d1"}}"#);
        client.send(hello).await;
        client.next_of_type("hello_ok").await;
        client
    }

    /// Connects without sending a frame.
    async fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.expect("the relay listens");
        stream.set_nodelay(true).expect("a TCP socket");
        let config =
            WebSocketConfig::default().read_buffer_size(BUFFER_BYTES).write_buffer_size(BUFFER_BYTES);
        let upgrade = client_async_with_config(format!("ws://{to}/ws"), stream, Some(config)).await;
        let (socket, _) = upgrade.expect("the relay speaks WebSocket");
        let (writer, reader) = socket.split();
        Self { reader: Reader(reader), writer: Writer(writer) }
    }

    pub(crate) async fn send(&mut self, frame: String) {
        self.writer.send(frame).await;
    }

    pub(crate) async fn next_frame(&mut self) -> Utf8Bytes {
        self.reader.next_frame().await
    }

    /// The next frame of this type; others are skipped.
    pub(crate) async fn next_of_type(&mut self, kind: &str) -> Utf8Bytes {
        loop {
            let frame = self.reader.next_frame().await;
            if kind_of(&frame) == kind {
                return frame;
            }
        }
    }

    /// Splits the client into halves that do not wait for each other.
    pub(crate) fn split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }
}

impl Reader {
    /// The next frame. An error frame or the end of the connection ends the benchmark.
    pub(crate) async fn next_frame(&mut self) -> Utf8Bytes {
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

impl Writer {
    pub(crate) async fn send(&mut self, frame: String) {
        self.0.send(Message::text(frame)).await.expect("the relay listens");
    }

    /// Puts a frame into the write buffer without flushing it, unless the buffer is full.
    pub(crate) async fn feed(&mut self, frame: String) {
        self.0.feed(Message::text(frame)).await.expect("the relay listens");
    }

    pub(crate) async fn flush(&mut self) {
        self.0.flush().await.expect("the relay listens");
    }
}

/// The `type` of a frame, found without parsing.
pub(crate) fn kind_of(frame: &str) -> &str {
    text_of(frame, "\"type\":\"")
}

/// The text after `key` (which includes quotes, colon and opening quote) up to the next quote.
pub(crate) fn text_of<'a>(frame: &'a str, key: &str) -> &'a str {
    let value = frame.split_once(key).map_or("", |(_, rest)| rest);
    value.split_once('"').map_or("", |(value, _)| value)
}

/// The frame that acknowledges a message.
pub(crate) fn ack_of(message: &str) -> String {
    let msg_id = text_of(message, "\"msg_id\":\"");
    format!(r#"{{"type":"ack","msg_id":"{msg_id}"}}"#)
}

/// The `wayfarer_id` with this number in a group.
pub(crate) fn wayfarer(group: &str, number: usize) -> String {
    hex::encode(Sha256::digest(format!("{group}/{number}")))
}
