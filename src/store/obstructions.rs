//! Ends sessions of analysts that block the service.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::Error;
use super::server::Server;
use crate::base::{Secret, counted};

/// Maximum age of a transaction of the roles for people, in seconds.
const TRANSACTION_S_MAX: i32 = 120;

/// Interval of the checks.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Ends sessions of the roles for people that hold an advisory lock or a transaction older than 120 s. The
/// roles' own limits are not enough, because a session can lift them. Returns the number of ended sessions.
/// `session` is the URL of the session pool.
///
/// Uses its own connection, because operations that wait for such a session may hold every connection of the
/// pools.
///
/// # Errors
/// As the database answers; for instance, the service's role may not be a member of the roles for people.
pub async fn end_blocking_sessions(session: &Secret) -> Result<i32, Error> {
    let client = Server::parse(session)?.connect().await?;
    let statement = "-- end_obstructions\nSELECT quipu_end_obstructions($1)";
    let rows = client.query_typed(statement, &[(&TRANSACTION_S_MAX, Type::INT4)]).await?;
    let ended = rows.first().map_or(0, |row| row.get(0));
    if ended > 0 {
        let sessions = counted(ended, "session", "sessions");
        tracing::warn!(sessions = ended, "ended {sessions} of analysts that blocked the service");
    }
    Ok(ended)
}

/// Runs `work`, which takes locks before the services run, and meanwhile ends sessions of people that block
/// it.
pub async fn while_ending_blocking_sessions<T>(session: &Secret, work: impl Future<Output = T>) -> T {
    let guard = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            // Before the first migration neither the function nor any analyst exists.
            if let Err(error) = end_blocking_sessions(session).await {
                tracing::debug!("cannot look for sessions that block the start: {error}");
            }
        }
    };
    tokio::select! {
        done = work => done,
        never = guard => never,
    }
}
