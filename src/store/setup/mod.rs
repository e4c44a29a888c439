//! Quipu's roles, database and privileges on any PostgreSQL: a private one, an operator's, or a test's.
//!
//! `requirements.rs` lists what Quipu requires, each item with the statement that establishes it. The login
//! of an administrator applies the missing statements ([`create_roles`], [`create_database`], `prepare`,
//! [`prepare_with`]),
//! `quipu setup-sql` prints them ([`script()`]), and every start checks the requirements ([`check_roles`],
//! [`check_tables`]). The administrator need not be a superuser: CREATEROLE and CREATEDB are enough.

mod credentials;
mod error;
mod functions;
mod passwords;
mod people;
mod requirement;
mod requirements;
mod script;
mod statements;

use tokio_postgres::{Client, GenericClient, Transaction};

pub use self::credentials::{Credentials, SharedRole};
pub(super) use self::credentials::{PasswordFile, random_text};
pub use self::error::Error;
use self::passwords::Settled;
pub use self::requirement::Requirement;
use self::requirement::Weight;
pub(super) use self::requirements::ROLES;
pub use self::script::script;
use super::failure::LOG_IN;
use super::{DatabaseUrls, Server};
use crate::base::Secret;

/// Key of the advisory lock held while roles are made: "quipu" in ASCII.
const ROLES_LOCK: i64 = 0x0071_7569_7075;

/// SQLSTATE: a lock was not free within `lock_timeout`.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// SQLSTATE: the database does not exist.
const NO_DATABASE: &str = "3D000";

/// SQLSTATE: a privilege is missing; at a login, the privilege CONNECT.
const NO_PRIVILEGE: &str = "42501";

/// SQLSTATE: another session created the database at the same time.
const DUPLICATE_DATABASE: &str = "42P04";

/// Whether the administrator may act as `quipu_owner`. PostgreSQL 16 and newer separate that right from
/// administering the role.
const CAN_ACT_AS_OWNER: &str = "-- can_act_as_owner
    SELECT pg_has_role(current_user, 'quipu_owner',
                       CASE WHEN current_setting('server_version_num')::integer >= 160000 THEN 'SET' ELSE 'MEMBER' END)";

/// Creates Quipu's roles where they are missing, and sets the passwords of all of them and the settings of the
/// roles for people. The server receives SCRAM verifiers, so no password appears in its log.
///
/// Roles belong to the whole server, so two Quipus on one server must share their credentials.
///
/// # Errors
/// [`Error`]; then nothing has changed.
pub async fn create_roles(admin: &Secret, credentials: &Credentials) -> Result<(), Error> {
    let server = Server::parse(admin)?;
    let mut client = server.connect().await?;
    let transaction = lock(&mut client, &server).await?;
    apply(&transaction, &server, &requirements::of_roles()).await?;
    passwords::set(&transaction, &server, &credentials.roles_of_services()).await?;
    renew_people(&transaction, &server, credentials).await?;
    Ok(transaction.commit().await.map_err(|error| with_action(error, "create Quipu's roles", &server))?)
}

/// Creates the database `name` unless it exists: owned by `quipu_owner`, closed to other roles, UTF8, locale
/// C, from `template0`. On an existing database the roles get the privileges that they lack. The roles must
/// exist.
///
/// # Errors
/// [`Error`].
pub async fn create_database(admin: &Secret, name: &str) -> Result<(), Error> {
    let server = Server::parse(admin)?;
    let client = server.connect().await?;
    ensure_database(&client, &server, name).await?;
    let inside = server.in_database(name)?;
    apply(&inside.connect().await?, &inside, &requirements::inside_database(name)).await
}

/// Where the passwords of the roles come from.
enum Passwords<'a> {
    /// They are random and kept in this file.
    Kept(&'a PasswordFile<'a>),
    /// The operator keeps them.
    Given(&'a Credentials),
}

