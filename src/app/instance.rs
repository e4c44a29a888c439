//! The instance file, by which other commands find a running instance: `DATA/instance.json`. `--ready-file`
//! writes a copy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::database::{given, is_same_database};
use crate::base::Secret;
use crate::config::DatabaseEnv;
use crate::store::DatabaseUrls;
use crate::store::embedded::{SharedRole, write_whole};

/// The addresses of an instance. The URLs hold passwords, so only the file's owner may read it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Instance {
    /// The console's URL.
    pub console: String,
    /// Writes of the services, through the pooler by transaction.
    pub database_url: String,
    /// Reads of the services, through the pooler by session.
    pub session_database_url: String,
    /// Migrations and erasure, straight to the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_database_url: Option<String>,
    /// For analysts: reads, with a time limit for each statement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reader_database_url: Option<String>,
    /// For analysts who may also read messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_reader_database_url: Option<String>,
    /// For programs that insert events and relays by SQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer_database_url: Option<String>,
    /// The superuser of Quipu's own PostgreSQL, straight to the server. The ready file leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_database_url: Option<String>,
    /// The address of each listener and service, as `host:port`.
    pub services: BTreeMap<String, String>,
    /// The only relays that its synchronizer dials (`services.synchronizer.only_relays`); empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only_relays: Vec<String>,
}

impl Instance {
    /// The file of the instance that runs on `data`.
    #[must_use]
    pub fn path(data: &Path) -> PathBuf {
        data.join("instance.json")
    }

    /// Writes the file atomically, readable by its owner alone.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        Ok(write_whole(path, &text)?)
    }

    /// The URLs of the services.
    #[must_use]
    pub fn urls(&self) -> DatabaseUrls {
        let session = Secret::new(&self.session_database_url);
        DatabaseUrls {
            write: Secret::new(&self.database_url),
            read: session.clone(),
            session,
            owner: self.owner_database_url.as_ref().map(Secret::new),
        }
    }
}

/// Removes the file that a killed instance has left, so that no command takes it for a running one.
///
/// # Errors
/// When the file exists and cannot be removed.
pub(super) fn remove_stale(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The instance that runs on `data`.
///
/// # Errors
/// When no instance runs there; the message says what to do.
pub fn running(data: &Path) -> Result<Instance> {
    let path = Instance::path(data);
    let text = std::fs::read_to_string(&path).map_err(|error| {
        if error.kind() == std::io::ErrorKind::PermissionDenied {
            return anyhow::anyhow!("cannot read {}: {error}; run this as the user that started the instance", path.display());
        }
        anyhow::Error::new(error).context(format!(
            "no instance runs on {}: start one with `quipu up --data {0}`, name another folder with `--data`, or set \
             DATABASE_URL with QUIPU_SESSION_DATABASE_URL and QUIPU_OWNER_DATABASE_URL",
            data.display()
        ))
    })?;
    serde_json::from_str(&text).with_context(|| {
        format!("{} is damaged: restart the instance, which writes it again", path.display())
    })
}

/// The only relays that the instance on `data` dials; empty if it dials all, or if the instance there has
/// another database than `urls`.
#[must_use]
pub fn only_relays(data: &Path, urls: &DatabaseUrls) -> Vec<String> {
    let Ok(instance) = running(data) else { return Vec::new() };
    let theirs = instance.urls();
    let is_same = match (&theirs.owner, &urls.owner) {
        (Some(theirs), Some(ours)) => is_same_database(theirs, ours),
        _ => is_same_database(&theirs.write, &urls.write),
    };
    if is_same.unwrap_or(false) { instance.only_relays } else { Vec::new() }
}

/// The folder of the instance's own PostgreSQL in `data`; `None` when the database is elsewhere.
#[must_use]
pub fn own_database(data: &Path, environment: &DatabaseEnv) -> Option<PathBuf> {
    let cluster = data.join("postgres");
    (environment.write.is_none() && cluster.is_dir()).then_some(cluster)
}

/// The URLs that a command uses: those of the environment, else those of the instance on `data`. With an
/// administrator's URL in the environment they are those of the instance that was started with it.
///
/// # Errors
/// When there are none; the message says what to do.
pub fn find(data: &Path, environment: &DatabaseEnv) -> Result<DatabaseUrls> {
    match &environment.write {
        Some(admin) if environment.is_administrators() => {
            let urls = running(data)?.urls();
            if !is_same_database(admin, urls.owner()?)? {
                bail!(
                    "the instance on {} has another database than DATABASE_URL: name its folder with `--data`, or unset \
                     DATABASE_URL",
                    data.display()
                );
            }
            Ok(urls)
        }
        Some(write) => Ok(given(write, environment)?.urls),
        None => Ok(running(data)?.urls()),
    }
}

/// The URL of a role for people: that of the environment, else that of the instance on `data`.
///
/// # Errors
/// When the password is not known; the message says what to do.
pub fn find_person(data: &Path, environment: &DatabaseEnv, person: SharedRole) -> Result<Secret> {
    let known = match &environment.write {
        Some(write) if !environment.is_administrators() => {
            given(write, environment)?.shared_role_url(person).cloned()
        }
        _ => {
            let instance = running(data)?;
            let url = match person {
                SharedRole::Reader => instance.reader_database_url,
                SharedRole::MessagesReader => instance.messages_reader_database_url,
                SharedRole::Writer => instance.writer_database_url,
            };
            url.map(Secret::new)
        }
    };
    known.with_context(|| {
        let role = person.role();
        format!(
            "the password of {role} is not known: set {}_DATABASE_URL to postgres://{role}:password@host:port/database, or ask \
             for `quipu url session`",
            role.to_uppercase()
        )
    })
}

/// The URL of the administrator: `DATABASE_URL` where it is an administrator's login, else that of the
/// superuser of the instance's own PostgreSQL.
///
/// # Errors
/// When the server is the operator's, so that its administrator's login is not known.
pub fn find_admin(data: &Path, environment: &DatabaseEnv) -> Result<Secret> {
    let known = match &environment.write {
        Some(admin) if environment.is_administrators() => Some(admin.clone()),
        Some(_) => None,
        None => running(data)?.admin_database_url.map(Secret::new),
    };
    known.context("this PostgreSQL is not Quipu's own: log in to it with the login of its administrator")
}
