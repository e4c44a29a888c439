//! The synchronizer: keeps sessions with many relays going at once, those furthest behind first.
//!
//! Any number of processes may run it: a relay belongs to whoever holds its lease, and what a process proves counts only
//! while it does. A relay that is up to date stays connected and sends what it gets, until another one needs its place.

mod agenda;
mod claims;
mod crawl;
mod delivery;
mod first;
mod outcome;
mod pages;
mod places;
mod reconcile;
mod refused;
mod visit;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

pub use crawl::{SyncError, SyncParts};
pub use first::FirstLook;

use crate::base::{Network, RelayUrl};
use crate::config;
use crate::lifecycle::{Cycle, Service};
use crate::services::archive::RelayAnswer;
use crate::services::archive::command::RelayCommand;
use crate::store;
use crawl::Crawl;

/// How often the synchronizer looks for relays that are due while sessions go on.
const LOOK: Duration = Duration::from_secs(2);

/// A session that does not read its relay's past at the moment, and may give way to another relay.
#[derive(Debug, Clone, Copy)]
struct Idle {
    since: Instant,
    /// Whether that past is read. If not, the relay is slow and waits for its turn.
    is_up_to_date: bool,
}

/// Whether a session is idle; nothing while it is not.
#[derive(Debug, Default)]
struct Live(Mutex<Option<Idle>>);

impl Live {
    fn idle(&self) -> Option<Idle> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, idle: Option<Idle>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = idle;
    }
}

/// A session that runs: where, how to end it, and whether it is idle.
#[derive(Debug)]
struct Running {
    network: Network,
    is_first: bool,
    stop: CancellationToken,
    live: Arc<Live>,
}

/// The services `synchronizer` and `priority-synchronizer`.
#[derive(Debug)]
pub struct Synchronizer {
    name: &'static str,
    priority: Vec<RelayUrl>,
    crawl: Arc<Crawl>,
}

impl Synchronizer {
    /// A synchronizer with an empty agenda: every relay is due.
    #[must_use]
    pub fn new(parts: SyncParts, settings: config::Synchronizer, networks: config::Networks) -> Self {
        let crawl = Arc::new(Crawl::new(parts, settings, networks));
        Self { name: "synchronizer", priority: Vec::new(), crawl }
    }

    /// One that reads these relays before all others, and keeps its connections to them.
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

    /// Priority relays that nobody has named yet become known.
    async fn make_known(&self) -> Result<(), store::Error> {
        for url in &self.priority {
            let add = RelayCommand::Add { url: url.clone(), source: "seed" };
            if let RelayAnswer::Known { is_new: true, .. } = self.crawl.parts.relays.append(add).await? {
                tracing::info!(relay.url = %url, "{url} is known from now on");
            }
        }
        Ok(())
    }

    /// Starts a session with each relay whose turn it is. For each connection that is wanted and not there, an idle session ends:
    /// first those with slow relays, then the one that has been idle for the longest time.
    async fn start(
        &self,
        running: &mut HashMap<i32, Running>,
        sessions: &mut JoinSet<i32>,
        drain: &CancellationToken,
    ) -> Result<(), SyncError> {
        let turn = self.crawl.next(running).await?;
        for assignment in turn.assignments {
            let entry = Running {
                network: assignment.url.network(),
                is_first: assignment.is_first,
                stop: drain.child_token(),
                live: Arc::default(),
            };
            let number = assignment.relay.0;
            let visit =
                Arc::clone(&self.crawl).visit(assignment, entry.stop.clone(), Arc::clone(&entry.live));
            running.insert(number, entry);
            sessions.spawn(async move {
                visit.await;
                number
            });
        }
        for (network, waiting) in turn.waiting {
            let others = running.values().filter(|r| r.network == network && !r.is_first);
            let mut idle: Vec<_> = others.filter_map(|r| Some((r.live.idle()?, &r.stop))).collect();
            // Sessions that were asked to end and have not done so yet come first again, so that no others are asked for them.
            idle.sort_unstable_by_key(|(idle, _)| (idle.is_up_to_date, idle.since));
            for (_, stop) in idle.into_iter().take(waiting) {
                stop.cancel();
            }
        }
        Ok(())
    }
}

impl Service for Synchronizer {
    type Error = SyncError;

    fn name(&self) -> &'static str {
        self.name
    }

    async fn cycle(&self, drain: &CancellationToken) -> Result<Cycle, SyncError> {
        self.make_known().await?;
        let lease = self.crawl.lease();
        let mut running = HashMap::new();
        // Dropping the set ends the sessions.
        let mut sessions = JoinSet::new();
        let (mut renewed, mut reached) = (Instant::now(), Instant::now());
        let mut looked: Option<Instant> = None;
        loop {
            let mut round = Ok(());
            // A look is a query over all relays: not one for each session that ends.
            if !drain.is_cancelled() && looked.is_none_or(|at| at.elapsed() >= LOOK) {
                looked = Some(Instant::now());
                round = self.start(&mut running, &mut sessions, drain).await;
            }
            if round.is_ok() && renewed.elapsed() > lease / 3 {
                renewed = Instant::now();
                round = self.crawl.renew(&running).await;
            }
            match round {
                Ok(()) => reached = Instant::now(),
                // A database that comes back soon costs no session: they keep their leases that long.
                Err(SyncError::Store(error)) if reached.elapsed() < lease => {
                    tracing::warn!(%error, "relays cannot be shared out at the moment");
                }
                Err(error) => return Err(error),
            }
            let live =
                running.values().filter(|r| r.live.idle().is_some_and(|idle| idle.is_up_to_date)).count();
            self.crawl.parts.metrics.connected(running.len(), live);
            let mut next = timeout(LOOK, sessions.join_next()).await.unwrap_or(None);
            if next.is_none() && sessions.is_empty() {
                return Ok(Cycle::Idle);
            }
            while let Some(ended) = next {
                // However a session ended, the others go on.
                running.remove(&ended.map_err(SyncError::Session)?);
                next = sessions.try_join_next();
            }
        }
    }
}
