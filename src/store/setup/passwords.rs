//! Decides which passwords the roles of an operator's server get: those of this data folder, or new random
//! ones.

use tokio_postgres::Transaction;

use super::credentials::{Credentials, PasswordFile, derived_owner};
use super::error::Error;
use super::requirements::ROLES;
use crate::base::Secret;
use crate::store::{self, Server};

/// SQLSTATE: the password is wrong.
const WRONG_PASSWORD: &str = "28P01";

/// The passwords, and whether the server still has to receive them.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) credentials: Credentials,
    pub(super) must_be_set: bool,
}

/// Finds the roles' passwords. They are written to the file before the server gets them, so a crash in
/// between loses none: the next start reads the file, finds that the server does not accept them yet, and
/// sets them.
///
/// The passwords of existing roles are replaced in one case only: the server accepts the password that an
/// earlier version derived from the administrator's.
pub(super) async fn settle(
    transaction: &Transaction<'_>,
    server: &Server,
    stored: &PasswordFile<'_>,
) -> Result<Settled, Error> {
    let kept = stored.load()?;
    let existing: i64 = transaction
        .query_one(
            "-- count_roles\nSELECT count(*) FROM pg_roles WHERE rolname::text = ANY ($1)",
            &[&&ROLES[..]],
        )
        .await
        .map_err(|error| store::Error::from(error).during("look for Quipu's roles", server.target()))?
        .get(0);
    if existing == 0 {
        let credentials = match kept {
            Some(kept) => kept,
            None => generate(stored)?,
        };
        return Ok(Settled { credentials, must_be_set: true });
    }
    if let Some(kept) = &kept
        && accepts(server, &kept.owner).await?
    {
        return Ok(Settled { credentials: kept.clone(), must_be_set: false });
    }
    if let Some(password) = server.password()
        && accepts(server, &derived_owner(&password)).await?
    {
        tracing::warn!(
            "the roles' passwords were derived from the administrator's: replacing them with random passwords, kept in {}; other \
             machines need a copy of that file",
            stored.path.display()
        );
        let credentials = match kept {
            Some(kept) => kept,
            None => generate(stored)?,
        };
        return Ok(Settled { credentials, must_be_set: true });
    }
    Err(Error::PasswordsUnknown { address: server.address(), stored: stored.path.clone() })
}

fn generate(stored: &PasswordFile<'_>) -> Result<Credentials, Error> {
    let credentials = Credentials::random();
    stored.save(&credentials)?;
    Ok(credentials)
}

/// Whether the server accepts this password for `quipu_owner`. The database exists; the server checks the
/// right to enter it after the password, so a refusal for that reason means that the password is right.
async fn accepts(server: &Server, password: &Secret) -> Result<bool, Error> {
    let owner = Server::parse(&server.with_role("quipu_owner", password, server.database())?)?;
    match owner.connect().await {
        Ok(_client) => Ok(true),
        Err(error) if error.sqlstate() == Some(WRONG_PASSWORD) => Ok(false),
        Err(error) if error.sqlstate() == Some("42501") => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Sets the password of each of these roles, as a SCRAM verifier.
pub(super) async fn set(
    transaction: &Transaction<'_>,
    server: &Server,
    roles: &[(&'static str, &Secret)],
) -> Result<(), Error> {
    for (role, password) in roles {
        let verifier = verifier(password);
        transaction.batch_execute(&format!("ALTER ROLE {role} PASSWORD '{verifier}'")).await.map_err(
            |error| {
                let action = format!("set the password of role {role}");
                Error::refused(error, &action, &format!("ALTER ROLE {role} PASSWORD '...'"), server)
            },
        )?;
    }
    Ok(())
}

/// The form in which the server stores a password. It consists of base64, `$` and `:`, so it needs no
/// quoting.
pub(super) fn verifier(password: &Secret) -> String {
    postgres_protocol::password::scram_sha_256(password.expose().as_bytes())
}
