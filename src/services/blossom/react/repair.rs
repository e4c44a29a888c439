//! Copies blobs that have too few copies, the rarest first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ReactParts;
use super::check::{Finding, check_replica, record};
use super::copying::{Attempt, Copied, CopyError, copy_blob};
use super::pace::Pace;
use crate::base::Sha256;
use crate::lifecycle::{CycleOutcome, Service};
use crate::services::blossom::command::ReplicaResult;
use crate::services::blossom::decide::authorization::{Credential, Verb};
use crate::services::blossom::decide::repair::{Place, Plan, order, pause_after, plan};
use crate::services::blossom::event::{BlobFacts, KnownBlob, LookUp, Proof, ReplicaEvent, UnderReplicated};
use crate::services::blossom::metrics::RepairOutcome;
use crate::services::blossom::read::{self, RepairQuestion};
use crate::services::blossom::upstream::Upstream;
use crate::store::Error;
use crate::store::lease::LoopLease;

/// Blobs read from the database at a time.
const PAGE: i64 = 256;

/// Failures that are remembered; without its failure a copy is tried again in the next pass.
const FAILURES_MAX: usize = 100_000;

/// Least pause between two passes that found nothing to do.
const PASS_EVERY: Duration = Duration::from_secs(1);

/// The loop that repairs.
#[derive(Debug)]
pub struct Repair {
    parts: Arc<ReactParts>,
    /// The only upstream that gets copies.
    only: Option<String>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Failed copies by blob and taker: how often in a row, and when it is tried again. The taker is empty where no copy
    /// could be read.
    failures: HashMap<(Sha256, String), (u32, Instant)>,
    pace: Pace,
    /// The upstreams that were available in the last pass.
    available: Vec<String>,
}

/// What was done for one blob.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Upstreams that have a copy now.
    pub copied: Vec<String>,
    /// Why copies are missing still.
    pub failed: Vec<String>,
}

impl Repair {
    /// A loop that has not begun.
    #[must_use]
    pub fn new(parts: Arc<ReactParts>) -> Self {
        Self { parts, only: None, state: Mutex::default() }
    }

