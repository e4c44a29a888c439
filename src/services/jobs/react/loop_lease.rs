//! Some loops run in one process at a time; a lease decides in which.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::store::Error;
use crate::store::lease::Leases;

/// Length of a lease. If its process dies, another one takes over after this time.
const LENGTH: Duration = Duration::from_secs(15);

/// The lease of one loop. It is renewed when a third of it is over.
#[derive(Debug)]
pub(super) struct LoopLease {
    leases: Leases,
    name: &'static str,
    held_until: Mutex<Option<Instant>>,
}

impl LoopLease {
    /// A lease of this name that is not held.
    pub(super) fn new(leases: Leases, name: &'static str) -> Self {
        Self { leases, name, held_until: Mutex::default() }
    }

    /// Whether this process holds the lease.
    pub(super) async fn is_held(&self) -> Result<bool, Error> {
        let now = Instant::now();
        let held_until = *self.held_until.lock().unwrap_or_else(PoisonError::into_inner);
        if held_until.is_some_and(|until| now + LENGTH * 2 / 3 < until) {
            return Ok(true);
        }
        let is_held = !self.leases.take(&[self.name.to_owned()], LENGTH).await?.is_empty();
        *self.held_until.lock().unwrap_or_else(PoisonError::into_inner) = is_held.then(|| now + LENGTH);
        Ok(is_held)
    }
}
