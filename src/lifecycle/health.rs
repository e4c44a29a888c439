//! Health of the services, for `/healthz`, `/readyz`, `/metrics` and the console.
//!
//! | state | entered by | left by |
//! |---|---|---|
//! | starting | registration | the end of the first cycle, or the start of a long one |
//! | ok | a cycle that succeeded; a long cycle at work | a failed cycle, an obstacle, the end of a run-once service, the drain |
//! | failing | a failed cycle | a cycle that succeeds; a long cycle that lasts for 30 s |
//! | waiting | an external obstacle, such as a full disk or a database that does not answer | the next report of the service |
//! | done | a run-once service that has finished | (final) |
//! | stopped | the drain | (final) |

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::sync::watch;

use crate::base::Clock;

/// State of a service; the head of this module has the transitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ServiceState {
    /// No cycle has ended yet; for services with long cycles: none has started.
    Starting,
    /// The last cycle succeeded, or a long cycle is at work.
    Ok,
    /// The last cycle failed.
    Failing {
        /// Time of the first failure in the current row of failures.
        since: DateTime<Utc>,
        /// The last failure with its causes, in one line.
        reason: String,
    },
    /// The service works, but waits for something outside of Quipu, such as space on a full disk or an answer
    /// of the database. A restart would not help.
    Waiting {
        /// Start of the wait.
        since: DateTime<Utc>,
        /// The obstacle, in one line.
        reason: String,
    },
    /// The service has nothing more to do. Final.
    Done,
    /// The drain stopped it. Final.
    Stopped,
}

/// State and counters of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceHealth {
    /// The state.
    #[serde(flatten)]
    pub state: ServiceState,
    /// End of the last cycle, successful or not.
    pub last_cycle_at: Option<DateTime<Utc>>,
    /// Cycles that ended, failed ones included.
    pub cycles: u64,
    /// Cycles that failed.
    pub failures: u64,
}

/// Health of all services together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Liveness {
    /// No service is failing. Decides the status of `/healthz`.
    pub is_healthy: bool,
    /// Every service has succeeded at least once or is at work on its first long cycle, and none fails, waits
    /// or was stopped. Decides the status of
    /// `/readyz`.
    pub is_ready: bool,
}

/// The table of all services' health. Clones share it.
#[derive(Debug, Clone)]
pub struct HealthRegistry {
    services: Arc<Mutex<BTreeMap<String, ServiceHealth>>>,
    changed: watch::Sender<()>,
    clock: Arc<dyn Clock>,
}

