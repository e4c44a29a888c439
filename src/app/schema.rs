//! Roles, schema and tables of a database, as this program needs them: migrated as the owner, or checked.

use anyhow::{Error, Result, bail};

use crate::base::{Secret, counted};
use crate::config::Configuration;
use crate::store::owner::{self, Procedures};
use crate::store::schema::check_schema;
use crate::store::{DatabaseUrls, setup, while_ending_blocking_sessions};

/// Checks the roles, migrates as the owner, and checks the tables.
///
/// # Errors
/// When the owner's URL is not known, a URL does not log in, something is missing, or a migration fails.
pub async fn migrate(configuration: &Configuration, urls: &DatabaseUrls) -> Result<()> {
    let (owner, procedures) = (urls.owner()?, procedures(configuration)?);
    // Roles are checked first, because a migration's own error would name only the first missing privilege;
    // tables are checked afterwards, because migrations make them.
    check_roles(owner).await.map_err(|error| with_origin_of_owner(error, configuration))?;
    let migrated = while_ending_blocking_sessions(urls, Box::pin(owner::migrate(owner, &procedures))).await?;
    setup::check_tables(owner).await?;
    urls.check().await?;
    if !migrated.applied.is_empty() {
        tracing::info!("{} applied", counted(migrated.applied.len(), "migration", "migrations"));
    }
    refuse_another_cluster(migrated.needs_rebase)
}

/// Checks roles, schema and tables as the service, which cannot change them.
pub(super) async fn check(configuration: &Configuration, urls: &DatabaseUrls) -> Result<()> {
    let procedures = procedures(configuration)?;
    check_roles(&urls.session).await?;
    let needs_rebase = check_schema(&urls.session, &procedures).await?;
    setup::check_tables(&urls.session).await?;
    urls.check().await?;
    refuse_another_cluster(needs_rebase)
}

fn procedures(configuration: &Configuration) -> Result<Procedures> {
    Ok(Procedures {
        implementation: configuration.implementation.name().to_owned(),
        sql: configuration.implementation.procedures_sql()?.into_owned(),
    })
}

async fn check_roles(login: &Secret) -> Result<(), setup::Error> {
    for advice in setup::check_roles(login).await? {
        tracing::warn!(
            "PostgreSQL is not as advised. Advised: {advice}; `quipu setup-sql --check` prints the statement"
        );
    }
    Ok(())
}

/// Says that the owner's URL was derived, if it was: then the operator looks for the wrong password in vain.
fn with_origin_of_owner(error: setup::Error, configuration: &Configuration) -> Error {
    let database = &configuration.database;
    let is_derived = database.write.is_some() && database.owner.is_none() && !database.is_administrators();
    match error {
        setup::Error::Store(_) if is_derived => Error::new(error).context(
            "QUIPU_OWNER_DATABASE_URL is not set: the owner's URL has the address and password of DATABASE_URL. Set it, \
             straight to PostgreSQL",
        ),
        other => other.into(),
    }
}

fn refuse_another_cluster(needs_rebase: bool) -> Result<()> {
    if needs_rebase {
        bail!("the database was restored into another cluster: run `quipu rebase` once, then start again");
    }
    Ok(())
}
