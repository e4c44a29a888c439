//! The environment, read once: the variables of the process, then `.env` files for variables that are not
//! set.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Url;

use super::dotenv;
use super::layer::{ENVIRONMENT, Problem};
use crate::base::Secret;

/// Variables by name. Values may be secrets, so `Debug` prints only the names.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl Environment {
    /// The variables of this process. Variables that are not UTF-8 are skipped.
    #[must_use]
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .collect()
    }

    /// Adds variables of a `.env` file that the environment does not set. A missing file adds nothing.
    ///
    /// # Errors
    /// When the file cannot be read or a line is not `NAME=value`. The line is not shown, because it may
    /// contain a secret.
    pub fn with_dotenv(mut self, path: &Path) -> Result<Self, Problem> {
        for (name, value) in dotenv::read(path)? {
            self.0.entry(name).or_insert(value);
        }
        Ok(self)
    }

    /// The value of a variable that is set and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(super) fn variables(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

/// Which PgBouncer pools the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pooler {
    /// Quipu starts its own PgBouncer in front of the database.
    #[default]
    Embedded,
    /// The database URLs already point to a PgBouncer.
    External,
}

/// Database URLs from the environment. With none set, Quipu runs its own PostgreSQL; with `DATABASE_URL`
/// alone it derives the others.
#[derive(Debug, Clone, Default)]
pub struct DatabaseEnv {
    /// `DATABASE_URL`: the write pool.
    pub write: Option<Secret>,
    /// `QUIPU_SESSION_DATABASE_URL`: the pool for sessions that keep state, such as locks and LISTEN.
    pub session: Option<Secret>,
    /// `QUIPU_READ_DATABASE_URL`: the read pool, on a replica or the primary.
    pub read: Option<Secret>,
    /// `QUIPU_OWNER_DATABASE_URL`: the schema's owner, for migrations and maintenance.
    pub owner: Option<Secret>,
    /// `QUIPU_READER_DATABASE_URL`: `quipu_reader`, which `quipu url reader` prints.
    pub reader: Option<Secret>,
    /// `QUIPU_MESSAGES_READER_DATABASE_URL`: `quipu_messages_reader`.
    pub messages_reader: Option<Secret>,
    /// `QUIPU_WRITER_DATABASE_URL`: `quipu_writer`.
    pub writer: Option<Secret>,
    /// `QUIPU_POOLER`, or the setting `database.pooler`.
    pub pooler: Pooler,
}

impl DatabaseEnv {
    /// Reads and checks the URLs.
    ///
    /// # Errors
    /// One problem for each variable that is not a PostgreSQL URL, and one if `DATABASE_URL` is missing while
    /// others are set. No value is shown.
    pub fn read(environment: &Environment, pooler: Pooler) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut refuse = |key: &str, reason: &str| {
            problems.push(Problem { source: ENVIRONMENT.into(), key: key.into(), reason: reason.into() });
        };
        let mut url = |name: &str| {
            let text = environment.get(name)?;
            if !Url::parse(text).is_ok_and(|url| ["postgres", "postgresql"].contains(&url.scheme())) {
                refuse(name, "not a URL that begins with postgres:// or postgresql://");
            }
            Some(Secret::new(text))
        };
        let this = Self {
            write: url("DATABASE_URL"),
            session: url("QUIPU_SESSION_DATABASE_URL"),
            read: url("QUIPU_READ_DATABASE_URL"),
            owner: url("QUIPU_OWNER_DATABASE_URL"),
            reader: url("QUIPU_READER_DATABASE_URL"),
            messages_reader: url("QUIPU_MESSAGES_READER_DATABASE_URL"),
            writer: url("QUIPU_WRITER_DATABASE_URL"),
            pooler,
        };
        if this.write.is_none() && [&this.session, &this.read, &this.owner].iter().any(|url| url.is_some()) {
            refuse("DATABASE_URL", "must be set when another database URL is set");
        }
        if problems.is_empty() { Ok(this) } else { Err(problems) }
    }

    /// Whether `DATABASE_URL` belongs to an administrator: it is the only URL, and Quipu creates its roles
    /// and runs its own pooler.
    #[must_use]
    pub fn is_administrators(&self) -> bool {
        self.write.is_some() && self.session.is_none() && self.pooler == Pooler::Embedded
    }

    /// The URLs for display: host, port and database, without user, password and parameters.
    pub(super) fn masked(&self) -> serde_json::Value {
        let mask = |url: &Option<Secret>| url.as_ref().map(masked);
        json!({
            "DATABASE_URL": mask(&self.write),
            "QUIPU_SESSION_DATABASE_URL": mask(&self.session),
            "QUIPU_READ_DATABASE_URL": mask(&self.read),
            "QUIPU_OWNER_DATABASE_URL": mask(&self.owner),
            "QUIPU_READER_DATABASE_URL": mask(&self.reader),
            "QUIPU_MESSAGES_READER_DATABASE_URL": mask(&self.messages_reader),
            "QUIPU_WRITER_DATABASE_URL": mask(&self.writer),
        })
    }
}

fn masked(url: &Secret) -> String {
    Url::parse(url.expose()).map_or_else(
        |_| "***".to_owned(),
        |url| {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            format!("{}://***@{}{port}{}", url.scheme(), url.host_str().unwrap_or(""), url.path())
        },
    )
}
