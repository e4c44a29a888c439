//! The services that serve all rooms: ticks for readers of the journals, partitions for coming months,
//! projections.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::types::Type;
use tokio_util::sync::CancellationToken;

use crate::base::{Clock, counted};
use crate::http;
use crate::lifecycle::{self, BoxError, CycleOutcome, Service, Wake, guarded};
use crate::room::{
    Enabled, LoopSpec, Parts, Room, ServiceName, ServiceSpec, Starting, done, no_sockets, no_warnings,
    same_alone, same_in_sample, uncounted,
};
use crate::services::archive::react::Offers;
use crate::store::ingest::Source;
use crate::store::lease::Leases;
use crate::store::projection::{Projection, Upkeep};
use crate::store::tick;
use crate::store::{self, Error, GuardError, Patience, Pools, SessionGuard};
use crate::telemetry::{self, Metric};

/// Lease of the process that takes the ticks. If it dies, another one takes over after this time.
const LEASE: Duration = Duration::from_secs(15);

/// Pause between two rounds of housekeeping: old ticks are removed, partitions for coming months are made.
const HOUSEKEEPING: Duration = Duration::from_mins(10);

/// Pause before housekeeping that failed is tried again.
const HOUSEKEEPING_AGAIN: Duration = Duration::from_secs(30);

/// Poll of loops that hints wake.
const POLL: Duration = Duration::from_secs(1);

const TICKER: LoopSpec = LoopSpec { name: "ticker", pause: |_| POLL, has_long_cycles: false };

/// Ends sessions that hold up the services.
const GUARD: LoopSpec = LoopSpec { name: "guard", pause: |_| Duration::from_secs(5), has_long_cycles: false };

/// Takes over the events that SQL programs offer.
const OFFERS: LoopSpec = LoopSpec { name: "offers", pause: |_| POLL, has_long_cycles: false };

const PROJECTOR: LoopSpec = LoopSpec {
    name: "projector",
    pause: |settings| Duration::from_millis(settings.services.projector.interval_ms.get()),
    has_long_cycles: false,
};

/// The metrics of what all rooms share.
const METRICS: &[&[Metric]] = &{
    let [append, space, pools, leases, ingest] = store::METRICS;
    let [build, process] = telemetry::METRICS;
    [append, space, pools, leases, ingest, lifecycle::METRICS, http::METRICS, build, process]
};

/// Describes the services in this file in the same form as a room, so that the registry treats all services
/// alike. There is no such folder below `services/`; the journals are those that only the store writes.
pub(super) const ROOM: Room = Room {
    name: "upkeep",
    services: &[
        ServiceSpec {
            name: ServiceName::Ticker,
            section: "services.ticker",
            enabled: Enabled::Always,
            listeners: &[],
            sockets_max: no_sockets,
            dials_relays: false,
            loops: &[TICKER, GUARD, OFFERS],
            warnings: no_warnings,
            run_alone: same_alone,
            start: |_| uncounted(|starting| Box::pin(start_ticker(starting))),
        },
        ServiceSpec {
            name: ServiceName::Projector,
            section: "services.projector",
            enabled: Enabled::If { setting: "services.projector.enabled", rule: |s| s.projector.enabled },
            listeners: &[],
            sockets_max: no_sockets,
            dials_relays: false,
            loops: &[PROJECTOR],
            warnings: no_warnings,
            run_alone: same_alone,
            start: |_| {
                uncounted(|starting| {
                    start_projector(starting);
                    done(Ok(()))
                })
            },
        },
    ],
    page: None,
    journals: &["era", "erasure", "implementation_log"],
    projections: &[],
    checks: &[],
    metrics: METRICS,
    use_sample: same_in_sample,
};

/// The ticker, and two loops that every instance needs beside it.
async fn start_ticker(starting: &Starting<'_>) -> Result<(), BoxError> {
    let Starting { parts, ticked, .. } = *starting;
    let ticker = Ticker::new(parts, ticked.clone()).await?;
    let pace = TICKER.schedule(&parts.settings).woken_by(parts.hints.subscribe());
    parts.lifecycle.run_service(ticker, pace, parts.health.clone());
    parts.run(&GUARD, Guard { sessions: SessionGuard::new(parts.pools.urls())? });
    // SQL programs may offer events whichever services run, so this loop runs where the ticker does.
    let offers = Offers {
        pools: parts.pools.clone(),
        leases: parts.leases.clone(),
        intake: parts.intake(Source::Relay),
    };
    parts.run(&OFFERS, offers);
    Ok(())
}

fn start_projector(starting: &Starting<'_>) {
    let Starting { parts, ticked, projections, .. } = *starting;
    let projections = projections.iter().copied().filter(|p| p.upkeep == Upkeep::Ticks).collect();
    let projector = Projector { pools: parts.pools.clone(), projections };
    let pace = PROJECTOR.schedule(&parts.settings).woken_by(ticked.clone());
    parts.lifecycle.run_service(projector, pace, parts.health.clone());
}

