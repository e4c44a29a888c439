//! How a connection ends: by the client's goodbye, by ours, or because nothing more can be read from it.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message as Frame, close_code};
use futures_util::SinkExt as _;
use tokio::time::{sleep, timeout};
use tungstenite::error::{CapacityError, Error as WireError};

use super::Session;
use crate::services::messages::edge::desk::Refused;
use crate::services::messages::edge::frame::ErrorCode;

/// How long a client has to take our goodbye, and whoever sent too long a frame to read what it is told.
const FAREWELL: Duration = Duration::from_secs(1);

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
    /// Nothing can be read from here on. Whoever sent too much is told, as far as he listens while he sends.
    pub(super) async fn unreadable(&mut self, error: axum::Error) -> Ended {
        let error = error.into_inner();
        let Some(WireError::Capacity(CapacityError::MessageTooLong { size, max_size })) =
            error.downcast_ref()
        else {
            return Ended::Gone;
        };
        let (limit, value) = (*max_size as u64, *size as u64);
        let message = format!("a frame has {value} bytes; at most {limit} are allowed");
        let refused = Refused::over(ErrorCode::PayloadTooLarge, "frame", message, limit, value);
        self.refuse(&refused).await.err().unwrap_or(Ended::TooLong)
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
                self.close(close_code::AWAY, "nothing was heard for too long, not even a pong").await;
            }
            Ended::TooLong => {
                self.close(close_code::SIZE, "the frame is too long").await;
                // What he still sends is not read: hanging up now would take the words away before he has read them.
                sleep(FAREWELL).await;
            }
            Ended::Stopped => self.close(close_code::AWAY, "the relay stops").await,
        }
    }

    async fn close(&mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame { code, reason: reason.into() };
        let _ = timeout(FAREWELL, self.socket.send(Frame::Close(Some(frame)))).await;
    }
}
