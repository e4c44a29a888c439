//! Proves old copies again.
//!
//! Three ways: a sweep through all copies at the pace of `prove_after_days`; every 15 s a random copy at each upstream; and,
//! while an upstream is suspected because one of its copies is lost, a sweep through all of its copies.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ReactParts;
use super::check::{Finding, prove_copy};
use crate::base::Sha256;
use crate::lifecycle::{CycleOutcome, Service};
use crate::services::blossom::append::{move_cursor, read_cursor};
use crate::services::blossom::decide::repair::{Suspicion, due_proofs, is_hashed};
use crate::services::blossom::event::{Proof, ReplicaState, SweptReplica};
use crate::services::blossom::read::{self, SweepPlace};
use crate::store::Error;
use crate::store::lease::LoopLease;

/// Copies looked at at the same time.
const AT_ONCE: usize = 16;

/// Copies of a suspected upstream that are looked at in one cycle.
const SUSPECTED: i64 = 256;

/// Pause between two random looks at each upstream.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// Pause between two counts of all copies, which set the pace of the sweep.
const COUNT_EVERY: Duration = Duration::from_mins(10);

/// The name of the cursor of the sweep.
const CURSOR: &str = "prove";

/// The loop that proves old copies.
#[derive(Debug)]
pub struct Prove {
    parts: Arc<ReactParts>,
    lease: LoopLease,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    looked: Option<Instant>,
    /// Number of readable copies, and when they were counted.
    copies: Option<(u64, Instant)>,
    /// When the last copies of the sweep were chosen, and the part of one that is owed.
    swept: Option<Instant>,
    owed: f64,
    suspicions: HashMap<String, Suspicion>,
}

/// What looks at copies found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Proven,
    Lost,
    Unknown,
}

impl Prove {
    /// A loop that has not begun.
    #[must_use]
    pub fn new(parts: Arc<ReactParts>) -> Self {
        let lease = LoopLease::new(parts.leases.clone(), "blossom/prove");
        Self { parts, lease, state: Mutex::default() }
    }

    /// One round. Returns whether another one is due at once.
    async fn round(&self, drain: &CancellationToken) -> Result<bool, Error> {
        let mut state = self.state.lock().await;
        let now = Instant::now();
        if state.looked.is_none_or(|looked| now - looked >= LOOK_EVERY) {
            state.looked = Some(now);
            self.look_at_random(&mut state).await?;
        }
        self.sweep(&mut state, now).await?;
        self.sweep_suspected(&mut state, drain).await
    }

    /// Looks at one random copy at each upstream.
    async fn look_at_random(&self, state: &mut State) -> Result<(), Error> {
        let upstreams = self.parts.upstreams.list().iter().filter(|upstream| upstream.is_available());
        for upstream in upstreams {
            let from = Sha256::from_bytes(rand::random());
            let pools = &self.parts.pools;
            let mut copies = read::copies_at(pools, upstream.name(), from, 1).await?;
            if copies.is_empty() {
                copies = read::copies_at(pools, upstream.name(), Sha256::MIN, 1).await?;
            }
            for copy in copies {
                self.prove_all(vec![copy], 0, state).await?;
            }
        }
        Ok(())
    }

    /// Looks at the copies whose turn it is.
    async fn sweep(&self, state: &mut State, now: Instant) -> Result<(), Error> {
        let pools = &self.parts.pools;
        let copies = match state.copies {
            Some((copies, counted)) if now - counted < COUNT_EVERY => copies,
            _ => {
                let totals = read::upstream_totals(pools).await?;
                let readable = totals.iter().filter(|total| total.state == ReplicaState::Readable);
                let copies = readable.map(|total| total.replicas).sum();
                state.copies = Some((copies, now));
                copies
            }
        };
        let elapsed = state.swept.replace(now).map_or(Duration::ZERO, |swept| now - swept);
        let days = self.parts.settings.prove_after_days.get();
        let due = due_proofs(copies, days, elapsed, &mut state.owed);
        if due == 0 {
            return Ok(());
        }
        let after = read_cursor(pools, CURSOR).await?.and_then(|text| place(&text));
        let page = read::sweep(pools, after.as_ref(), i64::try_from(due).unwrap_or(i64::MAX)).await?;
        // At the end it begins anew.
        let last = page.last().map(|copy| format!("{} {}", copy.facts.sha256, copy.upstream));
        let looks = self.prove_all(page, self.parts.settings.prove_hash_percent, state).await?;
        tracing::debug!("{} copies were looked at", looks.len());
        move_cursor(pools, CURSOR, last.as_deref()).await
    }

