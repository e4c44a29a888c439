//! Frames as they go on the wire, good ones and bad ones.

use futures_util::SinkExt as _;
use nostr_sdk::SubscriptionId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{self, Message};

use super::corpus::Stored;

/// Size of a frame that no reader should keep: 20 MB.
const LARGE: usize = 20_000_000;
/// Size of each piece of a message without end.
const PIECE: usize = 1 << 16;

/// The frame that shows an event.
pub(super) fn event(id: &SubscriptionId, stored: &Stored) -> Message {
    // Not through a JSON value: the text stays as it was signed.
    Message::text(format!("[\"EVENT\",{},{}]", serde_json::Value::from(id.as_str()), stored.json))
}

/// The end of the stored events.
pub(super) fn eose(id: &SubscriptionId) -> Message {
    Message::text(serde_json::json!(["EOSE", id.as_str()]).to_string())
}

/// Something that may be an event, of 20 MB.
pub(super) fn large(id: &SubscriptionId) -> Message {
    let mut text = format!("[\"EVENT\",{},{{\"content\":\"", serde_json::Value::from(id.as_str()));
    text.extend(std::iter::repeat_n('x', LARGE));
    text.push_str("\"}]");
    Message::text(text)
}

/// Frames that are no events, as many as the client takes.
pub(super) async fn flood<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    id: &SubscriptionId,
) -> tungstenite::Result<()> {
    let frame = serde_json::json!(["EVENT", id.as_str(), {}]).to_string();
    loop {
        socket.send(Message::text(frame.as_str())).await?;
    }
}

/// A message whose last piece never comes; ends when the client does.
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