/// The service `ticker`.
#[derive(Debug)]
struct Ticker {
    ticks: tick::Ticker,
    leases: Leases,
    pools: Pools,
    clock: Arc<dyn Clock>,
    pause: Duration,
    ticked: Wake,
    state: Mutex<State>,
    /// Readers keep new months from `events`.
    patience: Patience,
}

#[derive(Debug, Default)]
struct State {
    leased_until: Option<Instant>,
    keep_house_at: Option<Instant>,
}

impl Ticker {
    /// A ticker; `ticked` is woken after each tick.
    ///
    /// # Errors
    /// When the database was restored into another cluster and not rebased.
    async fn new(parts: &Parts, ticked: Wake) -> Result<Self, Error> {
        Ok(Self {
            ticks: tick::Ticker::new(parts.pools.write.clone()).await?,
            leases: parts.leases.clone(),
            pools: parts.pools.clone(),
            clock: Arc::clone(&parts.clock),
            pause: Duration::from_millis(parts.settings.services.ticker.tick_min_ms.get()),
            ticked,
            state: Mutex::default(),
            patience: Patience::default(),
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this process holds the ticker's lease, and so takes the ticks. Takes the lease if it is free,
    /// and renews it when a third of it is over.
    async fn holds_lease(&self) -> Result<bool, Error> {
        let now = Instant::now();
        if self.state().leased_until.is_some_and(|until| now + LEASE * 2 / 3 < until) {
            return Ok(true);
        }
        let held = !self.leases.take(&["ticker".to_owned()], LEASE).await?.is_empty();
        self.state().leased_until = held.then(|| now + LEASE);
        Ok(held)
    }

    async fn keep_house(&self) -> Result<(), Error> {
        let now = Instant::now();
        if self.state().keep_house_at.is_some_and(|next| now < next) {
            return Ok(());
        }
        // Each attempt to make months may hold up writers until it is refused.
        self.state().keep_house_at = Some(now + HOUSEKEEPING_AGAIN);
        self.ticks.forget().await?;
        let made = self.patience.attempt(&self.pools, self.ensure_months()).await;
        self.patience.record(made.is_err());
        let made = made?;
        if made > 0 {
            tracing::info!("made the partitions for {}", counted(made, "coming month", "coming months"));
        }
        self.state().keep_house_at = Some(now + HOUSEKEEPING);
        Ok(())
    }

    async fn ensure_months(&self) -> Result<i32, Error> {
        let client = self.pools.write.get().await?;
        let seconds = self.clock.now().timestamp();
        let rows = client
            .query_typed("-- ensure_months\nSELECT quipu_ensure_months($1)", &[(&seconds, Type::INT8)])
            .await?;
        Ok(rows.first().map_or(0, |row| row.get(0)))
    }
}

impl Service for Ticker {
    type Error = Error;

    fn name(&self) -> &'static str {
        "ticker"
    }

    async fn cycle(&self, drain: &CancellationToken) -> Result<CycleOutcome, Error> {
        if self.holds_lease().await? {
            // Ticks go on when housekeeping fails, because every reader of the journals waits for them.
            let kept = self.keep_house().await;
            if self.ticks.take().await?.is_some() {
                self.ticked.wake();
                // The shortest time between two ticks, however many hints arrive.
                drain.run_until_cancelled(sleep(self.pause)).await;
            }
            kept?;
        }
        Ok(CycleOutcome::Idle)
    }
}

/// The loop `guard`: ends sessions of analysts that hold up the services. It is a loop of its own, because
/// the ticker itself may be waiting for such a session.
#[derive(Debug)]
struct Guard {
    sessions: SessionGuard,
}

impl Service for Guard {
    type Error = GuardError;

    fn name(&self) -> &'static str {
        "guard"
    }

    async fn cycle(&self, _drain: &CancellationToken) -> Result<CycleOutcome, GuardError> {
        self.sessions.look().await?;
        Ok(CycleOutcome::Idle)
    }
}

/// The service `projector`: brings every projection that follows ticks up to date.
#[derive(Debug)]
struct Projector {
    pools: Pools,
    projections: Vec<&'static Projection>,
}

/// A projection could not be brought up to date.
#[derive(Debug, thiserror::Error)]
#[error("projection {name}")]
struct ProjectionFailed {
    name: &'static str,
    #[source]
    source: BoxError,
}

impl Service for Projector {
    type Error = ProjectionFailed;

    fn name(&self) -> &'static str {
        "projector"
    }

    /// A projection that fails does not stop the others.
    async fn cycle(&self, _drain: &CancellationToken) -> Result<CycleOutcome, ProjectionFailed> {
        let mut first = None;
        for projection in &self.projections {
            let name = projection.name;
            let source = match guarded("projection", name, projection.catch_up(&self.pools.write)).await {
                Ok(Ok(_)) => continue,
                Ok(Err(error)) => error.into(),
                Err(panicked) => panicked.into(),
            };
            first.get_or_insert(ProjectionFailed { name, source });
        }
        first.map_or(Ok(CycleOutcome::Idle), Err)
    }
}
