//! Ends sessions of the roles for people that block the service. The roles' own limits are not enough, because
//! a session can lift them.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::server::Server;
use super::{DatabaseUrls, Error, Pools};
use crate::base::{counted, noun};

/// Maximum age of a transaction or statement of the roles for people, in seconds.
const TRANSACTION_S_MAX: i32 = 120;

/// Interval of the checks.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Maximum time of a login or an answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// How long readers may keep maintenance from a table, counted from the first refusal.
const PATIENCE: Duration = Duration::from_mins(1);

/// Interval at which sessions that block a waiting statement are ended. Shorter than the shortest
/// `lock_timeout` of maintenance, 200 ms.
const END_BLOCKERS_EVERY: Duration = Duration::from_millis(50);

/// Why the guard does not do its work.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// As the database answers; for instance, the service's role may not be a member of the roles for people.
    #[error(transparent)]
    Store(#[from] Error),
    /// A session got the signal to end at an earlier check and goes on.
    #[error(
        "{told} told to end and {go} on; process {pid} of role {role} {reason}, in a statement that PostgreSQL \
         cannot interrupt. On the database server, run `kill -9 {pid}`: PostgreSQL then restarts all sessions within seconds. \
         Keep the role out meanwhile: ALTER ROLE {role} NOLOGIN",
        told = counted(*sessions, "session was", "sessions were"),
        go = noun(*sessions, "goes", "go")
    )]
    GoesOn {
        /// Number of such sessions.
        sessions: usize,
        /// Process id of one of them, at the database server.
        pid: i32,
        /// Its role.
        role: String,
        /// What it does that blocks the service.
        reason: String,
    },
}

/// Ends sessions of the roles for people that hold an advisory lock, hold or wait for a lock that stops
/// others, or have a transaction or a statement older than 120 s. Keeps one connection: operations that wait
/// for such a session may hold every connection of the pools, and people may use up the places of PostgreSQL
/// or PgBouncer for new ones.
#[derive(Debug)]
pub struct SessionGuard {
    /// Around PgBouncer; `None` where the owner's URL is not known or the session's URL has no password.
    direct: Option<Server>,
    session: Server,
    state: tokio::sync::Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    client: Option<Client>,
    /// Sessions that were told to end at the last check: process id and start, microseconds since 1970.
    told: HashSet<(i32, i64)>,
}

impl SessionGuard {
    /// A guard of the database of these URLs. It connects at its first check.
    ///
    /// # Errors
    /// [`Error::Url`].
    pub fn new(urls: &DatabaseUrls) -> Result<Self, Error> {
        let session = Server::parse(&urls.session)?;
        Ok(Self { direct: urls.direct_session()?, session, state: tokio::sync::Mutex::default() })
    }

    /// Checks once. Returns the number of sessions that were told to end and were not before.
    ///
    /// # Errors
    /// [`GuardError`].
    pub async fn look(&self) -> Result<usize, GuardError> {
        let mut state = self.state.lock().await;
        let client = match state.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => self.connect().await?,
        };
        // Not in WHERE: PostgreSQL would be free to end sessions before it has judged them.
        let statement = "-- end_obstructions
            SELECT pid, started_us, role, reason, pg_terminate_backend(pid) FROM quipu_obstructions($1)";
        let asked = client.query_typed(statement, &[(&TRANSACTION_S_MAX, Type::INT4)]);
        // After an error the next check connects anew.
        let rows = timeout(ANSWER_MAX, asked).await.map_err(Error::unavailable)?.map_err(Error::from)?;
        state.client = Some(client);
        // Without those that ended meanwhile.
        let rows: Vec<Row> = rows.into_iter().filter(|row| row.get(4)).collect();
        let session = |row: &Row| -> (i32, i64) { (row.get(0), row.get(1)) };
        let told = rows.iter().map(session).collect();
        let told_before = std::mem::replace(&mut state.told, told);
        let (old, new): (Vec<_>, Vec<_>) = rows.iter().partition(|row| told_before.contains(&session(row)));
        if let Some(row) = new.first() {
            let (sessions, role, reason): (_, &str, &str) = (new.len(), row.get(2), row.get(3));
            tracing::warn!(
                sessions,
                "told {} of people to end; the first, of {role}, {reason}",
                counted(sessions, "session", "sessions")
            );
        }
        let Some(row) = old.first() else { return Ok(new.len()) };
        Err(GuardError::GoesOn { sessions: old.len(), pid: row.get(0), role: row.get(2), reason: row.get(3) })
    }

    async fn connect(&self) -> Result<Client, Error> {
        if let Some(direct) = &self.direct {
            match timeout(ANSWER_MAX, direct.connect()).await.map_err(Error::unavailable).flatten() {
                Ok(client) => return Ok(client),
                Err(error) => tracing::warn!(
                    "the guard connects through the session URL, where people can use up the connections: {error}"
                ),
            }
        }
        timeout(ANSWER_MAX, self.session.connect()).await.map_err(Error::unavailable)?
    }
}

