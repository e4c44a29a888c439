//! The service `vanisher`: carries out requests to vanish (NIP-62) by erasure, if `services.ingest.vanish` is
//! `honour`.
//!
//! Signatures were verified before the requests were stored. One process works at a time, by lease. If two
//! overlap, the second finds each request carried out, because the id of the request identifies the erasure.
//! A crash leaves the request open and nothing of it done.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::lifecycle::{CycleOutcome, Service, SetAside, guarded};
use crate::services::archive::read::{VanishRequest, open_vanish_requests};
use crate::store::lease::Leases;
use crate::store::removal::{self, ErasureSubject};
use crate::store::{Error, Pools};

/// Duration of the lease, renewed before each request.
const LEASE: Duration = Duration::from_mins(1);

/// Requests per query.
const AT_ONCE: i64 = 100;

/// First and longest pause after a request that could not be carried out.
const ASIDE: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(6));

/// Most requests remembered as set aside.
const ASIDE_MAX: usize = 1_000;

/// The service `vanisher`. It erases as the owner of the database.
#[derive(Debug)]
pub struct Vanisher {
    pools: Pools,
    leases: Leases,
    own_urls: Vec<String>,
    aside: Mutex<SetAside<[u8; 32]>>,
}

impl Service for Vanisher {
    type Error = Error;

    fn name(&self) -> &'static str {
        "vanisher"
    }

    async fn cycle(&self, drain: &CancellationToken) -> Result<CycleOutcome, Error> {
        let not: Vec<Vec<u8>> = self.aside().now(Instant::now()).map(|id| id.to_vec()).collect();
        let open = open_vanish_requests(&self.pools.session, &self.own_urls, &not, AT_ONCE).await?;
        if open.is_empty() {
            return Ok(CycleOutcome::Idle);
        }
        let work = ["vanisher".to_owned()];
        for request in &open {
            let holds_lease = !self.leases.take(&work, LEASE).await?.is_empty();
            if drain.is_cancelled() || !holds_lease {
                return Ok(CycleOutcome::Idle);
            }
            let name = hex::encode(request.id);
            let reason = match guarded("vanish_request", &name, self.carry_out(request)).await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) if error.is_outage() => return Err(error),
                Ok(Err(error)) => error.to_string(),
                Err(panicked) => panicked.to_string(),
            };
            self.aside().failed(request.id, &name, &reason, Instant::now());
        }
        self.leases.release(&work).await?;
        Ok(CycleOutcome::More)
    }
}

impl Vanisher {
    /// Creates the vanisher. `leases` makes one process work at a time. `own_urls` are the URLs of this
    /// archive: requests to one of these or to all relays are carried out.
    #[must_use]
    pub fn new(pools: Pools, leases: Leases, own_urls: Vec<String>) -> Self {
        let aside = Mutex::new(SetAside::new("vanish_request", ASIDE.0, ASIDE.1, ASIDE_MAX));
        Self { pools, leases, own_urls, aside }
    }

    fn aside(&self) -> MutexGuard<'_, SetAside<[u8; 32]>> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn carry_out(&self, request: &VanishRequest) -> Result<(), Error> {
        let VanishRequest { id, pubkey, created_at } = *request;
        let subject = ErasureSubject::Vanish { request: id, pubkey, until: created_at };
        let reason = "the key asked to vanish (NIP-62)";
        let left = removal::erase(self.pools.urls().owner()?, subject, reason).await?;
        tracing::info!(request = hex::encode(id), "a request to vanish was carried out: {left} were removed");
        Ok(())
    }
}
