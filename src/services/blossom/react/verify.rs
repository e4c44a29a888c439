//! Reads back what upstreams accepted: only then a copy counts, and downloads may be redirected there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ReactParts;
use super::check::{Finding, check_replica, record};
use super::pace::Pace;
use crate::base::Sha256;
use crate::lifecycle::{CycleOutcome, Service};
use crate::services::blossom::command::ReplicaResult;
use crate::services::blossom::decide::repair::{Patience, patience, pause_after};
use crate::services::blossom::event::{Proof, ReplicaEvent, Unverified};
use crate::services::blossom::read;
use crate::store::Error;
use crate::store::lease::LoopLease;

/// Copies read from the database at a time.
const PAGE: i64 = 500;

/// Copies looked at at the same time.
const AT_ONCE: usize = 16;

/// Copies that wait for their next look in memory; the others are looked at in each pass.
const WAITING_MAX: usize = 20_000;

/// Least time between two passes through all copies that wait: new ones are found at the list's end.
const PASS_EVERY: Duration = Duration::from_millis(100);

/// The loop that reads new copies back.
#[derive(Debug)]
pub struct Verify {
    parts: Arc<ReactParts>,
    lease: LoopLease,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When a copy is looked at again, and how often its upstream gave no answer.
    waiting: HashMap<(Sha256, String), (Instant, u32)>,
    pace: Pace,
}

impl Verify {
    /// A loop that has not begun.
    #[must_use]
    pub fn new(parts: Arc<ReactParts>) -> Self {
        let lease = LoopLease::new(parts.leases.clone(), "blossom/verify");
        Self { parts, lease, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at all copies that are due, once.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pass(&self, drain: &CancellationToken) -> Result<(), Error> {
        let began = Instant::now();
        let upstreams = self.parts.upstreams.list().iter().filter(|upstream| upstream.is_available());
        let names: Vec<String> = upstreams.map(|upstream| upstream.name().to_owned()).collect();
        let (mut last, mut has_found_any) = (None, false);
        while !drain.is_cancelled() {
            let page = read::unverified(&self.parts.pools, &names, last.as_ref(), PAGE).await?;
            let is_last = i64::try_from(page.len()).is_ok_and(|found| found < PAGE);
            last = page.last().cloned();
            let due: Vec<Unverified> = page.into_iter().filter(|copy| self.is_due(copy)).collect();
            has_found_any |= !due.is_empty();
            stream::iter(due)
                .map(|copy| self.verify(copy))
                .buffer_unordered(AT_ONCE)
                .try_collect::<()>()
                .await?;
            if is_last {
                break;
            }
        }
        let mut state = self.state();
        let now = Instant::now();
        // What is verified, lost or gone is not asked for any more.
        state.waiting.retain(|_, (due, _)| *due + Duration::from_mins(1) > now);
        if has_found_any {
            state.pace.hurry();
        } else {
            state.pace.passed(began, PASS_EVERY);
        }
        Ok(())
    }

    fn is_due(&self, copy: &Unverified) -> bool {
        let key = (copy.facts.sha256, copy.upstream.clone());
        self.state().waiting.get(&key).is_none_or(|(due, _)| *due <= Instant::now())
    }

    async fn verify(&self, copy: Unverified) -> Result<(), Error> {
        let Some(upstream) = self.parts.upstreams.named(&copy.upstream) else { return Ok(()) };
        let (event, why) = match check_replica(upstream, &copy.facts, Proof::Head).await {
            Finding::Readable(proof) => (ReplicaEvent::Readable, proof.as_str().to_owned()),
            Finding::OtherBytes(why) => (ReplicaEvent::Lost, why),
            Finding::Absent => match patience(copy.since, self.parts.clock.now()) {
                Patience::Over => {
                    (ReplicaEvent::Lost, "accepted, and not readable a minute later".to_owned())
                }
                Patience::Again(pause) => {
                    self.note((copy.facts.sha256, copy.upstream), pause, 0);
                    return Ok(());
                }
            },
            Finding::Unknown(why) => {
                tracing::debug!(upstream = copy.upstream, blob = %copy.facts.sha256, "not verified: {why}");
                let key = (copy.facts.sha256, copy.upstream.clone());
                let failures = self.state().waiting.get(&key).map_or(0, |(_, failures)| *failures) + 1;
                self.note(key, pause_after(failures), failures);
                return Ok(());
            }
        };
        let key = (copy.facts.sha256, copy.upstream.clone());
        let result = ReplicaResult { upstream: copy.upstream, event, why: Some(why) };
        record(&self.parts, copy.facts.sha256, vec![result]).await?;
        self.state().waiting.remove(&key);
        Ok(())
    }

    fn note(&self, key: (Sha256, String), pause: Duration, failures: u32) {
        let mut state = self.state();
        if state.waiting.len() < WAITING_MAX || state.waiting.contains_key(&key) {
            state.waiting.insert(key, (Instant::now() + pause, failures));
        }
    }
}

impl Service for Verify {
    type Error = Error;

    fn name(&self) -> &'static str {
        "blossom verify"
    }

    async fn cycle(&self, drain: &CancellationToken) -> Result<CycleOutcome, Error> {
        let is_due = self.state().pace.is_due();
        if is_due {
            self.lease.hold(self.pass(drain)).await?.transpose()?;
        }
        Ok(CycleOutcome::Idle)
    }
}
