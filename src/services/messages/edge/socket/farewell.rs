//! What is said to a client from which nothing more can be read.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message as Frame, close_code};
use tokio::time::sleep;
use tungstenite::error::{CapacityError, Error as WireError};

use super::{Ended, Session};
use crate::lifecycle::beside;
use crate::services::messages::edge::desk::Refused;
use crate::services::messages::edge::frame::ErrorCode;

/// How long a client that sent too long a frame has to read what it is told.
const FAREWELL: Duration = Duration::from_secs(1);

impl Session {
    /// Nothing can be read from here on. Whoever sent too much is told, as far as he listens while he sends.
    pub(super) async fn unreadable(&mut self, error: axum::Error) -> Ended {
        let error = error.into_inner();
        if let Some(WireError::Capacity(CapacityError::MessageTooLong { size, max_size })) =
            error.downcast_ref()
        {
            let (limit, value) = (*max_size as u64, *size as u64);
            let message = format!("a frame has {value} bytes; at most {limit} are allowed");
            let refused = Refused::over(ErrorCode::PayloadTooLarge, "frame", message, limit, value);
            let frame = CloseFrame { code: close_code::SIZE, reason: "the frame is too long".into() };
            if self.refuse(&refused).await.is_ok() && self.put(Frame::Close(Some(frame))).await.is_ok() {
                // What he still sends is not read: closing now would take the words away before he has read them.
                beside(sleep(FAREWELL), &mut self.asked, &mut self.answered).await;
            }
        }
        Ended
    }
}
