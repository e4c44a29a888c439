//! The service `vanisher`: carries requests to vanish (NIP-62) out by erasure, where `services.ingest.vanish` is `honour`.
//!
//! Signatures were verified before the requests were stored. One process works at a time, by lease; should two meet, the second finds
//! each request carried out, because its id is its erasure's identity. A crash in between leaves a request open: nothing of it was done.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::lifecycle::{Cycle, Service};
use crate::services::archive::read::{VanishRequest, open_vanish_requests};
use crate::store::lease::Leases;
use crate::store::leave::{self, ErasureSubject};
use crate::store::{Doors, Error};

/// How long one request's erasure keeps the lease; renewed before each.
const LEASE: Duration = Duration::from_mins(1);

/// Requests read at once.
const AT_ONCE: i64 = 100;

/// Erases what vanished keys have signed, with the owner's door.
#[derive(Debug)]
pub struct Vanisher {
    /// The database.
    pub doors: Doors,
    /// So that one process does it.
    pub leases: Leases,
    /// Where this archive is reached: requests to one of these, or to all relays, are carried out.
    pub own_urls: Vec<String>,
}

impl Service for Vanisher {
    type Error = Error;

    fn name(&self) -> &'static str {
        "vanisher"
    }

    async fn cycle(&self, drain: &CancellationToken) -> Result<Cycle, Error> {
        let open = open_vanish_requests(&self.doors.session, &self.own_urls, AT_ONCE).await?;
        if open.is_empty() {
            return Ok(Cycle::Idle);
        }
        let work = ["vanisher".to_owned()];
        for request in &open {
            let is_ours = !self.leases.take(&work, LEASE).await?.is_empty();
            if drain.is_cancelled() || !is_ours {
                return Ok(Cycle::Idle);
            }
            self.carry_out(request).await?;
        }
        self.leases.give_back(&work).await?;
        Ok(Cycle::More)
    }
}

impl Vanisher {
    async fn carry_out(&self, request: &VanishRequest) -> Result<(), Error> {
        let VanishRequest { id, pubkey, created_at } = *request;
        let subject = ErasureSubject::Vanish { request: id, pubkey, until: created_at };
        let reason = "the key asked to vanish (NIP-62)";
        let left = leave::erase(&self.doors.urls().owner, subject, reason).await?;
        tracing::info!(
            request = hex::encode(id),
            "a request to vanish was carried out: {} events and {} sightings left",
            left.events,
            left.sightings
        );
        Ok(())
    }
}
