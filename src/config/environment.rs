//! The environment, read once: the process's own variables first, then `.env` files for what they lack.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Url;

use super::layer::{ENVIRONMENT, Problem};
use crate::base::Secret;

/// Variables by name. Values may be secrets, so `Debug` shows the names only.
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
    /// The variables of this process. One whose name or value is not UTF-8 is left out.
    #[must_use]
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .collect()
    }

    /// Adds what a `.env` file says and the environment does not. A missing file adds nothing.
    ///
    /// # Errors
    /// When the file cannot be read or a line is not `NAME=value`; the line itself is not shown, it
    /// may hold a secret.
    pub fn with_dotenv(mut self, path: &Path) -> Result<Self, Problem> {
        let problem =
            |reason: String| Problem { source: path.display().to_string(), key: String::new(), reason };
        let lines = match dotenvy::from_path_iter(path) {
            Ok(lines) => lines,
            Err(error) if error.not_found() => return Ok(self),
            Err(error) => return Err(problem(error.to_string())),
        };
        for (index, line) in lines.enumerate() {
            let (name, value) = line.map_err(|error| match error {
                dotenvy::Error::LineParse(..) => problem(format!("entry {} is not `NAME=value`", index + 1)),
                other => problem(other.to_string()),
            })?;
            self.0.entry(name).or_insert(value);
        }
        Ok(self)
    }

    /// A variable that is set and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(super) fn variables(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

/// Who runs PgBouncer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooler {
    /// Quipu starts its own in front of the database.
    #[default]
    Embedded,
    /// The URLs already lead through one.
    External,
}

/// What the environment says of the doors to PostgreSQL (DESIGN section 4). With no URL at all Quipu
/// runs its own PostgreSQL; with `DATABASE_URL` alone it derives the rest.
#[derive(Debug, Clone, Default)]
pub struct DatabaseEnv {
    /// `DATABASE_URL`: the write door.
    pub write: Option<Secret>,
    /// `QUIPU_SESSION_DATABASE_URL`: the session door.
    pub session: Option<Secret>,
    /// `QUIPU_READ_DATABASE_URL`: the read door, on a replica or not.
    pub read: Option<Secret>,
    /// `QUIPU_OWNER_DATABASE_URL`: the owner's door.
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
    /// Reads the URLs.
    ///
    /// # Errors
    /// One problem for each variable that is not a PostgreSQL URL, and one when `DATABASE_URL` is
    /// missing beside others. No value is shown.
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
            refuse("DATABASE_URL", "must be set when one of the other doors is");
        }
        if problems.is_empty() { Ok(this) } else { Err(problems) }
    }

    /// Whether `DATABASE_URL` is an administrator's: alone, for Quipu to make its roles and run its own pooler.
    #[must_use]
    pub fn is_administrators(&self) -> bool {
        self.write.is_some() && self.session.is_none() && self.pooler == Pooler::Embedded
    }

    /// The doors for people to read: host, port and database, without user, password or parameters.
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