impl HealthRegistry {
    /// Creates an empty table. `clock` supplies the times of events.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { services: Arc::default(), changed: watch::Sender::default(), clock }
    }

    /// Registers `service` as [`ServiceState::Starting`], or resets it.
    pub fn starting(&self, service: &str) {
        let fresh =
            ServiceHealth { state: ServiceState::Starting, last_cycle_at: None, cycles: 0, failures: 0 };
        self.lock().insert(service.to_owned(), fresh);
        self.changed.send_replace(());
    }

    /// Reports that `service` is at work on a cycle that may last for hours, and counts as healthy meanwhile.
    pub fn working(&self, service: &str) {
        self.change(service, |health, _| health.state = ServiceState::Ok);
    }

    /// Reports that a cycle of `service` succeeded.
    pub fn cycle_succeeded(&self, service: &str) {
        self.change(service, |health, now| {
            health.cycles += 1;
            health.last_cycle_at = Some(now);
            health.state = ServiceState::Ok;
        });
    }

    /// Reports that a cycle of `service` failed for `reason`.
    pub fn cycle_failed(&self, service: &str, reason: &str) {
        self.change(service, |health, now| {
            let since = match health.state {
                ServiceState::Failing { since, .. } => since,
                _ => now,
            };
            health.cycles += 1;
            health.failures += 1;
            health.last_cycle_at = Some(now);
            health.state = ServiceState::Failing { since, reason: reason.to_owned() };
        });
    }

    /// Reports that `service` waits for something outside of Quipu, for `reason`.
    pub fn waiting(&self, service: &str, reason: &str) {
        self.change(service, |health, now| {
            let since = match health.state {
                ServiceState::Waiting { since, .. } => since,
                _ => now,
            };
            health.state = ServiceState::Waiting { since, reason: reason.to_owned() };
        });
    }

    /// Reports that `service` has nothing more to do.
    pub fn done(&self, service: &str) {
        self.change(service, |health, _| health.state = ServiceState::Done);
    }

    /// Reports that the drain stopped `service`.
    pub fn stopped(&self, service: &str) {
        self.change(service, |health, _| health.state = ServiceState::Stopped);
    }

    /// A copy of the table, sorted by name.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<String, ServiceHealth> {
        self.lock().clone()
    }

    /// Health of all services together.
    #[must_use]
    pub fn liveness(&self) -> Liveness {
        liveness(self.lock().values().map(|health| &health.state))
    }

    /// Whether `service` is still [`ServiceState::Starting`].
    pub(super) fn is_starting(&self, service: &str) -> bool {
        self.lock().get(service).is_some_and(|health| health.state == ServiceState::Starting)
    }

    /// The services that are still [`ServiceState::Starting`].
    #[must_use]
    pub fn still_starting(&self) -> Vec<String> {
        let services = self.lock();
        let starting = services.iter().filter(|(_, health)| health.state == ServiceState::Starting);
        starting.map(|(name, _)| name.clone()).collect()
    }

    /// Waits until no service is [`ServiceState::Starting`] any more.
    pub async fn started(&self) {
        let mut changes = self.changed.subscribe();
        while !self.still_starting().is_empty() {
            // Cannot fail: `self` holds the sender.
            let _ = changes.changed().await;
        }
    }

    fn change(&self, service: &str, change: impl FnOnce(&mut ServiceHealth, DateTime<Utc>)) {
        let now = self.clock.now();
        if let Some(health) = self.lock().get_mut(service) {
            change(health, now);
        }
        self.changed.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, ServiceHealth>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn liveness<'a>(states: impl Iterator<Item = &'a ServiceState>) -> Liveness {
    let mut all = Liveness { is_healthy: true, is_ready: true };
    for state in states {
        match state {
            ServiceState::Ok | ServiceState::Done => {}
            ServiceState::Starting | ServiceState::Waiting { .. } | ServiceState::Stopped => {
                all.is_ready = false;
            }
            ServiceState::Failing { .. } => all = Liveness { is_healthy: false, is_ready: false },
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing() -> ServiceState {
        ServiceState::Failing { since: DateTime::UNIX_EPOCH, reason: "no database".to_owned() }
    }

    #[test]
    fn a_starting_service_is_healthy_but_not_ready() {
        let all = liveness([ServiceState::Ok, ServiceState::Starting].iter());
        assert_eq!(all, Liveness { is_healthy: true, is_ready: false });
    }

    #[test]
    fn one_failing_service_makes_all_unhealthy_whatever_follows_it() {
        let all = liveness([failing(), ServiceState::Stopped, ServiceState::Ok].iter());
        assert_eq!(all, Liveness { is_healthy: false, is_ready: false });
    }

    #[test]
    fn a_waiting_service_is_healthy_but_not_ready() {
        let waiting =
            ServiceState::Waiting { since: DateTime::UNIX_EPOCH, reason: "the disk is full".to_owned() };
        assert_eq!(
            liveness([ServiceState::Ok, waiting].iter()),
            Liveness { is_healthy: true, is_ready: false }
        );
    }

    #[test]
    fn done_counts_as_ready() {
        assert!(liveness([ServiceState::Done, ServiceState::Ok].iter()).is_ready);
    }

    #[test]
    fn a_row_of_failures_keeps_the_time_of_its_first_one() {
        #[derive(Debug)]
        struct Ticking(Mutex<i64>);
        impl Clock for Ticking {
            fn now(&self) -> DateTime<Utc> {
                let mut at = self.0.lock().unwrap();
                *at += 1;
                DateTime::from_timestamp(*at, 0).unwrap()
            }
        }
        let health = HealthRegistry::new(Arc::new(Ticking(Mutex::new(0))));
        health.starting("finder");
        health.cycle_failed("finder", "first");
        health.cycle_failed("finder", "second");
        let finder = &health.snapshot()["finder"];
        let since = DateTime::from_timestamp(1, 0).unwrap();
        assert_eq!(finder.state, ServiceState::Failing { since, reason: "second".to_owned() });
        assert_eq!((finder.cycles, finder.failures), (2, 2));
    }
}