/// Closes the databases that every PostgreSQL has to roles without rights: there they could take advisory locks
/// and open transactions that the guard of Quipu's database does not see. `admin` is the superuser of a server
/// that serves Quipu alone.
///
/// # Errors
/// [`Error`].
pub(super) async fn close_other_databases(admin: &Secret) -> Result<(), Error> {
    let server = Server::parse(admin)?;
    let action = "close the databases postgres and template1";
    run(&server.connect().await?, &server, action, requirements::CLOSE_OTHER_DATABASES).await
}

/// Prepares an operator's server: roles, passwords, database, privileges. `admin` is the login of an
/// administrator, and its URL names the database. Every role gets the password in `credentials`. On a server
/// that serves Quipu alone, a superuser also closes the databases `postgres` and `template1`.
///
/// # Errors
/// [`Error`].
pub async fn prepare_with(admin: &Secret, credentials: &Credentials) -> Result<(), Error> {
    let server = Server::parse(admin)?;
    prepare_server(&server, Passwords::Given(credentials)).await?;
    close_other_databases_if_alone(&server).await
}

/// The URLs of the services' roles and the owner, straight to the server of `admin`, for the time of a setup.
///
/// # Errors
/// [`Error::Store`] when the URL cannot be parsed.
pub fn urls(admin: &Secret, credentials: &Credentials) -> Result<DatabaseUrls, Error> {
    let server = Server::parse(admin)?;
    let url = |role, password| server.with_role(role, password, server.database());
    let session = url("quipu_session", &credentials.session)?;
    let owner = url("quipu_owner", &credentials.owner)?;
    let write = url("quipu", &credentials.service)?;
    Ok(DatabaseUrls { write, read: session.clone(), session, owner: Some(owner) })
}

async fn close_other_databases_if_alone(admin: &Server) -> Result<(), Error> {
    let requirement = requirements::of_other_databases(admin.database());
    match admin.connect().await {
        // Not a superuser; then the server has another role that logs in, and the databases stay as they are.
        Err(error) if error.sqlstate() == Some(NO_PRIVILEGE) => Ok(()),
        answer => apply(&answer?, admin, &[requirement]).await,
    }
}

/// As [`prepare_with`], with random passwords that are kept in `stored`. The passwords of existing roles
/// change only if this installation set them; those of the roles for people are set at each start, because
/// these roles can change them.
///
/// # Errors
/// [`Error`].
pub(super) async fn prepare(admin: &Server, stored: &PasswordFile<'_>) -> Result<Credentials, Error> {
    prepare_server(admin, Passwords::Kept(stored)).await
}

async fn prepare_server(admin: &Server, passwords: Passwords<'_>) -> Result<Credentials, Error> {
    let name = admin.database();
    // The database may not exist yet, or may be closed to all but its roles. `postgres` exists on every
    // server.
    let server = match admin.connect().await {
        Err(error) if matches!(error.sqlstate(), Some(NO_DATABASE | NO_PRIVILEGE)) => {
            admin.in_database("postgres")?
        }
        answer => answer.map(|_client| admin.clone())?,
    };
    let mut client = server.connect().await?;
    let transaction = lock(&mut client, &server).await?;
    let settled = match passwords {
        Passwords::Kept(stored) => passwords::settle(&transaction, &server, stored).await?,
        Passwords::Given(credentials) => Settled { credentials: credentials.clone(), must_be_set: true },
    };
    apply(&transaction, &server, &requirements::of_roles()).await?;
    if settled.must_be_set {
        passwords::set(&transaction, &server, &settled.credentials.roles_of_services()).await?;
    }
    renew_people(&transaction, &server, &settled.credentials).await?;
    transaction.commit().await.map_err(|error| with_action(error, "create Quipu's roles", &server))?;
    ensure_database(&client, &server, name).await?;
    // An administrator who is not a superuser cannot enter a database of quipu_owner. The owner grants the
    // privileges there itself.
    let inside = match admin.connect().await {
        Err(error) if error.sqlstate() == Some(NO_PRIVILEGE) => {
            Server::parse(&admin.with_role("quipu_owner", &settled.credentials.owner, name)?)?
        }
        answer => answer.map(|_client| admin.clone())?,
    };
    let client = inside.connect().await?;
    apply(&client, &inside, &requirements::inside_database(name)).await?;
    advised(&inside, missing(&client, name).await)?;
    Ok(settled.credentials)
}

