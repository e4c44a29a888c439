//! Why a session, or one question of it, failed.

use std::time::Duration;

use thiserror::Error;
use tokio_tungstenite::tungstenite;

use super::handshake::MESSAGE_BYTES_MAX;
use crate::net::DialError;
use crate::net::error::words;

/// Why a session, or one question of it, failed.
#[derive(Debug, Clone, Error)]
pub enum RelayError {
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(#[from] DialError),
    /// Whoever listens there does not speak WebSocket.
    #[error("cannot connect: {0}")]
    NotARelay(String),
    /// The connection was lost in the middle.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// Nothing came for too long.
    #[error("silent for {0:?} in the middle of an answer")]
    Silent(Duration),
    /// An answer came bit by bit, and not to its end in time.
    #[error("an answer was not complete within {0:?}")]
    Slow(Duration),
    /// The relay refused the question, or ended the live subscription.
    #[error("the relay closed the subscription: {0}")]
    Closed(String),
    /// One message is longer than any may be. The session is over.
    #[error("a message of more than {limit} bytes")]
    TooLarge {
        /// The bound.
        limit: usize,
    },
    /// More came than anybody asked for, or than is kept aside. The session is over.
    #[error("more was sent than can be kept")]
    Flooded,
    /// The relay sent no challenge that could be answered (NIP-42).
    #[error("the relay sent no challenge")]
    NoChallenge,
    /// The relay refuses this key (NIP-42).
    #[error("the relay refused the authentication: {0}")]
    AuthRefused(String),
    /// The relay speaks NIP-77, but not about this.
    #[error("the relay refused to reconcile: {0}")]
    NegRefused(String),
    /// The relay does not speak NIP-77.
    #[error("the relay does not reconcile")]
    NegUnsupported,
}

impl RelayError {
    /// A short constant word, for metrics and journals.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Connect(error) => error.reason(),
            Self::NotARelay(_) => "not_a_relay",
            Self::Lost(_) => "lost",
            Self::Silent(_) => "silent",
            Self::Slow(_) => "slow",
            Self::Closed(_) => "closed",
            Self::TooLarge { .. } => "frame_too_large",
            Self::Flooded => "flooded",
            Self::NoChallenge => "no_challenge",
            Self::AuthRefused(_) => "auth_refused",
            Self::NegRefused(_) => "negentropy_refused",
            Self::NegUnsupported => "negentropy_unsupported",
        }
    }

    /// The WebSocket library's error in our words.
    pub(super) fn broken(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Capacity(tungstenite::error::CapacityError::MessageTooLong { .. }) => {
                Self::TooLarge { limit: MESSAGE_BYTES_MAX }
            }
            other => Self::Lost(words(&other.to_string())),
        }
    }
}
