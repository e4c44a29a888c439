//! The file by which other commands find a running instance: `DATA/instance.json`, and wherever `--ready-file` says.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::database::given;
use crate::base::Secret;
use crate::config::DatabaseEnv;
use crate::store::DatabaseUrls;

/// Where an instance is reached. The URLs hold passwords: the file is its owner's alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Instance {
    /// The console's URL.
    pub console: String,
    /// The write door.
    pub database_url: String,
    /// The session door.
    pub session_database_url: String,
    /// The owner's door.
    pub owner_database_url: String,
    /// For analysts: reads, with a time limit for each statement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reader_database_url: Option<String>,
    /// Who listens where, as `host:port`.
    pub services: BTreeMap<String, String>,
}

impl Instance {
    /// The file of the instance that runs on `data`.
    #[must_use]
    pub fn path(data: &Path) -> PathBuf {
        data.join("instance.json")
    }

    /// Writes the file whole, readable by its owner alone.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let draft = path.with_extension("tmp");
        let text = serde_json::to_string_pretty(self)?;
        let mut options = std::fs::OpenOptions::new();
        let mut write = || -> std::io::Result<()> {
            let mut file = options.create(true).write(true).truncate(true).mode(0o600).open(&draft)?;
            writeln!(file, "{text}")?;
            file.sync_all()?;
            std::fs::rename(&draft, path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// The doors it names.
    #[must_use]
    pub fn urls(&self) -> DatabaseUrls {
        let session = Secret::new(&self.session_database_url);
        DatabaseUrls {
            write: Secret::new(&self.database_url),
            read: session.clone(),
            session,
            owner: Secret::new(&self.owner_database_url),
        }
    }
}

/// The doors that a command uses: those of the environment, else those of the instance on `data`.
///
/// # Errors
/// When there is neither; the message says what to do.
pub fn find(data: &Path, environment: &DatabaseEnv) -> Result<DatabaseUrls> {
    if let Some(write) = &environment.write {
        return given(write, environment);
    }
    let path = Instance::path(data);
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!(
            "no instance runs on {}: start one with `quipu up --data {0}`, name another folder with `--data`, or set \
             DATABASE_URL",
            data.display()
        )
    })?;
    let instance: Instance = serde_json::from_str(&text)
        .with_context(|| format!("{} is not as Quipu wrote it", path.display()))?;
    Ok(instance.urls())
}
