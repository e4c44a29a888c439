//! Errors of a relay session.

use std::time::Duration;

use thiserror::Error;
use tokio_tungstenite::tungstenite;

use super::MESSAGE_BYTES_MAX;
use crate::net::DialError;
use crate::net::remote_text::sanitize;

/// Why a session, or one request in it, failed.
#[derive(Debug, Clone, Error)]
pub enum RelayError {
    /// The connection could not be opened.
    #[error("cannot connect: {0}")]
    Connect(#[from] DialError),
    /// The server does not speak WebSocket.
    #[error("cannot connect: {0}")]
    NotARelay(String),
    /// The connection was lost. Ends the session.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The relay sent nothing for too long, or did not read what was sent to it. Ends the session.
    #[error("the relay sent nothing for {0:?} while a response was pending")]
    Silent(Duration),
    /// A response arrived too slowly and was not complete in time.
    #[error("a response was not complete within {0:?}")]
    Slow(Duration),
    /// The relay refused the request, or ended the live subscription.
    #[error("the relay closed the subscription: {0}")]
    Closed(String),
    /// A message is longer than allowed. Ends the session.
    #[error("a message of more than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The relay sent more than was requested, or more than is buffered. Ends the session.
    #[error("the relay sent more than was requested or can be buffered")]
    Flooded,
    /// The relay sent no challenge to answer (NIP-42).
    #[error("the relay sent no challenge")]
    NoChallenge,
    /// The relay refused the key (NIP-42).
    #[error("the relay refused the authentication: {0}")]
    AuthRefused(String),
    /// The relay supports NIP-77 but refused this filter.
    #[error("the relay refused to reconcile: {0}")]
    NegRefused(String),
    /// The relay does not support NIP-77.
    #[error("the relay does not support reconciliation (NIP-77)")]
    NegUnsupported,
}

impl RelayError {
    /// Short constant name, for metrics and journals.
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

    /// Converts an error of the WebSocket library.
    pub(super) fn broken(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Capacity(tungstenite::error::CapacityError::MessageTooLong { .. }) => {
                Self::TooLarge { limit: MESSAGE_BYTES_MAX }
            }
            other => Self::Lost(sanitize(&other.to_string())),
        }
    }
}