/// Sets the settings and passwords of the roles for people. A role may hold or change its own rows of the
/// catalog at this moment, so a failure is only a warning, and the other roles are set all the same.
async fn renew_people(
    transaction: &Transaction<'_>,
    server: &Server,
    credentials: &Credentials,
) -> Result<(), Error> {
    for (role, password) in credentials.roles_of_people() {
        let action = format!("set the settings and the password of role {role}");
        let begin = "SAVEPOINT people; SET LOCAL lock_timeout = '5s'";
        transaction.batch_execute(begin).await.map_err(|error| with_action(error, &action, server))?;
        let renewed = async {
            for statement in people::renewal(role) {
                let answer = transaction.batch_execute(&statement).await;
                answer.map_err(|error| Error::refused(error, &action, &statement, server))?;
            }
            passwords::set(transaction, server, &[(role, password)]).await
        };
        let end = match renewed.await {
            Ok(()) => "-- end_wait_for_people\nSET LOCAL lock_timeout = DEFAULT; RELEASE SAVEPOINT people",
            Err(error) => {
                tracing::warn!("{error}");
                "ROLLBACK TO SAVEPOINT people; RELEASE SAVEPOINT people"
            }
        };
        transaction.batch_execute(end).await.map_err(|error| with_action(error, &action, server))?;
    }
    Ok(())
}

/// The requirements that the database of `client` does not meet, without those on tables and those that only
/// help. Needs no privilege.
async fn missing(client: &Client, database: &str) -> Result<Vec<Requirement>, super::Error> {
    let mut all = requirements::of_roles();
    all.extend(people::of_people());
    all.extend(requirements::of_database(database));
    all.extend(requirements::inside_database(database));
    unmet(client, all).await
}

async fn unmet(client: &Client, mut all: Vec<Requirement>) -> Result<Vec<Requirement>, super::Error> {
    all.retain(|requirement| requirement.weight != Weight::Helpful);
    let question = all.iter().map(|requirement| requirement.holds.as_str()).collect::<Vec<_>>().join(",\n");
    let row = client.query_one(&format!("-- unmet_requirements\nSELECT ARRAY[{question}]"), &[]).await?;
    let holds: Vec<bool> = row.get(0);
    let mut holds = holds.into_iter();
    all.retain(|_| holds.next() == Some(false));
    Ok(all)
}

/// Checks the roles and their privileges on database and schema, with the login of any role. Returns what is
/// not met and only advised: settings that the roles for people can undo, and what only a superuser can
/// establish.
///
/// # Errors
/// [`Error::Missing`] with each missing requirement and the statement that grants it.
pub async fn check_roles(login: &Secret) -> Result<Vec<Requirement>, Error> {
    let server = Server::parse(login)?;
    let client = server.connect().await?;
    advised(&server, missing(&client, server.database()).await)
}

/// Checks the service's privileges on the tables. Call it after the schema was migrated.
///
/// # Errors
/// [`Error::Missing`] with each missing requirement and the statement that grants it.
pub async fn check_tables(login: &Secret) -> Result<(), Error> {
    let server = Server::parse(login)?;
    let client = server.connect().await?;
    advised(&server, unmet(&client, requirements::of_tables()).await).map(|_| ())
}

/// The advised ones of the requirements that are not met; an error if one of them is needed.
fn advised(
    server: &Server,
    unmet: Result<Vec<Requirement>, super::Error>,
) -> Result<Vec<Requirement>, Error> {
    let unmet = unmet.map_err(|error| error.during("check the roles' privileges", server.target()))?;
    let (needed, advised): (Vec<_>, Vec<_>) =
        unmet.into_iter().partition(|requirement| requirement.weight == Weight::Needed);
    if needed.is_empty() { Ok(advised) } else { Err(Error::missing(server, needed)) }
}

/// Logs in once and disconnects.
///
/// # Errors
/// As the server answers.
pub(super) async fn log_in(url: &Secret) -> Result<(), super::Error> {
    Server::parse(url)?.connect().await.map(|_client| ())
}

