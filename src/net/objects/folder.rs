//! A folder of this machine. An object appears whole or not at all: it is written under a temporary name below
//! `staging/`, flushed to the disk and renamed.

use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt as _;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use uuid::Uuid;

use super::{ObjectError, of, of_io};

/// The folder of unfinished uploads, and the prefix of their keys.
pub(super) const STAGING: &str = "staging";

/// A folder. Clones share it.
#[derive(Debug, Clone)]
pub struct Folder {
    store: Arc<LocalFileSystem>,
    root: PathBuf,
}

impl Folder {
    /// Opens the folder at `root`, and creates it if it is missing, for this user alone.
    ///
    /// # Errors
    /// [`ObjectError::Settings`] when it cannot be created or entered.
    pub fn open(root: &FilePath) -> Result<Self, ObjectError> {
        let failed = |error: &dyn ToString| {
            ObjectError::Settings(format!("{}: {}", root.display(), error.to_string()))
        };
        let staging = root.join(STAGING);
        create_private(&staging).map_err(|error| failed(&error))?;
        let root = root.canonicalize().map_err(|error| failed(&error))?;
        let store = LocalFileSystem::new_with_prefix(&root).map_err(|error| failed(&error))?;
        Ok(Self { store: Arc::new(store.with_fsync(true)), root })
    }

    /// Its path.
    #[must_use]
    pub fn root(&self) -> &FilePath {
        &self.root
    }

    pub(super) fn store(&self) -> &dyn ObjectStore {
        &*self.store
    }

    /// The key of one part, from 1, of a multipart upload.
    #[must_use]
    pub fn part_key(upload: Uuid, part: u32) -> String {
        format!("{STAGING}/{}/{part}", upload.simple())
    }

    /// Deletes the parts of a multipart upload.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub async fn delete_parts(&self, upload: Uuid) -> Result<(), ObjectError> {
        let folder = self.root.join(STAGING).join(upload.simple().to_string());
        match tokio::fs::remove_dir_all(folder).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(of_io(&error)),
            _ => Ok(()),
        }
    }

    /// Deletes unfinished uploads that were not written to for `age` before `now`, and parts of which none arrived
    /// for `parts_age`. Returns how many.
    ///
    /// # Errors
    /// When the folder cannot be read or written.
    pub async fn sweep(
        &self,
        now: SystemTime,
        age: Duration,
        parts_age: Duration,
    ) -> Result<usize, ObjectError> {
        let staging = self.root.join(STAGING);
        let swept = tokio::task::spawn_blocking(move || sweep(&staging, now - age, now - parts_age));
        swept.await.map_err(|error| ObjectError::Unavailable(error.to_string()))?.map_err(|e| of_io(&e))
    }

    /// The keys of all objects, for tests.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub async fn keys(&self) -> Result<Vec<String>, ObjectError> {
        let objects = self.store.list(None).map_ok(|meta| meta.location.to_string());
        objects.try_collect().await.map_err(|error| of(&error))
    }
}

fn create_private(folder: &FilePath) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Deletes the files of `staging` that are older than `before`, and the folders of parts of which the newest is older
/// than `parts_before`.
fn sweep(staging: &FilePath, before: SystemTime, parts_before: SystemTime) -> io::Result<usize> {
    let mut swept = 0;
    for entry in std::fs::read_dir(staging)? {
        let entry = entry?;
        let path = entry.path();
        // Another process may have finished it meanwhile.
        let Ok(meta) = entry.metadata() else { continue };
        let mut newest = meta.modified()?;
        if meta.is_dir() {
            for part in std::fs::read_dir(&path)? {
                newest = newest.max(part?.metadata()?.modified()?);
            }
        }
        if newest < if meta.is_dir() { parts_before } else { before } {
            let removed =
                if meta.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => swept += 1,
            }
        }
    }
    Ok(swept)
}
