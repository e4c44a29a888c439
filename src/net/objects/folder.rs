//! A folder of this machine. An object appears whole or not at all: it is written under a temporary name below
//! `staging/`, flushed to the disk and renamed.

use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt as _;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, WriteMultipart};
use tokio_util::bytes::Bytes;
use uuid::Uuid;

use super::{ObjectError, found, of, of_io, path};

/// Bytes that are written at a time, and how many such writes may be under way for one object.
const WRITE_BYTES: usize = 1024 * 1024;
const WRITES_MAX: usize = 2;

/// The folder of unfinished uploads.
const STAGING: &str = "staging";

/// A folder. Clones share it.
#[derive(Debug, Clone)]
pub struct Folder {
    store: Arc<LocalFileSystem>,
    root: PathBuf,
}

/// An object that is being written. Dropping it removes what was written.
#[derive(Debug)]
pub struct Incoming {
    folder: Folder,
    staged: Path,
    writer: WriteMultipart,
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

    /// Begins an object whose key is given when it is complete.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub async fn begin(&self) -> Result<Incoming, ObjectError> {
        let staged = Path::from(format!("{STAGING}/{}", Uuid::new_v4().simple()));
        let upload = self.store.put_multipart(&staged).await.map_err(|error| of(&error))?;
        let writer = WriteMultipart::new_with_chunk_size(upload, WRITE_BYTES);
        Ok(Incoming { folder: self.clone(), staged, writer })
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

impl Incoming {
    /// Appends bytes.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), ObjectError> {
        self.writer.wait_for_capacity(WRITES_MAX).await.map_err(|error| of(&error))?;
        self.writer.put(bytes);
        Ok(())
    }

    /// Removes what was written.
    ///
    /// # Errors
    /// As [`Incoming::write`].
    pub async fn discard(self) -> Result<(), ObjectError> {
        self.writer.abort().await.map_err(|error| of(&error))
    }

    /// Flushes the object to the disk under its temporary name. It does not exist yet.
    ///
    /// # Errors
    /// As [`Incoming::write`].
    pub async fn flush(self) -> Result<Flushed, ObjectError> {
        self.writer.finish().await.map_err(|error| of(&error))?;
        Ok(Flushed { folder: self.folder, staged: Some(self.staged) })
    }
}

/// An object that is complete and has no key yet. Dropping it removes it.
#[derive(Debug)]
pub struct Flushed {
    folder: Folder,
    staged: Option<Path>,
}

impl Flushed {
    /// Gives the object its key. An earlier object of the key is replaced.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub async fn publish(mut self, key: &str) -> Result<(), ObjectError> {
        let to = path(key)?;
        let Some(staged) = self.staged.as_ref() else { return Ok(()) };
        self.folder.store.rename(staged, &to).await.map_err(|error| of(&error))?;
        self.staged = None;
        Ok(())
    }

    /// Removes the object.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub async fn discard(mut self) -> Result<(), ObjectError> {
        let Some(staged) = self.staged.take() else { return Ok(()) };
        found(self.folder.store.delete(&staged).await).map(|_| ())
    }
}

impl Drop for Flushed {
    fn drop(&mut self) {
        let Some(staged) = self.staged.take() else { return };
        // Only when the request is dropped in between; the sweep removes what remains.
        if let Err(error) = std::fs::remove_file(self.folder.root.join(staged.as_ref())) {
            tracing::debug!(error = %error, "an unfinished upload was not removed: {error}");
        }
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