fn with_action(error: tokio_postgres::Error, action: &str, server: &Server) -> super::Error {
    super::Error::from(error).during(action, server.target())
}

/// Begins a transaction that holds the lock of the roles. In a database whose functions no superuser has
/// closed, every role can take that lock, so the wait for it is limited; in other databases the administrator
/// may lack the privilege. Going on without the lock is safe: at worst PostgreSQL refuses one of two
/// simultaneous setups ("tuple concurrently updated").
async fn lock<'a>(client: &'a mut Client, server: &Server) -> Result<Transaction<'a>, super::Error> {
    let transaction = client.transaction().await.map_err(|error| with_action(error, LOG_IN, server))?;
    let wait = format!(
        "SAVEPOINT lock; SET LOCAL lock_timeout = '10s'; SELECT pg_advisory_xact_lock({ROLES_LOCK}); \
                        SET LOCAL lock_timeout = DEFAULT"
    );
    match transaction.batch_execute(&wait).await {
        Err(error)
            if error.code().is_some_and(|code| matches!(code.code(), LOCK_NOT_AVAILABLE | NO_PRIVILEGE)) =>
        {
            tracing::warn!(
                "cannot take the lock of Quipu's roles within 10 s: continuing without it: {error}"
            );
            let back = transaction.batch_execute("ROLLBACK TO SAVEPOINT lock").await;
            back.map_err(|error| with_action(error, "continue without the lock of the roles", server))?;
        }
        taken => taken.map_err(|error| with_action(error, "take the lock of the roles", server))?,
    }
    Ok(transaction)
}

/// Creates the database, or grants the missing privileges on it. Only a member of `quipu_owner` can make it
/// the owner of a database, so an administrator who is not a superuser becomes a member meanwhile.
async fn ensure_database(client: &Client, server: &Server, name: &str) -> Result<(), Error> {
    // The order matters: when the database is closed to PUBLIC, the roles need their own privileges.
    let all = requirements::of_database(name);
    let mut is_ready = true;
    for requirement in &all {
        is_ready = is_ready && holds(client, server, requirement).await?;
    }
    if is_ready {
        return Ok(());
    }
    let can_act: bool = client
        .query_one(CAN_ACT_AS_OWNER, &[])
        .await
        .map_err(|error| with_action(error, "look at the administrator's memberships", server))?
        .get(0);
    if !can_act {
        run(
            client,
            server,
            "make the administrator a member of quipu_owner",
            "GRANT quipu_owner TO CURRENT_USER",
        )
        .await?;
    }
    let applied = apply(client, server, &all).await;
    if !can_act {
        run(
            client,
            server,
            "end the administrator's membership of quipu_owner",
            "REVOKE quipu_owner FROM CURRENT_USER",
        )
        .await?;
    }
    applied
}

async fn run(client: &Client, server: &Server, action: &str, statement: &str) -> Result<(), Error> {
    client.batch_execute(statement).await.map_err(|error| Error::refused(error, action, statement, server))
}

async fn holds(
    client: &impl GenericClient,
    server: &Server,
    requirement: &Requirement,
) -> Result<bool, super::Error> {
    let row = client.query_one(&format!("-- is_requirement_met\nSELECT {}", requirement.holds), &[]).await;
    Ok(row.map_err(|error| with_action(error, &format!("check that {requirement}"), server))?.get(0))
}

/// Runs the statement of each requirement that is not met.
async fn apply(
    client: &impl GenericClient,
    server: &Server,
    requirements: &[Requirement],
) -> Result<(), Error> {
    for requirement in requirements {
        if holds(client, server, requirement).await? {
            continue;
        }
        let answer = client.batch_execute(&requirement.statement).await;
        match answer {
            Err(error) if error.code().is_some_and(|state| state.code() == DUPLICATE_DATABASE) => {}
            Err(error) => {
                let action = format!("ensure that {requirement}");
                return Err(Error::refused(error, &action, &requirement.statement, server));
            }
            Ok(()) => {}
        }
    }
    Ok(())
}
