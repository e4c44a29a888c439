//! The environment, read once: the variables of the process, then `.env` files for variables that are not
//! set.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Url;

use super::dotenv;
use super::layer::{ENVIRONMENT, Problem};
use crate::base::Secret;

/// The variable with the monitor's secret key: hex or `nsec1…`.
pub(super) const MONITOR_KEY: &str = "QUIPU_MONITOR_SECRET_KEY";

/// The variable with the key by which the synchronizer authenticates to relays (NIP-42).
pub(super) const SYNCHRONIZER_KEY: &str = "QUIPU_SYNCHRONIZER_SECRET_KEY";

/// The variables with the API token and the worker's secret for a queue of jobs, each with Quipu's name and then
/// BlobForge's.
pub(super) const JOB_SECRETS: [&str; 4] =
    ["QUIPU_JOBS_TOKEN", "BLOBFORGE_API_TOKEN", "QUIPU_WORKER_SECRET", "BLOBFORGE_WORKER_SECRET"];
/// The variables with the access key and the secret key of the bucket for files of jobs, as BlobForge names them.
pub(super) const OBJECT_KEYS: [&str; 2] = ["BLOBFORGE_S3_ACCESS_KEY", "BLOBFORGE_S3_SECRET_KEY"];
/// The variables with the access key and the secret key of buckets for blobs.
pub(super) const BLOB_KEYS: [&str; 2] = ["QUIPU_BLOSSOM_S3_ACCESS_KEY", "QUIPU_BLOSSOM_S3_SECRET_KEY"];
/// The variable with the key that requests to upstreams of blobs are signed with.
pub(super) const BLOSSOM_KEY: &str = "QUIPU_BLOSSOM_KEY";
/// The variable with the secret by which the listener of jobs proves itself to the `OpenID` provider.
pub(super) const OIDC_SECRET: &str = "BLOBFORGE_OIDC_CLIENT_SECRET";
/// The variable with the keys by which webhooks are signed.
pub(super) const WEBHOOK_SECRET: &str = "QUIPU_JOBS_WEBHOOK_SECRET";

/// The variables with database URLs.
const URLS: [&str; 7] = [
    "DATABASE_URL",
    "QUIPU_SESSION_DATABASE_URL",
    "QUIPU_READ_DATABASE_URL",
    "QUIPU_OWNER_DATABASE_URL",
    "QUIPU_READER_DATABASE_URL",
    "QUIPU_MESSAGES_READER_DATABASE_URL",
    "QUIPU_WRITER_DATABASE_URL",
];

/// The variable with the password of a URL that has none: `DATABASE_PASSWORD` for `DATABASE_URL`.
fn password_variable(url_variable: &str) -> String {
    url_variable.replace("_URL", "_PASSWORD")
}

/// Every variable that may hold a secret.
pub(super) fn secret_variables() -> Vec<String> {
    let urls = URLS.iter().flat_map(|url| [(*url).to_owned(), password_variable(url)]);
    let keys = [MONITOR_KEY, SYNCHRONIZER_KEY, OIDC_SECRET, WEBHOOK_SECRET, BLOSSOM_KEY];
    let keys = keys.into_iter().chain(JOB_SECRETS).chain(OBJECT_KEYS).chain(BLOB_KEYS);
    urls.chain(keys.map(str::to_owned)).collect()
}

/// Variables by name. Values may be secrets, so `Debug` prints only the names.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    /// The `.env` file of each variable that comes from one.
    files: BTreeMap<String, String>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        Self { variables: variables.collect(), files: BTreeMap::new() }
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
            if let Entry::Vacant(place) = self.variables.entry(name) {
                self.files.insert(place.key().clone(), path.display().to_string());
                place.insert(value);
            }
        }
        Ok(self)
    }

    /// Names the `.env` file as the source of each problem with a variable that comes from one.
    pub(super) fn name_files(&self, problems: &mut [Problem]) {
        for problem in problems.iter_mut().filter(|problem| problem.source == ENVIRONMENT) {
            // The key of a setting is spelled in capitals, however the variable is.
            let file = self.files.iter().find(|(name, _)| name.eq_ignore_ascii_case(&problem.key));
            if let Some((_, file)) = file {
                problem.source.clone_from(file);
            }
        }
    }

    /// The value of a variable that is set and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(super) fn set(&mut self, name: String, value: &str) {
        self.variables.insert(name, value.to_owned());
    }

    pub(super) fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
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
    /// Reads and checks the URLs, and completes them with their passwords where those have variables of their
    /// own.
    ///
    /// # Errors
    /// One problem for each variable that is not a PostgreSQL URL, for each password without a URL that needs
    /// it, and one if `DATABASE_URL` is missing while the session, read or owner URL is set. No value is
    /// shown.
    pub fn read(environment: &Environment, pooler: Pooler) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut refuse = |key: &str, reason: &str| {
            problems.push(Problem { source: ENVIRONMENT.into(), key: key.into(), reason: reason.into() });
        };
        let mut url = |name: &str| {
            let variable = password_variable(name);
            let password = environment.get(&variable);
            let Some(text) = environment.get(name) else {
                if password.is_some() {
                    refuse(&variable, &format!("needs {name}, which it is the password of"));
                }
                return None;
            };
            match (postgres_url(text), password) {
                (None, _) => refuse(name, "not a URL that begins with postgres:// or postgresql://"),
                (Some(_), None) => {}
                (Some(url), Some(password)) => match with_password(url, password) {
                    Ok(complete) => return Some(complete),
                    Err(problem) => refuse(&variable, &format!("{name} {problem}")),
                },
            }
            Some(Secret::new(text))
        };
        let this = Self {
            write: url(URLS[0]),
            session: url(URLS[1]),
            read: url(URLS[2]),
            owner: url(URLS[3]),
            reader: url(URLS[4]),
            messages_reader: url(URLS[5]),
            writer: url(URLS[6]),
            pooler,
        };
        if this.write.is_none() && [&this.session, &this.read, &this.owner].iter().any(|url| url.is_some()) {
            refuse("DATABASE_URL", "must be set when the session, read or owner URL is set");
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

fn postgres_url(text: &str) -> Option<Url> {
    Url::parse(text).ok().filter(|url| ["postgres", "postgresql"].contains(&url.scheme()))
}

/// The URL with its password, or why it takes none.
fn with_password(mut url: Url, password: &str) -> Result<Secret, &'static str> {
    if url.password().is_some() || url.query_pairs().any(|(key, _)| key == "password") {
        return Err("has a password already; set one of them");
    }
    url.set_password(Some(&Secret::new(password).for_url()))
        .map_err(|()| "has no host, so it takes no password")?;
    Ok(Secret::new(url.as_str()))
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
