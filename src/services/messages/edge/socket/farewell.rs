//! How a connection ends: by the client's goodbye, by ours, or because nothing more can be read from it.

use std::time::Duration;

use futures_util::SinkExt as _;
use tokio::time::{sleep, timeout};

use super::Session;
use crate::http::{CloseCode, CloseFrame, MessageTooLong, SocketError, SocketMessage as Frame};
use crate::services::messages::edge::frame::ErrorCode;
use crate::services::messages::edge::refused::Refused;

/// How long a client has to take our goodbye, to take the refusal at the end of the hello time limit, and to read why its frame is
/// too long.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);

/// Why a session is over.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ended {
    /// The connection is gone, or its client was told all there is to say.
    Gone,
    /// The client said goodbye.
    Left,
    /// Nothing was heard of it for too long.
    Silent,
    /// It was told that it sent too long a frame.
    TooLong,
    /// The relay stops.
    Stopped,
}

impl Session {
    /// Nothing can be read from here on. A client that sent too long a frame is told its size and the limit.
    pub(super) async fn unreadable(&mut self, error: &SocketError) -> Ended {
        let SocketError::Io(error) = error else { return Ended::Gone };
        let too_long = error.get_ref().and_then(|error| error.downcast_ref::<MessageTooLong>());
        let Some(&MessageTooLong { size: value, limit }) = too_long else { return Ended::Gone };
        let when = if self.who.is_some() { "" } else { " before hello" };
        let message = format!("a frame has {value} bytes; at most {limit} are allowed{when}");
        let refused = Refused::over(ErrorCode::PayloadTooLarge, "frame", message, limit, value);
        self.refuse(refused).await.err().unwrap_or(Ended::TooLong)
    }

    /// Says goodbye, as far as the client takes it.
    pub(super) async fn part(&mut self, ended: Ended) {
        match ended {
            Ended::Gone => {}
            // The library has the answer ready (RFC 6455, 5.5.1), and sends it with whatever is sent next. Without it many a
            // client takes its own end for a failure.
            Ended::Left => {
                let _ = timeout(FAREWELL, self.socket.flush()).await;
            }
            Ended::Silent => {
                self.close(CloseCode::Away, "nothing was heard for too long, not even a pong").await;
            }
            Ended::TooLong => {
                self.close(CloseCode::Size, "the frame is too long").await;
                // What he still sends is not read: hanging up now would take the words away before he has read them.
                sleep(FAREWELL).await;
            }
            Ended::Stopped => self.close(CloseCode::Away, "the relay stops").await,
        }
    }

    async fn close(&mut self, code: CloseCode, reason: &'static str) {
        let frame = CloseFrame { code, reason: reason.into() };
        let _ = timeout(FAREWELL, self.socket.send(Frame::Close(Some(frame)))).await;
    }
}