    /// Copies to this upstream alone.
    #[must_use]
    pub fn towards(mut self, upstream: &str) -> Self {
        self.only = Some(upstream.to_owned());
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names of all upstreams, and those that are available.
    fn places(&self) -> Vec<Place> {
        let place = |upstream: &Upstream| Place {
            name: upstream.name().to_owned(),
            priority: upstream.priority(),
            is_available: upstream.is_available(),
        };
        self.parts.upstreams.list().iter().map(place).collect()
    }

    /// Goes through all blobs with too few copies once, and copies what can be copied now. `target` is how many copies a
    /// blob is to have, `repaired` is told what was done. Returns whether anything was done.
    ///
    /// # Errors
    /// When the database fails. A blob that cannot be copied keeps no other one from it.
    pub async fn pass(
        &self,
        target: usize,
        drain: &CancellationToken,
        repaired: impl Fn(&BlobFacts, &Repaired) + Send + Sync,
    ) -> Result<bool, Error> {
        let names: Vec<String> = self.places().into_iter().map(|place| place.name).collect();
        let mut question = RepairQuestion {
            upstreams: &names,
            target: i32::try_from(target).unwrap_or(i32::MAX),
            // Those without any copy come last: the others can be repaired.
            after: Some((0, Sha256::from_bytes([u8::MAX; 32]))),
            most: PAGE,
        };
        let (mut has_done_any, repaired) = (false, &repaired);
        let mut is_first = true;
        while !drain.is_cancelled() {
            let mut page = read::under_replicated(&self.parts.pools, &question).await?;
            page.blobs.sort_by(order);
            let done = stream::iter(page.blobs)
                .map(|blob| async move {
                    let done = drain.run_until_cancelled(self.repair_alone(&blob, target)).await;
                    let done = done.transpose()?.flatten();
                    if let Some(done) = &done {
                        repaired(&blob.facts, done);
                    }
                    Ok::<_, Error>(done.is_some())
                })
                .buffer_unordered(self.parts.settings.repair_places.get())
                .try_fold(false, |any, done| async move { Ok(any || done) });
            has_done_any |= done.await?;
            question.after = match page.next {
                Some((copies, _)) if !is_first && copies > 0 => break,
                Some(next) => Some(next),
                None if is_first => {
                    is_first = false;
                    None
                }
                None => break,
            };
        }
        Ok(has_done_any)
    }

    /// Repairs one blob if no other process does. `None`: there was nothing to do now.
    async fn repair_alone(&self, blob: &UnderReplicated, target: usize) -> Result<Option<Repaired>, Error> {
        if self.due(blob.facts.sha256, plan(&blob.replicas, &self.places(), target)).is_none() {
            return Ok(None);
        }
        let name = format!("blossom/repair/{}", blob.facts.sha256);
        let lease = LoopLease::new(self.parts.leases.clone(), name);
        let done = lease.hold(self.repair(blob.facts.sha256, target)).await?.transpose()?;
        if done.is_some() {
            lease.release().await?;
        }
        Ok(done.flatten())
    }

    /// Repairs one blob, as it is now. `None`: there was nothing to do.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn repair(&self, sha256: Sha256, target: usize) -> Result<Option<Repaired>, Error> {
        let Some(blob) = self.kept(sha256).await? else { return Ok(None) };
        let planned = |blob: &KnownBlob| self.due(sha256, plan(&blob.replicas, &self.places(), target));
        let Some(mut plan) = planned(&blob) else { return Ok(None) };
        let mut done = Repaired::default();
        if plan.holders.is_empty() {
            if !self.find_again(&blob.facts).await? {
                self.parts.metrics.repaired(RepairOutcome::NoSource, 0);
                self.note_failure((sha256, String::new()));
                done.failed.push("no upstream has a copy that can be read".to_owned());
                return Ok(Some(done));
            }
            let found = self.kept(sha256).await?;
            let Some(now) = found.as_ref().and_then(planned) else { return Ok(Some(done)) };
            plan = now;
        }
        let named = |names: &[String]| -> Vec<Upstream> {
            names.iter().filter_map(|name| self.parts.upstreams.named(name).cloned()).collect()
        };
        let (holders, takers) = (named(&plan.holders), named(&plan.takers));
        for taker in takers {
            if done.copied.len() >= plan.missing {
                break;
            }
            let Attempt { ended, results } = copy_blob(&self.parts, &blob.facts, &holders, &taker).await;
            record(&self.parts, sha256, results).await?;
            self.count(&ended, &blob.facts);
            match ended {
                Ok(_) => {
                    self.state().failures.remove(&(sha256, taker.name().to_owned()));
                    if self.kept(sha256).await?.is_none() {
                        self.take_back(sha256, &taker).await?;
                        break;
                    }
                    done.copied.push(taker.name().to_owned());
                }
                Err(CopyError::Taker(why)) => {
                    tracing::warn!(upstream = taker.name(), blob = %sha256, "not copied to {}: {why}", taker.name());
                    self.note_failure((sha256, taker.name().to_owned()));
                    done.failed.push(format!("{}: {why}", taker.name()));
                }
                Err(CopyError::NoSource(why)) => {
                    tracing::warn!(blob = %sha256, "no copy of {sha256} can be read: {why}");
                    self.note_failure((sha256, String::new()));
                    done.failed.push(why);
                    break;
                }
            }
        }
        Ok(Some(done))
    }

    /// Looks for a blob of which no copy counts any longer: an upstream may have said for a while that it has none. Returns
    /// whether one is found.
    async fn find_again(&self, blob: &BlobFacts) -> Result<bool, Error> {
        let mut is_found = false;
        for upstream in self.parts.upstreams.list().iter().filter(|upstream| upstream.is_available()) {
            if let Finding::Readable(proof) = check_replica(upstream, blob, Proof::Hash).await {
                let why = Some(proof.as_str().to_owned());
                let event = ReplicaEvent::Readable;
                let result = ReplicaResult { upstream: upstream.name().to_owned(), event, why };
                record(&self.parts, blob.sha256, vec![result]).await?;
                is_found = true;
            }
        }
        Ok(is_found)
    }

