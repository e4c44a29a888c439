//! `quipu setup` prepares a PostgreSQL with an administrator's login; `quipu setup-sql` prints an SQL script
//! that does the same, so that Quipu needs no such login.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::{Context, output};
use crate::app;
use crate::base::Secret;
use crate::config::read_secret_file;
use crate::store::Server;
use crate::store::setup::{self, Credentials};
use crate::telemetry::notice;

/// Create Quipu's roles, database and privileges on your own PostgreSQL where they are missing, set the roles'
/// passwords, and migrate the schema. DATABASE_URL is the login of an administrator, and names the database.
#[derive(Debug, Args)]
pub(super) struct Setup {
    /// A folder with one file for each role, named as the role, which holds its password. The roles are those
    /// that `quipu setup-sql` makes.
    #[arg(long, value_name = "DIR")]
    passwords: PathBuf,
}

impl Setup {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode> {
        let admin = context.configuration.database.write.as_ref();
        let admin = admin.context("set DATABASE_URL to the login of an administrator")?;
        let credentials = self.credentials()?;
        setup::prepare_with(admin, &credentials).await?;
        app::migrate(&context.configuration, &setup::urls(admin, &credentials)?).await?;
        notice("roles, database, privileges and schema are as Quipu needs them");
        self.print(admin)?;
        Ok(ExitCode::SUCCESS)
    }

    /// The passwords in the folder.
    ///
    /// # Errors
    /// Every file that cannot be used.
    fn credentials(&self) -> Result<Credentials> {
        let mut problems = Vec::new();
        let credentials = Credentials::by_role(|role| {
            Ok::<_, Infallible>(password(&self.passwords.join(role)).unwrap_or_else(|error| {
                problems.push(format!("\n  {error}"));
                Secret::new("")
            }))
        });
        if !problems.is_empty() {
            bail!("a file with a password is needed for each role{}", problems.concat());
        }
        let Ok(credentials) = credentials;
        Ok(credentials)
    }

    /// Prints the variables for Quipu's environment, which name the files instead of the passwords.
    fn print(&self, admin: &Secret) -> Result<()> {
        let server = Server::parse(admin)?;
        let folder = std::path::absolute(&self.passwords)?;
        output::list(
            "# For Quipu's environment (.env). With a PgBouncer in front, put its address into all URLs",
        )?;
        output::list("# but QUIPU_OWNER_DATABASE_URL.")?;
        for (variable, role) in VARIABLES {
            let url = server.with_role_alone(role)?;
            output::list(format_args!("{variable}_URL={url}"))?;
            output::list(format_args!("{variable}_PASSWORD_FILE={}", folder.join(role).display()))?;
        }
        Ok(())
    }
}

/// The variable of each role's database URL, without its end.
const VARIABLES: [(&str, &str); 6] = [
    ("DATABASE", "quipu"),
    ("QUIPU_SESSION_DATABASE", "quipu_session"),
    ("QUIPU_OWNER_DATABASE", "quipu_owner"),
    ("QUIPU_READER_DATABASE", "quipu_reader"),
    ("QUIPU_MESSAGES_READER_DATABASE", "quipu_messages_reader"),
    ("QUIPU_WRITER_DATABASE", "quipu_writer"),
];

fn password(path: &Path) -> Result<Secret> {
    let password = read_secret_file(path)?;
    if password.expose().is_empty() {
        bail!("{}: the file is empty; it has to hold a password", path.display());
    }
    Ok(password)
}

/// Print an SQL script that creates Quipu's roles, database and privileges with new passwords, and the URLs
/// for the environment.
#[derive(Debug, Args)]
pub(super) struct SetupSql {
    /// The database [default: that of DATABASE_URL, else quipu].
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Print only the statements for what is missing in the database of the environment or of the running
    /// instance. The exit code is 1 when something is missing without which Quipu does not start.
    #[arg(long, conflicts_with = "database")]
    check: bool,
}

impl SetupSql {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode> {
        if self.check { check(context).await } else { self.print(context) }
    }

    fn print(&self, context: &Context) -> Result<ExitCode> {
        let unknown = Secret::new("postgres://HOST:5432");
        let server = Server::parse(context.configuration.database.write.as_ref().unwrap_or(&unknown))?;
        let database = self.database.as_deref().unwrap_or(server.database());
        let credentials = Credentials::random();
        output::list(setup::script(&credentials, database))?;
        output::list("-- For Quipu's environment (.env); these lines hold the passwords.")?;
        for (variable, role, password) in [
            ("DATABASE_URL", "quipu", &credentials.service),
            ("QUIPU_SESSION_DATABASE_URL", "quipu_session", &credentials.session),
            ("QUIPU_OWNER_DATABASE_URL", "quipu_owner", &credentials.owner),
            ("QUIPU_READER_DATABASE_URL", "quipu_reader", &credentials.reader),
            ("QUIPU_MESSAGES_READER_DATABASE_URL", "quipu_messages_reader", &credentials.messages_reader),
            ("QUIPU_WRITER_DATABASE_URL", "quipu_writer", &credentials.writer),
        ] {
            output::list(format_args!(
                "-- {variable}={}",
                server.with_role(role, password, database)?.expose()
            ))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Checks with an administrator's login if the environment has one, else with the owner's or a service's.
async fn check(context: &Context) -> Result<ExitCode> {
    let environment = &context.configuration.database;
    let login = match &environment.write {
        Some(admin) if environment.is_administrators() => admin.clone(),
        _ => {
            let urls = context.urls()?;
            urls.owner.unwrap_or(urls.session)
        }
    };
    let tables = setup::check_tables(&login).await.map(|()| Vec::new());
    for checked in [setup::check_roles(&login).await, tables] {
        match checked {
            Ok(advised) => {
                for requirement in advised {
                    output::say(format_args!("-- advised: {requirement}\n{};", requirement.statement));
                }
            }
            Err(setup::Error::Missing { missing, .. }) => {
                for requirement in missing {
                    output::say(format_args!("-- missing: {requirement}\n{};", requirement.statement));
                }
                return Ok(ExitCode::FAILURE);
            }
            Err(error) => return Err(error.into()),
        }
    }
    notice("roles, database and privileges are as Quipu needs them");
    Ok(ExitCode::SUCCESS)
}
