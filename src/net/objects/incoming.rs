//! An object whose key is known when all of it has arrived: it is written under a temporary name below `staging/`,
//! and appears whole or not at all.

use object_store::path::Path;
use object_store::{ObjectStoreExt as _, WriteMultipart};
use tokio_util::bytes::Bytes;
use uuid::Uuid;

use super::folder::STAGING;
use super::{ObjectError, Objects, found, of};

/// Bytes that are written to a file at a time, and how many such writes may be under way for one object.
const FILE_BYTES: usize = 1024 * 1024;
const FILE_WRITES_MAX: usize = 2;

/// The same for parts of an upload to a bucket, which accepts no smaller ones.
const PART_BYTES: usize = 5 * 1024 * 1024;
const PART_WRITES_MAX: usize = 1;

/// An object that is being written. Dropping it removes what was written to a folder; a bucket keeps the parts until
/// its lifecycle rule for incomplete uploads removes them.
#[derive(Debug)]
pub struct Incoming {
    objects: Objects,
    staged: String,
    writer: WriteMultipart,
    writes_max: usize,
}

impl Objects {
    /// Begins an object whose key is given when it is complete.
    ///
    /// # Errors
    /// When the storage does not answer, or refuses.
    pub async fn begin(&self) -> Result<Incoming, ObjectError> {
        let staged = format!("{STAGING}/{}", Uuid::new_v4().simple());
        let (store, path) = self.place(&staged)?;
        let upload = store.put_multipart(&path).await.map_err(|error| of(&error))?;
        let (bytes, writes_max) = match self {
            Self::Bucket(_) => (PART_BYTES, PART_WRITES_MAX),
            Self::Folder(_) => (FILE_BYTES, FILE_WRITES_MAX),
        };
        let writer = WriteMultipart::new_with_chunk_size(upload, bytes);
        Ok(Incoming { objects: self.clone(), staged, writer, writes_max })
    }
}

impl Incoming {
    /// Appends bytes.
    ///
    /// # Errors
    /// When the storage does not answer, or refuses.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), ObjectError> {
        self.writer.wait_for_capacity(self.writes_max).await.map_err(|error| of(&error))?;
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

    /// Completes the object under its temporary name; in a folder it is flushed to the disk. It has no key yet.
    ///
    /// # Errors
    /// As [`Incoming::write`].
    pub async fn flush(self) -> Result<Flushed, ObjectError> {
        self.writer.finish().await.map_err(|error| of(&error))?;
        Ok(Flushed { objects: self.objects, staged: Some(self.staged) })
    }
}

/// An object that is complete and has no key yet. Dropping it removes it from a folder; a bucket needs a lifecycle
/// rule for `staging/`.
#[derive(Debug)]
pub struct Flushed {
    objects: Objects,
    staged: Option<String>,
}

impl Flushed {
    /// Gives the object its key. An earlier object of the key is replaced. A bucket copies it, at most 5 GiB.
    ///
    /// # Errors
    /// When the storage does not answer, or refuses.
    pub async fn publish(mut self, key: &str) -> Result<(), ObjectError> {
        let Some(staged) = self.staged.as_ref() else { return Ok(()) };
        let (store, from): (_, Path) = self.objects.place(staged)?;
        let (_, to) = self.objects.place(key)?;
        store.rename(&from, &to).await.map_err(|error| of(&error))?;
        self.staged = None;
        Ok(())
    }

    /// Removes the object.
    ///
    /// # Errors
    /// As [`Flushed::publish`].
    pub async fn discard(mut self) -> Result<(), ObjectError> {
        let Some(staged) = self.staged.take() else { return Ok(()) };
        let (store, path) = self.objects.place(&staged)?;
        found(store.delete(&path).await).map(|_| ())
    }
}

impl Drop for Flushed {
    fn drop(&mut self) {
        let (Some(staged), Objects::Folder(folder)) = (self.staged.take(), &self.objects) else { return };
        // Only when the request is dropped in between; the sweep removes what remains.
        if let Err(error) = std::fs::remove_file(folder.root().join(staged)) {
            tracing::debug!(error = %error, "an unfinished upload was not removed: {error}");
        }
    }
}
