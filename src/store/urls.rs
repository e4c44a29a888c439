//! The database URLs of the write, session, read and owner connections.

use super::{Error, Server};
use crate::base::Secret;

/// One database URL per kind of connection. Each contains the password of its role.
#[derive(Debug, Clone)]
pub struct DatabaseUrls {
    /// Role `quipu` through PgBouncer, transaction pooling: appends, and rows that drive work.
    pub write: Secret,
    /// Role `quipu_session` through PgBouncer, session pooling: reads that must be current, LISTEN.
    pub session: Secret,
    /// Role `quipu_session` on a replica if there is one, else the same as `session`: analytics.
    pub read: Secret,
    /// Role `quipu_owner`, without PgBouncer: migrations, retention, erasure. `None` where its password is not
    /// known: services run without it, once another process has migrated the schema.
    pub owner: Option<Secret>,
}

impl DatabaseUrls {
    /// The owner's URL.
    ///
    /// # Errors
    /// [`Error::NoOwner`].
    pub fn owner(&self) -> Result<&Secret, Error> {
        self.owner.as_ref().ok_or(Error::NoOwner)
    }

    /// The role of the session URL at the owner's address, which is PostgreSQL's own; `None` where there is no
    /// owner's URL, or where the session URL has no password.
    ///
    /// # Errors
    /// [`Error::Url`].
    pub(super) fn direct_session(&self) -> Result<Option<Server>, Error> {
        let Some(owner) = &self.owner else { return Ok(None) };
        let (session, owner) = (Server::parse(&self.session)?, Server::parse(owner)?);
        let Some(password) = session.password() else { return Ok(None) };
        let url = owner.with_role(session.role(), &Secret::new(password), owner.database())?;
        Server::parse(&url).map(Some)
    }

    /// Logs in with the write, session and read URLs, so that a refused login is reported at the start, with
    /// role and database.
    ///
    /// # Errors
    /// [`Error::Url`], [`Error::Unavailable`], [`Error::Broken`] of the first URL that fails.
    pub async fn check(&self) -> Result<(), Error> {
        for (name, url) in [("write", &self.write), ("session", &self.session), ("read", &self.read)] {
            let server = Server::parse(url)?;
            // Behind PgBouncer, the login to PostgreSQL happens only with the first statement.
            let asked = server.connect().await?.query_typed("-- try_url\nSELECT 1", &[]).await;
            asked
                .map_err(|error| Error::from(error).during(format!("use the {name} URL"), server.target()))?;
        }
        Ok(())
    }
}
