//! Errors of the synchronizer.

use std::num::TryFromIntError;

use tokio::task::JoinError;

use crate::lifecycle::Panicked;
use crate::net::relay::RelayError;
use crate::store;

/// Reason why a round of the synchronizer or one session failed.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The relay failed.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// Another process holds the relay's lease now.
    #[error("the lease was lost to another process")]
    LeaseLost,
    /// A count does not fit its integer type.
    #[error(transparent)]
    Count(#[from] TryFromIntError),
    /// The events of a window cannot be compared (NIP-77).
    #[error("the events of a window cannot be compared: {0}")]
    Comparison(negentropy::Error),
    /// A message over the size limit ended the session; the window that holds it was narrowed.
    #[error("the relay sent a message over the size limit; the next session narrows down where it lies")]
    Narrowed,
    /// The relay sent far more invalid events than valid ones.
    #[error("the relay sent {invalid} invalid events and only {valid} valid ones")]
    MostlyRefused {
        /// Events that could not be parsed, or whose id or signature is wrong.
        invalid: u64,
        /// Events that were stored, now or before.
        valid: u64,
    },
    /// A task of a session was aborted or panicked.
    #[error("a task of a session was lost: {0}")]
    Session(JoinError),
    /// A session panicked, which is a bug in this program.
    #[error("the session {0}")]
    Panicked(#[from] Panicked),
}
