//! Sessions of people that hold up the service.

use tokio_postgres::types::Type;

use super::server::Server;
use super::{Doors, Error};

/// Ends sessions of the roles for people that hold an advisory lock, or a transaction older than `transaction_s_max` seconds: the limits
/// of these roles can be lifted by the session itself. Returns how many were ended.
///
/// Uses a connection of its own: what waits for such a session may hold every connection of the pools.
///
/// # Errors
/// What the database answers; among it that the service's role is no member of the roles for people.
pub async fn end_obstructions(doors: &Doors, transaction_s_max: i32) -> Result<i32, Error> {
    let client = Server::parse(&doors.urls().session)?.connect().await?;
    let statement = "SELECT quipu_end_obstructions($1)";
    let rows = client.query_typed(statement, &[(&transaction_s_max, Type::INT4)]).await?;
    Ok(rows.first().map_or(0, |row| row.get(0)))
}
