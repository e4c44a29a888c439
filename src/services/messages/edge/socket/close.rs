//! How a connection ends: by the client's goodbye, by ours, or because nothing more can be read from it.

use std::time::Duration;

use futures_util::SinkExt as _;
use tokio::time::{sleep, timeout};

use super::Session;
use crate::http::{CloseCode, CloseFrame, MessageTooLong, SocketError, SocketMessage as Frame};
use crate::services::messages::edge::frame::ErrorCode;
use crate::services::messages::edge::refusal::Refusal;

/// How long a client has to take our goodbye, to take the refusal at the end of the hello time limit, and to read why its frame is
/// too long.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a session is over.
#[derive(Debug, Clone, Copy)]
pub(super) enum SessionEnd {
    /// The connection is gone, or its client was told all there is to say.
    Disconnected,
    /// The client said goodbye.
    ClosedByClient,
    /// Nothing was heard of it for too long.
    TimedOut,
    /// It was told that it sent too long a frame.
    FrameTooLong,
    /// The relay stops.
    Shutdown,
}

impl Session {
    /// Nothing can be read from here on. A client that sent too long a frame is told its size and the limit.
    pub(super) async fn frame_error(&mut self, error: &SocketError) -> SessionEnd {
        let SocketError::Io(error) = error else { return SessionEnd::Disconnected };
        let too_long = error.get_ref().and_then(|error| error.downcast_ref::<MessageTooLong>());
        let Some(&MessageTooLong { size: value, limit }) = too_long else { return SessionEnd::Disconnected };
        let when = if self.identity.is_some() { "" } else { " before hello" };
        let message = format!("a frame has {value} bytes; at most {limit} are allowed{when}");
        let refusal = Refusal::limit_exceeded(ErrorCode::PayloadTooLarge, "frame", message, limit, value);
        self.refuse(refusal).await.err().unwrap_or(SessionEnd::FrameTooLong)
    }

    /// Says goodbye, as far as the client takes it.
    pub(super) async fn close(&mut self, end: SessionEnd) {
        match end {
            SessionEnd::Disconnected => {}
            // The library has the answer ready (RFC 6455, 5.5.1), and sends it with whatever is sent next. Without it many a
            // client takes its own end for a failure.
            SessionEnd::ClosedByClient => {
                let _ = timeout(CLOSE_TIMEOUT, self.socket.flush()).await;
            }
            SessionEnd::TimedOut => {
                self.send_close(CloseCode::Away, "nothing was heard for too long, not even a pong").await;
            }
            SessionEnd::FrameTooLong => {
                self.send_close(CloseCode::Size, "the frame is too long").await;
                // What he still sends is not read: hanging up now would take the words away before he has read them.
                sleep(CLOSE_TIMEOUT).await;
            }
            SessionEnd::Shutdown => self.send_close(CloseCode::Away, "the relay stops").await,
        }
    }

    async fn send_close(&mut self, code: CloseCode, reason: &'static str) {
        let frame = CloseFrame { code, reason: reason.into() };
        let _ = timeout(CLOSE_TIMEOUT, self.socket.send(Frame::Close(Some(frame)))).await;
    }
}