    /// Looks at the next copies of suspected upstreams. Returns whether there are more.
    async fn sweep_suspected(&self, state: &mut State, drain: &CancellationToken) -> Result<bool, Error> {
        let suspected: Vec<(String, Sha256)> = state
            .suspicions
            .iter()
            .filter_map(|(name, suspicion)| Some((name.clone(), suspicion.next()?)))
            .collect();
        let mut is_more = false;
        for (name, next) in suspected {
            let upstream = self.parts.upstreams.named(&name);
            if drain.is_cancelled() || upstream.is_none_or(|upstream| !upstream.is_available()) {
                continue;
            }
            let page = read::copies_at(&self.parts.pools, &name, next, SUSPECTED).await?;
            let reached = page.last().map(|copy| copy.facts.sha256);
            let looks = self.prove_all(page, 0, state).await?;
            if looks.contains(&Look::Unknown) {
                // It is out of order, which its circuit breaker sees to. The sweep goes on later at the same place.
                continue;
            }
            let suspicion = state.suspicions.entry(name.clone()).or_default();
            for look in &looks {
                suspicion.note(*look == Look::Lost);
            }
            suspicion.advance(reached);
            is_more |= suspicion.next().is_some();
            if suspicion.next().is_none() {
                let (checked, lost) = suspicion.counts();
                tracing::warn!(upstream = name, checked, lost, "{name}: {lost} of {checked} copies are lost");
                state.suspicions.remove(&name);
            }
        }
        Ok(is_more)
    }

    /// Looks at copies, records what was found, and suspects an upstream that has lost one.
    async fn prove_all(
        &self,
        copies: Vec<SweptReplica>,
        hash_percent: u32,
        state: &mut State,
    ) -> Result<Vec<Look>, Error> {
        let looks: Vec<(String, Look)> = stream::iter(copies)
            .map(|copy| async move {
                let name = copy.upstream.clone();
                Ok::<_, Error>((name, self.prove(copy, hash_percent).await?))
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        for (name, look) in &looks {
            if *look == Look::Lost {
                state.suspicions.entry(name.clone()).or_default().arouse();
            }
        }
        Ok(looks.into_iter().map(|(_, look)| look).collect())
    }

    async fn prove(&self, copy: SweptReplica, hash_percent: u32) -> Result<Look, Error> {
        let upstream = self.parts.upstreams.named(&copy.upstream);
        let Some(upstream) = upstream.filter(|upstream| upstream.is_available()) else {
            return Ok(Look::Unknown);
        };
        let is_hashed = is_hashed(hash_percent, rand::random_range(0..100));
        let proof = if is_hashed { Proof::Hash } else { Proof::Head };
        Ok(match prove_copy(&self.parts, upstream, &copy.facts, proof).await? {
            Finding::Readable(_) => Look::Proven,
            Finding::Absent | Finding::OtherBytes(_) => Look::Lost,
            Finding::Unknown(why) => {
                tracing::debug!(upstream = copy.upstream, blob = %copy.facts.sha256, "not proven: {why}");
                Look::Unknown
            }
        })
    }
}

/// The place in the text of the cursor.
fn place(text: &str) -> Option<SweepPlace> {
    let (digits, upstream) = text.split_once(' ')?;
    Some((digits.parse().ok()?, upstream.to_owned()))
}

impl Service for Prove {
    type Error = Error;

    fn name(&self) -> &'static str {
        "blossom prove"
    }

    async fn cycle(&self, drain: &CancellationToken) -> Result<CycleOutcome, Error> {
        let is_more = self.lease.hold(self.round(drain)).await?.transpose()?;
        Ok(if is_more == Some(true) { CycleOutcome::More } else { CycleOutcome::Idle })
    }
}