    /// A blob that is to be kept; `None` without an owner, and of a banned one.
    async fn kept(&self, sha256: Sha256) -> Result<Option<KnownBlob>, Error> {
        let LookUp { blob, ban } = read::look_up(&self.parts.pools, &sha256).await?;
        Ok(blob.filter(|blob| blob.owners > 0 && ban.is_none()))
    }

    /// Deletes a copy that was made while the last owner deleted the blob.
    async fn take_back(&self, sha256: Sha256, taker: &Upstream) -> Result<(), Error> {
        let now = self.parts.clock.now().timestamp();
        let upstreams = &self.parts.upstreams;
        let token = match upstreams.credential(taker, None, Verb::Delete, Some(sha256), now) {
            Credential::Token(token) => Some(token),
            Credential::Nothing | Credential::Unavailable => None,
        };
        let (event, why) = match taker.delete(&sha256, token.as_ref()).await {
            Ok(_) => (ReplicaEvent::Deleted, None),
            Err(error) => (ReplicaEvent::NotDeleted, Some(error.reason)),
        };
        let result = ReplicaResult { upstream: taker.name().to_owned(), event, why };
        record(&self.parts, sha256, vec![result]).await
    }

    /// The plan without what has failed lately; `None` if nothing can be done now.
    fn due(&self, sha256: Sha256, mut plan: Plan) -> Option<Plan> {
        let state = self.state();
        let now = Instant::now();
        let is_due = |taker: &str| {
            state.failures.get(&(sha256, taker.to_owned())).is_none_or(|(_, again)| *again <= now)
        };
        plan.takers.retain(|taker| is_due(taker) && self.only.as_ref().is_none_or(|only| only == taker));
        let can_copy = plan.missing > 0 && !plan.holders.is_empty() && !plan.takers.is_empty();
        // Without a copy that was read back, and none that may be soon, it is looked for.
        let is_gone = plan.holders.is_empty() && !plan.is_pending && !plan.takers.is_empty();
        (is_due("") && (can_copy || is_gone)).then_some(plan)
    }

    fn note_failure(&self, key: (Sha256, String)) {
        let mut state = self.state();
        let failures = state.failures.get(&key).map_or(0, |(failures, _)| *failures).saturating_add(1);
        let again = Instant::now() + pause_after(failures);
        if state.failures.len() >= FAILURES_MAX && !state.failures.contains_key(&key) {
            state.failures.clear();
        }
        state.failures.insert(key, (failures, again));
    }

    fn count(&self, ended: &Result<Copied, CopyError>, blob: &BlobFacts) {
        let outcome = match ended {
            Ok(Copied::Mirrored) => RepairOutcome::Mirrored,
            Ok(Copied::Streamed) => RepairOutcome::Copied,
            Err(CopyError::NoSource(_)) => RepairOutcome::NoSource,
            Err(CopyError::Taker(_)) => RepairOutcome::Failed,
        };
        self.parts.metrics.repaired(outcome, blob.size);
    }

    /// Whether the upstreams that can be asked are others than in the last pass.
    fn has_changed(&self) -> bool {
        let places = self.places().into_iter().filter(|place| place.is_available);
        let available: Vec<String> = places.map(|place| place.name).collect();
        let mut state = self.state();
        let has_changed = state.available != available;
        if has_changed {
            // What failed may be due to an upstream that works again.
            state.failures.clear();
            state.available = available;
        }
        has_changed
    }
}

impl Service for Repair {
    type Error = Error;

    fn name(&self) -> &'static str {
        "blossom repair"
    }

    async fn cycle(&self, drain: &CancellationToken) -> Result<CycleOutcome, Error> {
        let target = self.parts.settings.target(self.parts.upstreams.list().len());
        let is_due = self.has_changed() || self.state().pace.is_due();
        if !is_due {
            return Ok(CycleOutcome::Idle);
        }
        let began = Instant::now();
        let has_done_any = self.pass(target, drain, |_, _| ()).await?;
        self.state().pace.passed(began, PASS_EVERY);
        if has_done_any {
            self.state().pace.hurry();
        }
        Ok(CycleOutcome::Idle)
    }
}
