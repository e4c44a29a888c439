//! The addresses of the four doors (DESIGN section 4).

use super::{Error, Server};
use crate::base::Secret;

/// Where PostgreSQL is reached, once for each door. Every URL carries its role's password.
#[derive(Debug, Clone)]
pub struct DatabaseUrls {
    /// Role `quipu` through PgBouncer, transaction pooling: append and driving rows.
    pub write: Secret,
    /// Role `quipu_session` through PgBouncer, session pooling: current reads, LISTEN.
    pub session: Secret,
    /// Role `quipu_session` on a replica when there is one, else the same as `session`: analytics.
    pub read: Secret,
    /// Role `quipu_owner`, direct to PostgreSQL: migrations, months, retention, erasure.
    pub owner: Secret,
}

impl DatabaseUrls {
    /// Logs in at the write, session and read doors, so that a refusal is told at the start with its role and database.
    ///
    /// # Errors
    /// [`Error::Url`], [`Error::Unavailable`], [`Error::Broken`] of the first door that does not open.
    pub async fn check(&self) -> Result<(), Error> {
        for (door, url) in [("write", &self.write), ("session", &self.session), ("read", &self.read)] {
            let server = Server::parse(url)?;
            // Behind PgBouncer the login to PostgreSQL happens with the first statement.
            let asked = server.connect().await?.query_typed("SELECT 1", &[]).await;
            asked.map_err(|error| Error::from(error).during(format!("open the {door} door"), &server))?;
        }
        Ok(())
    }
}
