//! Sessions of people that hold up the service.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::Error;
use super::server::Server;
use crate::base::Secret;

/// How old transactions of analysts may be, in seconds.
const TRANSACTION_S_MAX: i32 = 120;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Ends sessions of the roles for people that hold an advisory lock, or a transaction older than 120 s: the limits of these roles can
/// be lifted by the session itself. Returns how many were ended. `session` is the URL of the session door.
///
/// Uses a connection of its own: what waits for such a session may hold every connection of the pools.
///
/// # Errors
/// What the database answers; among it that the service's role is no member of the roles for people.
pub async fn end_obstructions(session: &Secret) -> Result<i32, Error> {
    let client = Server::parse(session)?.connect().await?;
    let statement = "SELECT quipu_end_obstructions($1)";
    let rows = client.query_typed(statement, &[(&TRANSACTION_S_MAX, Type::INT4)]).await?;
    let ended = rows.first().map_or(0, |row| row.get(0));
    if ended > 0 {
        tracing::warn!(sessions = ended, "{ended} sessions of analysts held up the service and were ended");
    }
    Ok(ended)
}

/// Does `work`, which takes locks before the services run, and ends sessions of people that hold it up meanwhile.
pub async fn unobstructed<T>(session: &Secret, work: impl Future<Output = T>) -> T {
    let guard = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            // Before the first migration there is neither the function nor an analyst.
            if let Err(error) = end_obstructions(session).await {
                tracing::debug!("sessions that hold up the start cannot be looked for: {error}");
            }
        }
    };
    tokio::select! {
        done = work => done,
        never = guard => never,
    }
}
