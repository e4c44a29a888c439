//! The services `synchronizer` and `priority-synchronizer`: run sessions with many relays at once, those
//! furthest behind first.
//!
//! Invariants: any number of processes may run it; each relay is crawled only by the process that holds its
//! lease, and a window is recorded only while that lease is held. A relay that is caught up stays connected
//! and delivers live events until another relay needs its connection slot.

mod agenda;
mod crawl;
mod error;
mod first;
mod outcome;
mod refused;
mod report;
mod slots;
mod visit;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

pub use crawl::SyncParts;
pub use error::SyncError;
pub use first::FirstLook;

use crate::base::{Network, RelayUrl};
use crate::config;
use crate::lifecycle::{CycleOutcome, Service};
use crate::services::archive::RelayAnswer;
use crate::services::archive::command::RelayCommand;
use crate::store;
use crawl::Crawl;

/// How often the database is polled for due relays while sessions run.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// An idle session: it is not reading stored events, and may be ended in favour of another relay.
#[derive(Debug, Clone, Copy)]
struct Idle {
    since: Instant,
    /// True if the relay is caught up. False while it waits for a reading slot in the pool of slow relays.
    is_up_to_date: bool,
}

/// Shared between a session and the synchronizer: `Some` while the session is idle.
#[derive(Debug, Default)]
struct IdleState(Mutex<Option<Idle>>);

impl IdleState {
    fn idle(&self) -> Option<Idle> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, idle: Option<Idle>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = idle;
    }
}

/// A running session.
#[derive(Debug)]
struct Running {
    network: Network,
    is_first: bool,
    stop: CancellationToken,
    idle_state: Arc<IdleState>,
}

/// One of the services `synchronizer` and `priority-synchronizer`.
#[derive(Debug)]
pub struct Synchronizer {
    name: &'static str,
    priority: Vec<RelayUrl>,
    crawl: Arc<Crawl>,
}

impl Synchronizer {
    /// A synchronizer of all relays. Its agenda is empty, so every relay is due.
    #[must_use]
    pub fn new(parts: SyncParts, settings: config::Synchronizer, networks: config::Networks) -> Self {
        let crawl = Arc::new(Crawl::new(parts, settings, networks));
        Self { name: "synchronizer", priority: Vec::new(), crawl }
    }

    /// A synchronizer that reads the `priority` relays before all others, and never ends its connections to
    /// them.
    #[must_use]
    pub fn with_priority(
        parts: SyncParts,
        settings: config::Synchronizer,
        networks: config::Networks,
        priority: Vec<RelayUrl>,
    ) -> Self {
        let crawl = Arc::new(Crawl::new(parts, settings, networks).first(&priority));
        Self { name: "priority-synchronizer", priority, crawl }
    }

    /// Adds the priority relays that are not known yet.
    async fn make_known(&self) -> Result<(), store::Error> {
        for url in &self.priority {
            let add = RelayCommand::Add { url: url.clone(), source: "seed" };
            if let RelayAnswer::Known { is_new: true, .. } = self.crawl.parts.relays.append(add).await? {
                tracing::info!(relay.url = %url, "priority relay {url} was added");
            }
        }
        Ok(())
    }

    /// Starts a session with each claimed relay. For each connection that is needed and not available, ends
    /// one idle session: first those with slow relays, then the one that has been idle longest.
    async fn start(
        &self,
        running: &mut HashMap<i32, Running>,
        sessions: &mut JoinSet<i32>,
        drain: &CancellationToken,
    ) -> Result<(), SyncError> {
        let claimed = self.crawl.next(running).await?;
        for assignment in claimed.assignments {
            let entry = Running {
                network: assignment.url.network(),
                is_first: assignment.is_first,
                stop: drain.child_token(),
                idle_state: Arc::default(),
            };
            let number = assignment.relay.0;
            let visit =
                Arc::clone(&self.crawl).visit(assignment, entry.stop.clone(), Arc::clone(&entry.idle_state));
            running.insert(number, entry);
            sessions.spawn(async move {
                visit.await;
                number
            });
        }
        for (network, waiting) in claimed.waiting {
            let others = running.values().filter(|r| r.network == network && !r.is_first);
            let mut idle: Vec<_> = others.filter_map(|r| Some((r.idle_state.idle()?, &r.stop))).collect();
            // The order is the same in each round. So sessions that were asked to stop and have not ended yet
            // are chosen again, and no others are ended for connections that are about to become free.
            idle.sort_unstable_by_key(|(idle, _)| (idle.is_up_to_date, idle.since));
            for (_, stop) in idle.into_iter().take(waiting) {
                stop.cancel();
            }
        }
        Ok(())
    }
}

impl Synchronizer {
    /// Sets the gauges of running sessions.
    fn count(&self, running: &HashMap<i32, Running>) {
        for network in Network::ALL {
            let of_network = || running.values().filter(|entry| entry.network == network);
            let live = of_network().filter(|r| r.idle_state.idle().is_some_and(|idle| idle.is_up_to_date));
            self.crawl.parts.metrics.connected(network, of_network().count(), live.count());
        }
    }
}

impl Service for Synchronizer {
    type Error = SyncError;

    fn name(&self) -> &'static str {
        self.name
    }

    async fn cycle(&self, drain: &CancellationToken) -> Result<CycleOutcome, SyncError> {
        self.make_known().await?;
        let lease = self.crawl.lease();
        let mut running = HashMap::new();
        // Dropping the set aborts the sessions.
        let mut sessions = JoinSet::new();
        let (mut renewed, mut reached) = (Instant::now(), Instant::now());
        let mut polled: Option<Instant> = None;
        loop {
            let mut round = Ok(());
            // Polling runs a query over all relays, so it is not repeated for each session that ends.
            if !drain.is_cancelled() && polled.is_none_or(|at| at.elapsed() >= POLL_INTERVAL) {
                polled = Some(Instant::now());
                round = self.start(&mut running, &mut sessions, drain).await;
            }
            if round.is_ok() && renewed.elapsed() > lease / 3 {
                renewed = Instant::now();
                round = self.crawl.renew(&running).await;
            }
            match round {
                Ok(()) => reached = Instant::now(),
                // A short outage of the database ends no session: the leases are still valid for `lease`.
                Err(SyncError::Store(error)) if reached.elapsed() < lease => {
                    tracing::warn!(
                        "no relays can be claimed at the moment; running sessions continue while their leases last: {error}"
                    );
                }
                Err(error) => return Err(error),
            }
            self.count(&running);
            let mut next = timeout(POLL_INTERVAL, sessions.join_next()).await.unwrap_or(None);
            if next.is_none() && sessions.is_empty() {
                return Ok(CycleOutcome::Idle);
            }
            while let Some(ended) = next {
                // The way one session ended does not affect the others.
                running.remove(&ended.map_err(SyncError::Session)?);
                next = sessions.try_join_next();
            }
        }
    }
}
