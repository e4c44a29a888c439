//! Adopts the blobs that followed keys refer to: finds each at an upstream, at the URLs at which events name it or at its
//! author's servers, verifies it and stores it under that key. Repair then copies it to the other upstreams.

mod search;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ReactParts;
use super::pace::Pace;
use super::references::followed;
use crate::lifecycle::{CycleOutcome, Service};
use crate::services::blossom::append::{BlobAnswer, BlobRefusal};
use crate::services::blossom::command::{BlobCommand, NewOwner, StoreBlob};
use crate::services::blossom::event::{Ownership, ReplicaState, Wanted};
use crate::services::blossom::metrics::AdoptionOutcome;
use crate::services::blossom::read;
use crate::store::Error;
use crate::store::lease::LoopLease;
use search::{Found, Search};

/// Who the journal says did it.
const ACTOR: &str = "guardian";

/// Wanted blobs that are looked at at a time.
const PAGE: i64 = 256;

/// Time after which a blob that was found nowhere is looked for again.
const MISSED_FOR: Duration = Duration::from_hours(24);

/// Least pause between two passes through all wanted blobs.
const PASS_EVERY: Duration = Duration::from_secs(5);

/// The loop that adopts.
#[derive(Debug)]
pub struct Guardian {
    parts: Arc<ReactParts>,
    pace: Mutex<Pace>,
}

impl Guardian {
    /// A loop that has not begun.
    #[must_use]
    pub fn new(parts: Arc<ReactParts>) -> Self {
        Self { parts, pace: Mutex::default() }
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes through all wanted blobs once. Returns whether anything was found.
    async fn pass(&self, drain: &CancellationToken) -> Result<bool, Error> {
        let (mut after, mut has_found_any) = (None, false);
        let followed = followed(&self.parts).await?;
        while !drain.is_cancelled() {
            let missed_s = MISSED_FOR.as_secs_f64();
            let page = read::wanted_page(&self.parts.pools, after, missed_s, PAGE).await?;
            let wanted = page.wanted.into_iter().filter(|wanted| followed.contains(&wanted.owner));
            let found = stream::iter(wanted)
                .map(|wanted| async move {
                    let adopting = drain.run_until_cancelled(self.adopt_alone(&wanted)).await;
                    Ok::<_, Error>(adopting.transpose()? == Some(true))
                })
                .buffer_unordered(self.parts.settings.repair_places.get())
                .try_fold(false, |any, found| async move { Ok(any || found) });
            has_found_any |= found.await?;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(has_found_any)
    }

    /// Adopts a blob if no other process does. Returns whether it did.
    async fn adopt_alone(&self, wanted: &Wanted) -> Result<bool, Error> {
        let name = format!("blossom/adopt/{}", wanted.sha256);
        let lease = LoopLease::new(self.parts.leases.clone(), name);
        let done = lease.hold(self.adopt(wanted)).await?.transpose()?;
        if done.is_some() {
            lease.release().await?;
        }
        Ok(done == Some(true))
    }

    async fn adopt(&self, wanted: &Wanted) -> Result<bool, Error> {
        let mut search = Search::new(&self.parts, wanted);
        let (found, outcome) = match self.known(wanted).await? {
            Some(found) => (Some(found), AdoptionOutcome::Known),
            None => (search.find().await?, AdoptionOutcome::Adopted),
        };
        let sha256 = wanted.sha256;
        let Some(found) = found else {
            let Search { last, has_other_bytes, is_ours, .. } = search;
            let why = last.unwrap_or_else(|| "no event names a place, and no upstream has it".to_owned());
            if is_ours {
                tracing::warn!(blob = %sha256, "{sha256} is not adopted yet: {why}");
                return Ok(false);
            }
            let outcome = if has_other_bytes { AdoptionOutcome::OtherBytes } else { AdoptionOutcome::Missed };
            self.parts.metrics.adopted(outcome);
            self.parts.journal.append(BlobCommand::Missed { sha256, why }).await?;
            return Ok(false);
        };
        let settings = &self.parts.settings;
        let limit = |most: u64| i64::try_from(most).ok().filter(|most| *most > 0);
        let owner = NewOwner {
            pubkey: wanted.owner,
            how: Ownership::Adopted,
            origin: found.origin,
            bytes_max: limit(settings.key_bytes_max),
            blobs_max: limit(settings.key_blobs_max),
        };
        let events: Vec<_> =
            found.results.iter().map(|result| (result.upstream.clone(), result.event)).collect();
        let store = StoreBlob {
            facts: found.facts,
            owner: Some(owner),
            results: found.results,
            actor: ACTOR.to_owned(),
        };
        let answer = self.parts.journal.append(BlobCommand::Store(store)).await?;
        for (name, event) in events {
            if let Some(upstream) = self.parts.upstreams.named(&name) {
                upstream.count_recorded(event);
            }
        }
        if let BlobAnswer::Refused(refusal) = answer {
            self.parts.metrics.adopted(AdoptionOutcome::Refused);
            let why = match refusal {
                BlobRefusal::Banned { why } => format!("it is banned: {why}"),
                BlobRefusal::OverBytes { max } => format!("the key may own {max} bytes"),
                BlobRefusal::OverBlobs { max } => format!("the key may own {max} blobs"),
            };
            self.parts.journal.append(BlobCommand::Missed { sha256, why }).await?;
            return Ok(false);
        }
        self.parts.metrics.adopted(outcome);
        Ok(true)
    }

    /// A blob that is here already, for another owner.
    async fn known(&self, wanted: &Wanted) -> Result<Option<Found>, Error> {
        let Some(blob) = read::look_up(&self.parts.pools, &wanted.sha256).await?.blob else {
            return Ok(None);
        };
        let names = blob.replicas.iter().filter(|replica| replica.state == ReplicaState::Readable);
        let is_here =
            names.map(|replica| &replica.upstream).any(|name| self.parts.upstreams.named(name).is_some());
        Ok(is_here.then(|| Found { facts: blob.facts, results: Vec::new(), origin: None }))
    }
}

impl Service for Guardian {
    type Error = Error;

    fn name(&self) -> &'static str {
        "blossom guardian"
    }

    async fn cycle(&self, drain: &CancellationToken) -> Result<CycleOutcome, Error> {
        let is_due = self.pace().is_due();
        if !is_due {
            return Ok(CycleOutcome::Idle);
        }
        let began = Instant::now();
        let has_found_any = self.pass(drain).await?;
        self.pace().passed(began, PASS_EVERY);
        if has_found_any {
            self.pace().hurry();
        }
        Ok(CycleOutcome::Idle)
    }
}
