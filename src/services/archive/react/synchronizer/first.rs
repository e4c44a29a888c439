//! The loop `first-look` of the synchronizer: dials relays that the operator has just added, ahead of all others, in
//! connection slots of its own. So a new relay is read at once even when every slot of the crawl is taken.
//!
//! A first look is short: it reads the newest events and ends. Afterwards the relay is crawled like every
//! other.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::crawl::{Assignment, Crawl, SyncParts, lease_name};
use super::error::SyncError;
use super::{IdleState, Synchronizer};
use crate::base::{Network, RelayUrl};
use crate::config;
use crate::lifecycle::{CycleOutcome, Service};
use crate::net::Trust;
use crate::services::archive::append::visits;
use crate::services::archive::read;
use crate::store::{self, Relay};

/// Sessions at the same time.
const SLOTS: usize = 64;

/// Each poll fills one in `SHARE` free slots, so that relays that do not answer can never take all slots at
/// once.
const SHARE: usize = 8;

/// How often the database is polled for newly added relays while sessions run.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Time after which a session is asked to stop.
const READ_MAX: Duration = Duration::from_secs(6);

/// Time after which a session that has not stopped is dropped.
const SESSION_MAX: Duration = Duration::from_secs(8);

/// Seconds for which a newly added relay is left to this service.
const OWN_S: i32 = 10;

/// The service `first-look`.
#[derive(Debug)]
pub struct FirstLook {
    crawl: Arc<Crawl>,
}

impl FirstLook {
    /// A service that reads and compares as `settings` say, but does not listen.
    #[must_use]
    pub fn new(parts: SyncParts, settings: config::Synchronizer, networks: config::Networks) -> Self {
        let catching_up_max = NonZeroUsize::new(SLOTS).expect("the constant is not zero");
        let settings = config::Synchronizer { live: false, catching_up_max, ..settings };
        Self { crawl: Arc::new(Crawl::new(parts, settings, networks)) }
    }

    /// Makes `synchronizer` leave newly added relays to this service for `OWN_S` seconds.
    #[must_use]
    pub fn before(&self, mut synchronizer: Synchronizer) -> Synchronizer {
        if let Some(crawl) = Arc::get_mut(&mut synchronizer.crawl) {
            crawl.first_look_s = OWN_S;
        }
        synchronizer
    }

    /// Number of sessions that may start now.
    fn wanted(running: usize) -> usize {
        SLOTS.saturating_sub(running).div_ceil(SHARE)
    }
}

impl Crawl {
    /// Claims relays that the operator waits for, at most `wanted`.
    async fn asked(&self, wanted: usize) -> Result<Vec<Assignment>, SyncError> {
        let networks = [Network::Clearnet, Network::Tor, Network::I2p, Network::Loki];
        let networks = networks.map(|network| self.parts.outside.reaches(network).then_some(network));
        let networks: Vec<Network> = networks.into_iter().flatten().collect();
        let only = &self.settings.only_relays;
        let limit = i64::try_from(wanted).unwrap_or(i64::MAX);
        let asked = read::asked_relays(&self.parts.pools.session, &networks, only, limit).await?;
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<String> = asked.iter().map(|relay| lease_name(relay.number)).collect();
        let held = self.parts.leases.take(&names, self.lease()).await?;
        let fences: HashMap<String, i64> = held.into_iter().map(|lease| (lease.name, lease.token)).collect();
        let assignment = |relay: read::AskedRelay| {
            let is_named = relay.is_named || only.contains(&relay.url);
            Some(Assignment {
                relay: Relay(relay.number),
                fence: *fences.get(&lease_name(relay.number))?,
                url: RelayUrl::parse(&relay.url).ok()?,
                trust: if is_named { Trust::Named } else { Trust::Discovered },
                is_first: false,
                max_limit: None,
                // Not known yet; the first comparison shows it.
                negentropy: None,
            })
        };
        Ok(asked.into_iter().filter_map(assignment).collect())
    }

    /// Records that a session was dropped at its time limit, and gives the lease back.
    async fn given_up(&self, relay: Relay, network: Network) -> Result<(), store::Error> {
        self.parts.metrics.session_failed(network, "slow");
        visits::ended(&self.parts.pools, relay, "slow").await?;
        self.parts.leases.release(&[lease_name(relay.0)]).await
    }
}

/// Runs one first look within its time limits. Never fails: an error concerns this relay alone.
async fn run_first_look(crawl: Arc<Crawl>, assignment: Assignment, drain: CancellationToken) {
    let (relay, url) = (assignment.relay, assignment.url.clone());
    let stop = drain.child_token();
    let visit = Arc::clone(&crawl).visit(assignment, stop.clone(), Arc::new(IdleState::default()));
    let stop_in_time = async {
        sleep(READ_MAX).await;
        stop.cancel();
        std::future::pending::<()>().await;
    };
    let ended = timeout(SESSION_MAX, async {
        tokio::select! {
            () = visit => {}
            () = stop_in_time => {}
        }
    });
    if ended.await.is_err()
        && let Err(error) = crawl.given_up(relay, url.network()).await
    {
        tracing::warn!(relay.url = %url, "the end of a first look could not be recorded: {error}");
    }
}

impl Service for FirstLook {
    type Error = SyncError;

    fn name(&self) -> &'static str {
        "first-look"
    }

    async fn cycle(&self, drain: &CancellationToken) -> Result<CycleOutcome, SyncError> {
        // Dropping the set aborts the sessions.
        let mut sessions = JoinSet::new();
        loop {
            if !drain.is_cancelled() {
                for assignment in self.crawl.asked(Self::wanted(sessions.len())).await? {
                    sessions.spawn(run_first_look(Arc::clone(&self.crawl), assignment, drain.clone()));
                }
            }
            match timeout(POLL_INTERVAL, sessions.join_next()).await {
                Ok(None) => return Ok(CycleOutcome::Idle),
                Ok(Some(ended)) => ended.map_err(SyncError::Session)?,
                Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_stays_free_while_relays_that_do_not_answer_take_slots() {
        let (mut running, mut polls) = (0, 0);
        // The worst case: no session ends within its time limit.
        while polls * POLL_INTERVAL < SESSION_MAX {
            let begin = FirstLook::wanted(running);
            assert!(begin > 0, "after {polls} polls {running} run");
            running += begin;
            polls += 1;
        }
        assert!(running <= SLOTS);
        assert_eq!(FirstLook::wanted(SLOTS), 0);
    }
}
