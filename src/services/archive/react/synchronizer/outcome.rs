//! What follows from the end of a session: the next due time, the journal entry and the lease. An error or a
//! panic of one session does not affect the others.
//!
//! | session ended with | relay is due again after | recorded in the journal |
//! |---|---|---|
//! | success, or `stop` | `interval_s` | no |
//! | [`SyncError::Narrowed`] | no pause: each such session narrows the search for an oversized message | no |
//! | [`SyncError::LeaseLost`] | one lease | no |
//! | an outage of PostgreSQL | 5 s | no |
//! | [`SyncError::MostlyRefused`] | `retry_max_s` | `session_failed` |
//! | any other error, or a panic | back-off from `retry_min_s` to `retry_max_s` | `session_failed` |

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::IdleState;
use super::crawl::{Assignment, Crawl, lease_name};
use super::error::SyncError;
use super::visit;
use crate::base::RelayUrl;
use crate::lifecycle::{guarded, set_aside};
use crate::services::archive::append::visits;
use crate::services::archive::command::RelayCommand;
use crate::store::{self, Relay};

/// Pause after an outage of PostgreSQL.
const OUTAGE_PAUSE: Duration = Duration::from_secs(5);

impl Crawl {
    /// Runs one session and handles its end. Never fails: an error or a panic concerns this relay alone,
    /// which is retried after a pause.
    pub(super) async fn visit(
        self: Arc<Self>,
        assignment: Assignment,
        stop: CancellationToken,
        idle_state: Arc<IdleState>,
    ) {
        let (relay, url) = (assignment.relay, assignment.url.clone());
        let session = Box::pin(async {
            visits::begun(&self.parts.pools, relay).await?;
            visit::run(&self, assignment, &stop, &idle_state).await
        });
        let ended = guarded("synchronizer_session", url.as_str(), session).await;
        let ended = ended.unwrap_or_else(|panicked| Err(panicked.into()));
        let is_stopped = stop.is_cancelled();
        let outcome = match &ended {
            Ok(()) if is_stopped => "stopped",
            Ok(()) => "ok",
            Err(error) => reason(error),
        };
        match &ended {
            Ok(()) => self.parts.metrics.session_ended(url.network(), is_stopped),
            Err(error) => self.parts.metrics.session_failed(url.network(), reason(error)),
        }
        let scheduled = self.schedule_next(relay, &url, ended).await;
        // A lease that is not given back expires.
        let given_back = self.parts.leases.release(&[lease_name(relay.0)]).await;
        let recorded = visits::ended(&self.parts.pools, relay, outcome).await;
        if let Err(error) = scheduled.and(given_back).and(recorded) {
            tracing::warn!(relay.url = %url, "the end of the session with {url} could not be recorded: {error}");
        }
    }

    /// Schedules the relay's next session, and records why this one failed.
    async fn schedule_next(
        &self,
        relay: Relay,
        url: &RelayUrl,
        ended: Result<(), SyncError>,
    ) -> Result<(), store::Error> {
        let now = Instant::now();
        let error = match ended {
            Ok(()) => {
                let pause = Duration::from_secs(self.settings.interval_s.get().into());
                self.agenda().succeeded(relay.0, now + pause);
                return Ok(());
            }
            // Each such session narrows the search, so there are few.
            Err(SyncError::Narrowed) => {
                self.agenda().later(relay.0, now);
                return Ok(());
            }
            Err(SyncError::LeaseLost) => {
                self.agenda().later(relay.0, now + self.lease());
                return Ok(());
            }
            Err(SyncError::Store(error)) if error.is_outage() => {
                tracing::warn!(relay.url = %url, "session with {url} ended because PostgreSQL is away: {error}");
                self.agenda().later(relay.0, now + OUTAGE_PAUSE);
                return Ok(());
            }
            Err(error) => error,
        };
        let pause = match error {
            SyncError::MostlyRefused { .. } => self.agenda().failed_for_long(relay.0, now),
            _ => self.agenda().failed(relay.0, now),
        };
        match &error {
            SyncError::Relay(_) | SyncError::MostlyRefused { .. } => {
                tracing::debug!(relay.url = %url, ?pause, "session with {url} failed: {error}");
            }
            _ => set_aside("synchronizer_session", url.as_str(), Some(pause), &error),
        }
        let detail = json!({
            "what": "session_failed", "reason": reason(&error), "message": error.to_string(), "again_in_s": pause.as_secs(),
        });
        self.parts.relays.append(RelayCommand::Observe { relay, detail }).await?;
        Ok(())
    }
}

/// The failure as a short constant for metrics and the journal.
fn reason(error: &SyncError) -> &'static str {
    match error {
        SyncError::Relay(error) => error.reason(),
        SyncError::LeaseLost => "lease_lost",
        SyncError::Narrowed => "narrowed",
        SyncError::Panicked(_) | SyncError::Session(_) => "panicked",
        SyncError::MostlyRefused { .. } => "mostly_refused",
        SyncError::Store(store::Error::Data(_)) => "refused_data",
        SyncError::Store(_) => "database",
        SyncError::Count(_) | SyncError::Comparison(_) => "error",
    }
}