/// Runs `work`, which takes locks before the services run, and meanwhile ends sessions of people that block
/// it.
pub async fn while_ending_blocking_sessions<T>(urls: &DatabaseUrls, work: impl Future<Output = T>) -> T {
    let guard = async {
        let guard = loop {
            match SessionGuard::new(urls) {
                Ok(guard) => break guard,
                Err(error) => tracing::debug!("cannot look for sessions that block the start: {error}"),
            }
            sleep(LOOK_EVERY).await;
        };
        loop {
            sleep(LOOK_EVERY).await;
            // Before the first migration neither the function nor any analyst exists.
            if let Err(error) = guard.look().await {
                tracing::debug!("cannot look for sessions that block the start: {error}");
            }
        }
    };
    tokio::select! {
        done = work => done,
        never = guard => never,
    }
}

/// How long maintenance has waited for a table that readers use.
#[derive(Debug, Default)]
pub struct Patience(Mutex<Option<Instant>>);

impl Patience {
    /// Records the outcome of an attempt.
    pub fn record(&self, is_refused: bool) {
        let mut refused_since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *refused_since = is_refused.then(|| refused_since.unwrap_or_else(Instant::now));
    }

    fn is_over(&self) -> bool {
        let refused_since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refused_since.is_some_and(|since| since.elapsed() >= PATIENCE)
    }

    /// Runs an attempt. Once attempts were refused for a minute, sessions of people that block it are ended,
    /// however young they are.
    pub async fn attempt<T>(&self, pools: &Pools, work: impl Future<Output = T>) -> T {
        if !self.is_over() {
            return work.await;
        }
        let ender = async {
            loop {
                sleep(END_BLOCKERS_EVERY).await;
                if let Err(error) = end_blockers(pools).await {
                    tracing::debug!("cannot end sessions that block maintenance: {error}");
                }
            }
        };
        tokio::select! {
            done = work => done,
            never = ender => never,
        }
    }
}

async fn end_blockers(pools: &Pools) -> Result<(), Error> {
    let client = pools.write.get().await?;
    let rows = client.query_typed("-- end_blockers\nSELECT quipu_end_blockers()", &[]).await?;
    let ended: i32 = rows.first().map_or(0, |row| row.get(0));
    if ended > 0 {
        tracing::warn!(
            sessions = ended,
            "ended {} of people that kept maintenance from a table",
            counted(ended, "session", "sessions")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn patience_counts_from_the_first_refusal_and_begins_anew_after_a_success() {
        let patience = Patience::default();
        patience.record(true);
        tokio::time::advance(PATIENCE / 2).await;
        patience.record(true);
        assert!(!patience.is_over());
        tokio::time::advance(PATIENCE / 2).await;
        assert!(patience.is_over());
        patience.record(false);
        patience.record(true);
        assert!(!patience.is_over());
    }
}
