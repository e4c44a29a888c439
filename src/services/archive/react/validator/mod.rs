//! The service `validator`: tries candidates and records those that are relays.
//!
//! A candidate is a relay if it completes the WebSocket handshake and answers a REQ (NIP-01) with EOSE, or
//! with CLOSED for any reason. A host that keeps the connection open without a valid answer is not a relay.
//! Any number of processes may run the service; each candidate is tried by the process that holds its lease.
//! A candidate is never dialled at a private address, whatever its name resolves to.
//!
//! | outcome of a try | follows |
//! |---|---|
//! | EOSE or CLOSED | the candidate becomes a relay |
//! | private address, or a URL that cannot be parsed | the candidate is dropped |
//! | failure on our side (uplink, proxy, settings) | retried after the shortest pause, not counted |
//! | other failure | retried after a doubled pause; dropped after `tries_max` tries, or at once if crowded |
//! | error of this program or of one row | set aside for the longest pause |

mod slots;
mod uplink;

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use nostr_sdk::{Filter, Kind};
use serde_json::json;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use slots::Slots;
use uplink::Uplink;

use crate::base::{Network, RelayUrl};
use crate::config;
use crate::lifecycle::{CycleOutcome, Service, guarded, poll_while, set_aside};
use crate::net::relay::{RelayError, RelaySession, Timeouts};
use crate::net::{Egress, Trust};
use crate::services::archive::append::put_off;
use crate::services::archive::command::RelayCommand;
use crate::services::archive::decide::candidate::{
    Retries, RetryDecision, after_failure, is_crowded, may_be_ours,
};
use crate::services::archive::metrics::ValidatorMetrics;
use crate::services::archive::read::DueCandidate;
use crate::services::archive::{RelayJournal, read};
use crate::store::append::Writer;
use crate::store::lease::Leases;
use crate::store::{self, Pools};

/// Margin of a lease beyond the duration of a try, for the database.
const LEASE_MARGIN: Duration = Duration::from_mins(1);

/// How often the database is polled for due candidates while others are tried.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Dependencies of the validator.
#[derive(Debug, Clone)]
pub struct ValidatorParts {
    /// Database pools.
    pub pools: Pools,
    /// Writer of `relay_log`.
    pub relays: Writer<RelayJournal>,
    /// Leases that assign each candidate to one process.
    pub leases: Leases,
    /// Outbound connections.
    pub outside: Egress,
    /// Concurrency and timeouts of each network.
    pub networks: config::Networks,
    /// Limit of waiting candidates of a network, as set for the finder.
    pub candidates_max: NonZeroU32,
    /// Metrics of the validator.
    pub metrics: ValidatorMetrics,
}

/// The service `validator`.
#[derive(Debug)]
pub struct Validator {
    parts: ValidatorParts,
    settings: config::Validator,
    uplink: Uplink,
}

impl Validator {
    /// Creates the validator.
    #[must_use]
    pub fn new(parts: ValidatorParts, settings: config::Validator) -> Self {
        Self { parts, settings, uplink: Uplink::new() }
    }

    /// Duration of a candidate's lease: the longest a try can take. That is its own request, the wait for a
    /// check of the uplink that another try has begun, and one such check of its own. The candidates of a
    /// killed process are free after that.
    fn lease(&self, network: Network) -> Duration {
        3 * Timeouts::from(self.parts.networks.get(network)).one_request() + LEASE_MARGIN
    }

    fn retries(&self) -> Retries {
        Retries {
            tries_max: self.settings.tries_max.get(),
            pause_min: Duration::from_secs(self.settings.retry_min_s.get().into()),
            pause_max: Duration::from_secs(self.settings.retry_max_s.get().into()),
        }
    }

    /// Returns whether the network's candidates are crowded, and claims at most `wanted` candidates to try.
    async fn poll(&self, network: Network, wanted: usize) -> Result<(bool, Vec<DueCandidate>), store::Error> {
        let waiting = read::candidates_waiting(&self.parts.pools.session, network.as_str()).await?;
        let is_crowded = is_crowded(waiting, self.parts.candidates_max.get());
        Ok((is_crowded, self.next(network, wanted).await?))
    }

    /// Claims due candidates of a network by lease, at most `wanted`.
    async fn next(&self, network: Network, wanted: usize) -> Result<Vec<DueCandidate>, store::Error> {
        let limit = i64::try_from(wanted).unwrap_or(i64::MAX);
        let session = &self.parts.pools.session;
        let mut urls = read::due_urls(session, network.as_str(), limit).await?;
        if urls.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<String> = urls.iter().map(|url| lease_name(url)).collect();
        let held: HashSet<String> = self
            .parts
            .leases
            .take(&names, self.lease(network))
            .await?
            .into_iter()
            .map(|lease| lease.name)
            .collect();
        urls.retain(|url| held.contains(&lease_name(url)));
        let due = read::due_candidates(session, &urls).await?;
        if due.len() < urls.len() {
            urls.retain(|url| !due.iter().any(|candidate| candidate.url == *url));
            let over: Vec<String> = urls.iter().map(|url| lease_name(url)).collect();
            self.parts.leases.release(&over).await?;
        }
        Ok(due)
    }

