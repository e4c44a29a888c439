//! Well-formed and malformed WebSocket frames.

use futures_util::SinkExt as _;
use nostr_sdk::SubscriptionId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{self, Message};

use super::corpus::Stored;

/// Size of a frame that a client should not buffer: 20 MB.
const LARGE: usize = 20_000_000;
/// Size of each fragment of an endless message.
const PIECE: usize = 1 << 16;

/// The EVENT message of a stored event.
pub(super) fn event(id: &SubscriptionId, stored: &Stored) -> Message {
    // Assembled as text, so that the event stays exactly as it was signed.
    Message::text(format!("[\"EVENT\",{},{}]", serde_json::Value::from(id.as_str()), stored.json))
}

/// The EOSE message.
pub(super) fn eose(id: &SubscriptionId) -> Message {
    Message::text(serde_json::json!(["EOSE", id.as_str()]).to_string())
}

/// An EVENT message of 20 MB.
pub(super) fn large(id: &SubscriptionId) -> Message {
    let mut text = format!("[\"EVENT\",{},{{\"content\":\"", serde_json::Value::from(id.as_str()));
    text.extend(std::iter::repeat_n('x', LARGE));
    text.push_str("\"}]");
    Message::text(text)
}

/// Sends EVENT messages without an event for as long as the client reads.
pub(super) async fn flood<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    id: &SubscriptionId,
) -> tungstenite::Result<()> {
    let frame = serde_json::json!(["EVENT", id.as_str(), {}]).to_string();
    loop {
        socket.send(Message::text(frame.as_str())).await?;
    }
}

/// Sends a message without a final fragment until the client disconnects.
pub(super) async fn endless<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    id: &SubscriptionId,
) -> tungstenite::Result<()> {
    let begin = format!("[\"EVENT\",{},{{\"content\":\"", serde_json::Value::from(id.as_str()));
    let first = Frame::message(begin, OpCode::Data(Data::Text), false);
    socket.send(Message::Frame(first)).await?;
    loop {
        let more = Frame::message(vec![b'x'; PIECE], OpCode::Data(Data::Continue), false);
        socket.send(Message::Frame(more)).await?;
    }
}
