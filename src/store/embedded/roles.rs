//! Quipu's roles and databases on any PostgreSQL: the private one, an external one, a test's.

use std::{future::Future, str::FromStr, time::Duration};

use tokio_postgres::{Client, Config, NoTls, error::SqlState};

use super::{credentials::Credentials, error::Error};
use crate::base::Secret;

/// How long one login may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The key of the advisory lock under which roles are made: "quipu" in ASCII.
const ROLES_LOCK: i64 = 0x0071_7569_7075;

/// What each role is, beyond its name and password. Idempotent.
const ROLE_DUTIES: &str = "
    ALTER ROLE quipu_owner LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;
    ALTER ROLE quipu LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;
    ALTER ROLE quipu_session LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;
    ALTER ROLE quipu_reader LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;
    GRANT quipu TO quipu_session;
    GRANT pg_read_all_stats TO quipu;
    ALTER ROLE quipu_messages_reader LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;
    ALTER ROLE quipu_writer LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;
    GRANT quipu_reader TO quipu_messages_reader;
    -- The service may end these roles' sessions when they hold up its writers (quipu_end_obstructions).
    GRANT quipu_reader, quipu_messages_reader, quipu_writer TO quipu;
    DO $$
    DECLARE person text;
    BEGIN
        FOREACH person IN ARRAY ARRAY['quipu_reader', 'quipu_messages_reader', 'quipu_writer'] LOOP
            EXECUTE format('ALTER ROLE %I SET statement_timeout = %L', person, '60s');
            EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout = %L', person, '60s');
            EXECUTE format('ALTER ROLE %I SET lock_timeout = %L', person, '10s');
        END LOOP;
    END $$;
    ALTER ROLE quipu_reader SET default_transaction_read_only = on;
    ALTER ROLE quipu_messages_reader SET default_transaction_read_only = on;
    -- Whole pages in the WAL, compressed with lz4 where the server knows it: with PostgreSQL's own method a batch that fills gaps in
    -- old pages spends a fifteenth of its time on them.
    DO $$ BEGIN
        ALTER ROLE quipu SET wal_compression = lz4;
    EXCEPTION WHEN invalid_parameter_value OR insufficient_privilege THEN NULL;
    END $$;";

/// Makes Quipu's roles where they are missing, and gives
/// all of them these passwords and their attributes. Passwords travel as SCRAM verifiers, so no log can show them.
///
/// Roles belong to the whole server: two Quipus that share one must share their credentials.
///
/// # Errors
/// [`Error::Address`] for an unreadable URL, [`Error::Sql`] when the server refuses; nothing has changed then.
pub async fn create_roles(superuser: &Secret, credentials: &Credentials) -> Result<(), Error> {
    let roles = credentials.roles().map(|(role, password)| (role, scram_verifier(password)));
    connected(superuser, "create Quipu's roles", |mut client| async move {
        let tx = client.transaction().await?;
        tx.execute("SELECT pg_advisory_xact_lock($1)", &[&ROLES_LOCK]).await?;
        for (role, verifier) in roles {
            let statement = "
                SELECT format('%s ROLE %I PASSWORD %L',
                              CASE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = $1) THEN 'ALTER' ELSE 'CREATE' END,
                              $1::text, $2::text)";
            let row = tx.query_one(statement, &[&role, &verifier]).await?;
            tx.batch_execute(row.get(0)).await?;
        }
        tx.batch_execute(ROLE_DUTIES).await?;
        tx.commit().await
    })
    .await
}

/// Makes a database that `quipu_owner` owns and only Quipu's roles may enter, unless it is there: UTF8, locale C,
/// from `template0`. The roles must exist.
///
/// # Errors
/// [`Error::Address`] for an unreadable URL, [`Error::Sql`] when the server refuses.
pub async fn create_database(superuser: &Secret, name: &str) -> Result<(), Error> {
    let name = name.to_owned();
    connected(superuser, "create the database", |client| async move {
        let exists = "SELECT FROM pg_database WHERE datname = $1";
        let quoted: String = client.query_one("SELECT quote_ident($1::text)", &[&name]).await?.get(0);
        if client.query_opt(exists, &[&name]).await?.is_none() {
            let create = format!(
                "CREATE DATABASE {quoted} OWNER quipu_owner TEMPLATE template0 ENCODING 'UTF8' \
                 LOCALE_PROVIDER libc LOCALE 'C'"
            );
            match client.batch_execute(&create).await {
                // Somebody else was faster.
                Err(error) if error.code() == Some(&SqlState::DUPLICATE_DATABASE) => {}
                answer => answer?,
            }
        }
        client
            .batch_execute(&format!(
                "REVOKE ALL ON DATABASE {quoted} FROM PUBLIC;
                 GRANT CONNECT, TEMPORARY ON DATABASE {quoted} TO quipu;
                 GRANT CONNECT ON DATABASE {quoted} TO quipu_session, quipu_reader, quipu_messages_reader, quipu_writer;"
            ))
            .await
    })
    .await
}

/// Logs in once and leaves.
///
/// # Errors
/// [`Error::Address`], [`Error::Sql`].
pub(super) async fn log_in(url: &Secret) -> Result<(), Error> {
    connected(url, "log in", |_client| async { Ok(()) }).await
}

/// Runs `work` on a connection of its own, which ends with it.
async fn connected<T, F>(
    url: &Secret,
    action: &'static str,
    work: impl FnOnce(Client) -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, tokio_postgres::Error>>,
{
    let failed = |source| Error::Sql { action, source };
    let mut config =
        Config::from_str(url.expose()).map_err(|error| Error::Address { reason: error.to_string() })?;
    config.connect_timeout(CONNECT_TIMEOUT).application_name("quipu setup");
    let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
    // The connection ends when `work` lets go of the client; if it breaks, `work` is told through the client.
    let (answer, _) = tokio::join!(work(client), connection);
    answer.map_err(failed)
}

fn scram_verifier(password: &Secret) -> String {
    postgres_protocol::password::scram_sha_256(password.expose().as_bytes())
}