    /// Tries one candidate and handles the result. Returns the lease to give back. An error other than an
    /// outage of the database, or a panic, counts as a failed try of this candidate only.
    async fn try_claimed(
        &self,
        network: Network,
        candidate: DueCandidate,
        is_crowded: bool,
        drain: &CancellationToken,
    ) -> Result<(Network, Option<String>), store::Error> {
        let (url, lease) = (candidate.url.clone(), lease_name(&candidate.url));
        let tries = candidate.tries.saturating_add(1);
        let (outcome, reason) =
            match guarded("validator_try", &url, self.try_one(network, candidate, is_crowded, drain)).await {
                Ok(Ok(())) => return Ok((network, Some(lease))),
                Ok(Err(error)) if error.is_outage() => return Err(error),
                Ok(Err(error)) => ("failed", error.to_string()),
                Err(panicked) => ("panicked", panicked.to_string()),
            };
        self.parts.metrics.tried(network, outcome);
        let pause = self.retries().pause_max;
        set_aside("validator_try", &url, Some(pause), &reason);
        match put_off(&self.parts.pools, &url, tries, pause, outcome).await {
            Ok(()) => Ok((network, Some(lease))),
            Err(error) if error.is_outage() => Err(error),
            // The lease is kept, so that the candidate is not tried again at once.
            Err(_) => Ok((network, None)),
        }
    }

    async fn try_one(
        &self,
        network: Network,
        candidate: DueCandidate,
        is_crowded: bool,
        drain: &CancellationToken,
    ) -> Result<(), store::Error> {
        let url = match RelayUrl::parse(&candidate.url) {
            Ok(url) => url,
            // An earlier version accepted it, or it was inserted by SQL.
            Err(error) => {
                tracing::warn!(relay.url = candidate.url, %error, "a candidate has a URL that cannot be parsed; it is dropped");
                self.parts.metrics.tried(network, "bad_url");
                return self.failed(candidate.url, candidate.tries, "bad_url", is_crowded).await;
            }
        };
        let timeouts = Timeouts::from(self.parts.networks.get(network));
        // Boxed because a session is large and hundreds of tries are polled together.
        let probe = Box::pin(self.judge(&url, network, timeouts));
        let Some(judged) = drain.run_until_cancelled(probe).await else { return Ok(()) };
        match judged? {
            Ok(()) => {
                self.parts.metrics.tried(network, "valid");
                tracing::info!(relay.url = %url, "{url} is a relay");
                self.parts.relays.append(RelayCommand::Add { url, source: "validator" }).await?;
            }
            Err(reason) => {
                self.parts.metrics.tried(network, reason);
                self.failed(candidate.url, candidate.tries, reason, is_crowded).await?;
            }
        }
        Ok(())
    }

    /// Tries a candidate. The inner result is the reason why it is not a relay.
    async fn judge(
        &self,
        url: &RelayUrl,
        network: Network,
        timeouts: Timeouts,
    ) -> Result<Result<(), &'static str>, store::Error> {
        let began = Instant::now();
        let Err(error) = probe(&self.parts.outside, url, Trust::Discovered, timeouts).await else {
            return Ok(Ok(()));
        };
        tracing::debug!(relay.url = %url, "{url} is not a relay: {error}");
        let reason = error.reason();
        let is_uplink_down = may_be_ours(reason) && self.uplink.is_down(&self.parts, network, began).await?;
        Ok(Err(if is_uplink_down { "uplink" } else { reason }))
    }

    async fn failed(
        &self,
        url: String,
        tries: i32,
        reason: &'static str,
        is_crowded: bool,
    ) -> Result<(), store::Error> {
        match after_failure(tries.unsigned_abs(), reason, is_crowded, self.retries()) {
            RetryDecision::Later { tries, pause } => {
                let tries = i32::try_from(tries).unwrap_or(i32::MAX);
                put_off(&self.parts.pools, &url, tries, pause, reason).await
            }
            RetryDecision::Dropped { tries } => {
                let detail = json!({ "reason": reason, "tries": tries });
                self.parts.relays.append(RelayCommand::Drop { url, detail }).await.map(|_| ())
            }
        }
    }
}

/// Sends one request. Succeeds if a relay answered.
async fn probe(outside: &Egress, url: &RelayUrl, trust: Trust, timeouts: Timeouts) -> Result<(), RelayError> {
    let mut session = RelaySession::connect(outside, url, trust, timeouts).await?;
    let answer = session.page(&Filter::new().kind(Kind::TextNote).limit(1)).await;
    session.close().await;
    match answer {
        Ok(_) | Err(RelayError::Closed(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

fn lease_name(url: &str) -> String {
    format!("validator/{url}")
}

impl Service for Validator {
    type Error = store::Error;

    fn name(&self) -> &'static str {
        "validator"
    }

    async fn cycle(&self, drain: &CancellationToken) -> Result<CycleOutcome, store::Error> {
        let mut slots = Slots::new(&self.parts.networks);
        let mut finished = Vec::new();
        let mut tries = FuturesUnordered::new();
        let mut ended = Vec::new();
        loop {
            let polls =
                if drain.is_cancelled() { Vec::new() } else { slots.to_poll(Instant::now(), POLL_INTERVAL) };
            if !polls.is_empty() {
                let finished = std::mem::take(&mut finished);
                poll_while(self.parts.leases.release(&finished), &mut tries, &mut ended).await?;
            }
            for (network, free) in polls {
                let (is_crowded, due) = poll_while(self.poll(network, free), &mut tries, &mut ended).await?;
                slots.take(network, due.len(), Instant::now());
                self.parts.metrics.running(network, slots.taken(network));
                tries.extend(
                    due.into_iter().map(|candidate| self.try_claimed(network, candidate, is_crowded, drain)),
                );
            }
            if ended.is_empty() {
                match timeout(POLL_INTERVAL, tries.next()).await {
                    Ok(Some(done)) => ended.push(done),
                    Ok(None) => {
                        self.parts.leases.release(&finished).await?;
                        return Ok(CycleOutcome::Idle);
                    }
                    Err(_) => {}
                }
            }
            for done in ended.drain(..) {
                let (network, lease) = done?;
                slots.free(network);
                self.parts.metrics.running(network, slots.taken(network));
                finished.extend(lease);
            }
        }
    }
}
