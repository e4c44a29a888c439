//! Object storage: an S3 bucket, or a folder of this machine. Both by the library `object_store`, which confines
//! keys to the prefix or folder.
//!
//! Contents pass through as streams; at most a few MiB of an object are in memory.

mod bucket;
mod folder;
mod incoming;
mod pieces;

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::ops::Range;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{GetOptions, GetResultPayload, ObjectStore, ObjectStoreExt as _};
use tokio_util::bytes::Bytes;

use super::remote_text::sanitize;

pub use bucket::{Bucket, BucketSettings};
pub use folder::Folder;
pub use incoming::{Flushed, Incoming};

use pieces::pieces;

/// Where objects are. Clones share it.
#[derive(Debug, Clone)]
pub enum Objects {
    /// A bucket of S3 or a server that speaks its protocol.
    Bucket(Bucket),
    /// A folder of this machine.
    Folder(Folder),
}

/// Why the storage did not do what was asked. Contains no secret: neither keys nor signed URLs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// The settings do not name a storage.
    #[error("the object storage cannot be opened: {0}")]
    Settings(String),
    /// The storage is out of reach or failed; a later attempt may succeed.
    #[error("the object storage does not answer: {0}")]
    Unavailable(String),
    /// The storage refuses the request; a later attempt fails as well.
    #[error("the object storage refuses the request: {0}")]
    Refused(String),
    /// The file system of the folder is full.
    #[error("no space is left in the folder of objects")]
    NoSpace,
}

/// What is known of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectFacts {
    /// Size in bytes.
    pub size: u64,
    /// The storage's mark of this version of the object.
    pub etag: Option<String>,
}

/// An object that is being read.
pub struct ObjectReader {
    /// Its facts.
    pub facts: ObjectFacts,
    /// Its content.
    pub bytes: BoxStream<'static, Result<Bytes, ObjectError>>,
}

impl fmt::Debug for ObjectReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectReader").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl Objects {
    /// The facts of an object; `None` if it does not exist.
    ///
    /// # Errors
    /// When the storage does not answer, or refuses.
    pub async fn head(&self, key: &str) -> Result<Option<ObjectFacts>, ObjectError> {
        let (store, path) = self.place(key)?;
        let Some(meta) = found(store.head(&path).await)? else { return Ok(None) };
        Ok(Some(ObjectFacts { size: meta.size, etag: meta.e_tag }))
    }

    /// Opens an object for reading; `None` if it does not exist.
    ///
    /// # Errors
    /// As [`Objects::head`]; the stream fails in the same way.
    pub async fn read(&self, key: &str) -> Result<Option<ObjectReader>, ObjectError> {
        self.read_part(key, None).await
    }

    /// Opens the bytes in `range` of an object for reading; its end is not part of it. Both have to lie within the
    /// object.
    ///
    /// # Errors
    /// As [`Objects::read`].
    pub async fn read_range(
        &self,
        key: &str,
        range: Range<u64>,
    ) -> Result<Option<ObjectReader>, ObjectError> {
        self.read_part(key, Some(range)).await
    }

    async fn read_part(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Option<ObjectReader>, ObjectError> {
        let (store, path) = self.place(key)?;
        let options = GetOptions::new().with_range(range);
        let Some(result) = found(store.get_opts(&path, options).await)? else { return Ok(None) };
        let facts = ObjectFacts { size: result.meta.size, etag: result.meta.e_tag.clone() };
        let bytes = match result.payload {
            GetResultPayload::File(file, _) => pieces(file, result.range),
            GetResultPayload::Stream(stream) => stream.map(|piece| piece.map_err(|e| of(&e))).boxed(),
        };
        Ok(Some(ObjectReader { facts, bytes }))
    }

    /// Deletes an object. A missing one is no error.
    ///
    /// # Errors
    /// As [`Objects::head`].
    pub async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        let (store, path) = self.place(key)?;
        found(store.delete(&path).await).map(|_| ())
    }

    fn place(&self, key: &str) -> Result<(&dyn ObjectStore, Path), ObjectError> {
        match self {
            Self::Bucket(bucket) => Ok((bucket.store(), bucket.path(key)?)),
            Self::Folder(folder) => Ok((folder.store(), path(key)?)),
        }
    }
}

/// The path of a key. A key with an empty segment, `.` or `..` is refused.
fn path(key: &str) -> Result<Path, ObjectError> {
    Path::parse(key).map_err(|_| ObjectError::Refused("the key is not a path of an object".to_owned()))
}

/// `None` for a missing object.
fn found<T>(answer: object_store::Result<T>) -> Result<Option<T>, ObjectError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(of(&error)),
    }
}

/// Converts an error of the library. Its text can contain what the server answered, which names the access key:
/// only the innermost cause is kept, up to the first markup.
fn of(error: &object_store::Error) -> ObjectError {
    use object_store::Error as Cause;
    match error {
        Cause::PermissionDenied { .. } | Cause::Unauthenticated { .. } => {
            return ObjectError::Refused("its access key is not accepted, or may not do this".to_owned());
        }
        Cause::NotFound { .. } => {
            return ObjectError::Refused("there is no such object or bucket".to_owned());
        }
        Cause::InvalidPath { .. } => {
            return ObjectError::Refused("the key is not a path of an object".to_owned());
        }
        Cause::NotSupported { .. } | Cause::NotImplemented { .. } => {
            return ObjectError::Refused("it does not support this".to_owned());
        }
        _ => {}
    }
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    let mut deepest = String::new();
    while let Some(current) = cause {
        if current.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::StorageFull) {
            return ObjectError::NoSpace;
        }
        deepest = current.to_string();
        cause = current.source();
    }
    let plain = sanitize(deepest.split('<').next().unwrap_or_default().trim());
    // The library does not give away the status otherwise.
    if plain.contains("status code: 4") {
        ObjectError::Refused(plain)
    } else {
        ObjectError::Unavailable(plain)
    }
}

fn of_io(error: &io::Error) -> ObjectError {
    if error.kind() == io::ErrorKind::StorageFull {
        return ObjectError::NoSpace;
    }
    ObjectError::Unavailable(sanitize(&error.to_string()))
}
