//! The services every database needs: ticks for readers, months for events, projections for people.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::types::Type;
use tokio_util::sync::CancellationToken;

use super::Parts;
use crate::lifecycle::{BoxError, Cycle, Service, Wake, guarded};
use crate::services::archive::project::PROJECTIONS;
use crate::store::lease::Leases;
use crate::store::projection::Upkeep;
use crate::store::tick;
use crate::store::{Doors, Error, end_obstructions};

/// One process takes the ticks; if it dies, another does after this.
const LEASE: Duration = Duration::from_secs(15);

/// How often old ticks are forgotten and months looked after.
const HOUSEKEEPING: Duration = Duration::from_mins(10);

/// The service `ticker`.
#[derive(Debug)]
pub(super) struct Ticker {
    ticks: tick::Ticker,
    leases: Leases,
    doors: Doors,
    clock: std::sync::Arc<dyn crate::base::Clock>,
    pause: Duration,
    ticked: Wake,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    leased_until: Option<Instant>,
    kept_house: Option<Instant>,
}

impl Ticker {
    /// A ticker; `ticked` is woken after each tick.
    ///
    /// # Errors
    /// When the database was restored into another cluster and not rebased.
    pub(super) async fn new(parts: &Parts, ticked: Wake) -> Result<Self, Error> {
        Ok(Self {
            ticks: tick::Ticker::new(parts.doors.write.clone()).await?,
            leases: parts.leases.clone(),
            doors: parts.doors.clone(),
            clock: std::sync::Arc::clone(&parts.clock),
            pause: Duration::from_millis(parts.settings.services.ticker.tick_min_ms.get()),
            ticked,
            state: Mutex::default(),
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this process takes the ticks now. The lease is renewed when a third of it is over.
    async fn is_ours(&self) -> Result<bool, Error> {
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
        if self.state().kept_house.is_some_and(|last| now < last + HOUSEKEEPING) {
            return Ok(());
        }
        self.ticks.forget().await?;
        let client = self.doors.write.get().await?;
        let seconds = self.clock.now().timestamp();
        let rows = client.query_typed("SELECT quipu_ensure_months($1)", &[(&seconds, Type::INT8)]).await?;
        let made: i32 = rows.first().map_or(0, |row| row.get(0));
        if made > 0 {
            tracing::info!("{made} months of events prepared ahead");
        }
        self.state().kept_house = Some(now);
        Ok(())
    }
}

impl Service for Ticker {
    type Error = Error;

    fn name(&self) -> &'static str {
        "ticker"
    }

    async fn cycle(&self, drain: &CancellationToken) -> Result<Cycle, Error> {
        if self.is_ours().await? {
            // Ticks go on while housekeeping fails: every reader of the journals waits for them.
            let kept = self.keep_house().await;
            if self.ticks.take().await?.is_some() {
                self.ticked.wake();
                // Ticks are at least this far apart, whatever the hints say.
                drain.run_until_cancelled(sleep(self.pause)).await;
            }
            kept?;
        }
        Ok(Cycle::Idle)
    }
}

/// The loop `guard`: ends sessions of analysts that hold up the service. A loop of its own, because ticks and writers may be what waits
/// for such a session.
#[derive(Debug)]
pub(super) struct Guard {
    /// The database.
    pub(super) doors: Doors,
}

impl Service for Guard {
    type Error = Error;

    fn name(&self) -> &'static str {
        "guard"
    }

    async fn cycle(&self, _drain: &CancellationToken) -> Result<Cycle, Error> {
        end_obstructions(&self.doors.urls().session).await?;
        Ok(Cycle::Idle)
    }
}

/// The service `projector`: every projection that is kept by ticks.
#[derive(Debug)]
pub(super) struct Projector {
    /// The database.
    pub(super) doors: Doors,
}

/// A projection could not be brought up to date.
#[derive(Debug, thiserror::Error)]
#[error("projection {name}")]
pub(super) struct ProjectionFailed {
    name: &'static str,
    #[source]
    source: BoxError,
}

impl Service for Projector {
    type Error = ProjectionFailed;

    fn name(&self) -> &'static str {
        "projector"
    }

    /// A projection that fails does not keep the others from being brought up to date.
    async fn cycle(&self, _drain: &CancellationToken) -> Result<Cycle, ProjectionFailed> {
        let mut first = None;
        for projection in PROJECTIONS.iter().filter(|p| p.upkeep == Upkeep::Ticks) {
            let name = projection.name;
            let source = match guarded("projection", name, projection.catch_up(&self.doors.write)).await {
                Ok(Ok(_)) => continue,
                Ok(Err(error)) => error.into(),
                Err(panicked) => panicked.into(),
            };
            first.get_or_insert(ProjectionFailed { name, source });
        }
        first.map_or(Ok(Cycle::Idle), Err)
    }
}
