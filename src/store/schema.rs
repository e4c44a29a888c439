//! The schema, as a process sees it that cannot migrate it: a service without the owner's login.

use super::owner::{
    self, MigrateError, Procedures, has_functions, hash_of_functions, newest_known, newest_migration,
};
use super::{Error, Server};
use crate::base::Secret;

/// Checks that the schema is as [`owner::migrate`] of this binary leaves it, on one connection with session
/// pooling. Returns whether the database was restored into another cluster, as in
/// [`owner::Migrated::needs_rebase`].
///
/// # Errors
/// [`MigrateError`].
pub async fn check_schema(login: &Secret, procedures: &Procedures) -> Result<bool, MigrateError> {
    let server = Server::parse(login)?;
    check_on(&server, procedures).await.map_err(|error| match error {
        MigrateError::Store(error) => MigrateError::Store(error.during("check the schema", server.target())),
        other => other,
    })
}

async fn check_on(server: &Server, procedures: &Procedures) -> Result<bool, MigrateError> {
    let client = server.connect().await?;
    let needed = newest_known();
    let history = "-- can_read_schema_history
        SELECT to_regclass('refinery_schema_history') IS NOT NULL,
               coalesce(has_table_privilege(to_regclass('refinery_schema_history'), 'SELECT'), false)";
    let row = client.query_one(history, &[]).await.map_err(Error::from)?;
    let (exists, is_readable): (bool, bool) = (row.get(0), row.get(1));
    if !exists {
        return Err(MigrateError::SchemaTooOld { found: 0, needed });
    }
    owner::refuse_if_too_old(&client, needed).await?;
    owner::refuse_other_implementation(&client, procedures).await?;
    // `functions/journals.sql` lets the service read it.
    if !is_readable {
        return Err(MigrateError::OtherFunctions { needed });
    }
    let found = newest_migration(&client).await?;
    if found < needed {
        return Err(MigrateError::SchemaTooOld { found, needed });
    }
    // A newer schema that still supports this binary has functions of its own.
    if found == needed && !has_functions(&client, &hash_of_functions(procedures)).await? {
        return Err(MigrateError::OtherFunctions { needed });
    }
    Ok(!owner::is_same_cluster(&client).await?)
}
