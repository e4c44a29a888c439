//! Ends a connection: after a close frame of the client, with a close frame of ours, or without one when the
//! socket is unusable.

use std::time::Duration;

use futures_util::SinkExt as _;
use tokio::time::{sleep, timeout};

use super::Session;
use crate::http::{CloseCode, CloseFrame, MessageTooLong, SocketError, SocketMessage as Frame};
use crate::services::messages::edge::frame::ErrorCode;
use crate::services::messages::edge::refusal::Refusal;

/// How long a client may take to accept our close frame, to accept the refusal at the end of the hello time
/// limit, and to read why its frame is too long.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a session ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum SessionEnd {
    /// The connection is lost, or the client has been sent its last refusal. No close frame is sent.
    Disconnected,
    /// The client sent a close frame.
    ClosedByClient,
    /// No frame arrived within two ping intervals.
    TimedOut,
    /// The client sent a frame that is too long and has been sent a refusal.
    FrameTooLong,
    /// The relay shuts down.
    Shutdown,
}

impl Session {
    /// Handles a read error, after which the socket cannot be read any more. The error frame
    /// for a frame that is too long names its size and the limit.
    pub(super) async fn frame_error(&mut self, error: &SocketError) -> SessionEnd {
        let SocketError::Io(error) = error else { return SessionEnd::Disconnected };
        let too_long = error.get_ref().and_then(|error| error.downcast_ref::<MessageTooLong>());
        let Some(&MessageTooLong { size: value, limit }) = too_long else { return SessionEnd::Disconnected };
        let when = if self.identity.is_some() { "" } else { " before hello" };
        let message = format!("a frame has {value} bytes; at most {limit} are allowed{when}");
        let refusal = Refusal::limit_exceeded(ErrorCode::PayloadTooLarge, "frame", message, limit, value);
        self.refuse(refusal).await.err().unwrap_or(SessionEnd::FrameTooLong)
    }

    /// Closes the connection with a close frame where one is due.
    pub(super) async fn close(&mut self, end: SessionEnd) {
        match end {
            SessionEnd::Disconnected => {}
            // The library has queued the answering close frame (RFC 6455, 5.5.1) and sends it with the next
            // write or flush. Many clients report a failure if it is missing.
            SessionEnd::ClosedByClient => {
                let _ = timeout(CLOSE_TIMEOUT, self.socket.flush()).await;
            }
            SessionEnd::TimedOut => {
                self.send_close(
                    CloseCode::Away,
                    "no frame was received for two ping intervals, not even a pong",
                )
                .await;
            }
            SessionEnd::FrameTooLong => {
                self.send_close(CloseCode::Size, "the frame is too long").await;
                // The socket stays open without being read: closing it with unread data would reset the
                // connection, and the client could lose the refusal.
                sleep(CLOSE_TIMEOUT).await;
            }
            SessionEnd::Shutdown => self.send_close(CloseCode::Away, "the relay is shutting down").await,
        }
    }

    async fn send_close(&mut self, code: CloseCode, reason: &'static str) {
        let frame = CloseFrame { code, reason: reason.into() };
        let _ = timeout(CLOSE_TIMEOUT, self.socket.send(Frame::Close(Some(frame)))).await;
    }
}
