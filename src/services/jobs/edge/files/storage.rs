//! Where files are, and the signed URLs to them.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::header::HOST;
use axum::http::request::Parts;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use crate::config::JobFiles;
use crate::http::Rejection;
use crate::net::objects::{Bucket, Folder, ObjectError, Objects};
use crate::services::jobs::append::FileJournal;
use crate::services::jobs::command::FileEntry;
use crate::services::jobs::decide::{Grant, GrantedMethod, ObjectKey, seal};
use crate::services::jobs::edge::JobsState;
use crate::services::jobs::edge::refusal::Refused;
use crate::services::jobs::event::FileKind;
use crate::store::Space;
use crate::store::append::Writer;

/// The storage of files. Clones share it.
#[derive(Debug, Clone)]
pub struct Storage {
    objects: Objects,
    settings: JobFiles,
    space: Space,
    journal: Writer<FileJournal>,
    uploads: Arc<Semaphore>,
}

impl Storage {
    /// Uploads to a folder keep a reserve of `reserve_mb` free, as [`Space::with_reserve`] says.
    #[must_use]
    pub fn new(
        objects: Objects,
        settings: JobFiles,
        reserve_mb: Option<u32>,
        journal: Writer<FileJournal>,
    ) -> Self {
        let space = Space::with_reserve(reserve_mb);
        if let Objects::Folder(folder) = &objects {
            space.set_folder(folder.root().to_owned());
        }
        let uploads = Arc::new(Semaphore::new(settings.uploads_max.get().min(Semaphore::MAX_PERMITS)));
        Self { objects, settings, space, journal, uploads }
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &JobFiles {
        &self.settings
    }

    /// Where the files are.
    #[must_use]
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// The folder, which this listener serves; in a bucket clients read and write without it.
    pub(super) fn folder(&self) -> Result<&Folder, Refused> {
        match &self.objects {
            Objects::Folder(folder) => Ok(folder),
            Objects::Bucket(_) => Err(Refused::not_found("file")),
        }
    }

    /// Begins an upload to the folder: one of a limited number.
    pub(super) fn begin_upload(&self) -> Result<OwnedSemaphorePermit, Refused> {
        Arc::clone(&self.uploads).try_acquire_owned().map_err(|_| Refused::Contended)
    }

    /// Refuses what would use up the reserve of the folder's file system.
    pub(super) fn check_space(&self, bytes: u64) -> Result<(), Refused> {
        let needed = i64::try_from(bytes).unwrap_or(i64::MAX);
        if self.space.look().is_some() || self.space.spare_bytes().is_some_and(|spare| needed > spare) {
            return Err(ObjectError::NoSpace.into());
        }
        Ok(())
    }

    /// Refuses a size beyond `services.jobs.files.file_bytes_max`.
    pub(super) fn check_size(&self, field: &'static str, bytes: u64) -> Result<(), Refused> {
        if bytes <= self.settings.file_bytes_max.get() { Ok(()) } else { Err(self.too_large(field, bytes)) }
    }

    /// 413: more than `services.jobs.files.file_bytes_max`.
    pub(super) fn too_large(&self, field: &'static str, bytes: u64) -> Refused {
        let most = self.settings.file_bytes_max.get();
        let message = format!("{bytes} bytes, at most {most} (services.jobs.files.file_bytes_max)");
        let rejection = Rejection::new(StatusCode::PAYLOAD_TOO_LARGE, message);
        Refused::Other("too_large", rejection.field(field).over_limit(most, bytes))
    }

    /// Records an entry.
    pub(super) async fn record(&self, entry: FileEntry) -> Result<(), Refused> {
        self.journal.append(entry).await.map_err(Refused::from)
    }

    /// The writer of entries.
    #[must_use]
    pub fn journal(&self) -> &Writer<FileJournal> {
        &self.journal
    }

    /// How long a signed URL is valid.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        Duration::from_secs(self.settings.url_lifetime_s.get().into())
    }
}

/// An upload for which a URL is asked.
#[derive(Debug, Clone)]
pub(super) struct Upload {
    pub(super) key: ObjectKey,
    pub(super) content_type: String,
    /// Exact size in bytes.
    pub(super) size: Option<u64>,
    /// What the content has to be.
    pub(super) sha256: Option<[u8; 32]>,
    /// Whether the uploader sends the headers of the answer: a client of the original sends the content type alone.
    pub(super) sends_headers: bool,
    /// The lease of an output.
    pub(super) claim: Option<Uuid>,
    pub(super) actor: String,
}

impl Upload {
    /// An entry about it.
    pub(super) fn entry(&self, kind: FileKind, is_bound: bool) -> FileEntry {
        FileEntry {
            id: Uuid::now_v7(),
            kind,
            key: self.key.to_string(),
            output_of: output_of(&self.key),
            size: self.size.and_then(|size| i64::try_from(size).ok()),
            sha256: self.sha256,
            is_bound,
            etag: None,
            content_type: Some(self.content_type.clone()),
            actor: self.actor.clone(),
            why: None,
        }
    }
}

/// Job and lease of an output.
pub(super) fn output_of(key: &ObjectKey) -> Option<(i64, i32)> {
    match key {
        ObjectKey::Output { job, attempt, .. } => Some((*job, *attempt)),
        ObjectKey::Source(_) => None,
    }
}

/// A signed URL for an upload.
#[derive(Debug)]
pub(super) struct UploadLink {
    pub(super) url: String,
    /// Headers that the uploader has to send.
    pub(super) headers: Vec<(&'static str, String)>,
    /// Seconds since 1970.
    pub(super) expires: i64,
    /// Whether the storage accepts no other content than that of `sha256`.
    pub(super) is_bound: bool,
}

/// The URL by which the client has reached this listener.
#[derive(Clone)]
pub(in super::super) struct Base(String);

impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromRequestParts<JobsState> for Base {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &JobsState) -> Result<Self, Infallible> {
        if let Some(url) = &state.parts().settings.files.url {
            return Ok(Self(url.trim_end_matches('/').to_owned()));
        }
        // The guard accepts only own names.
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = host.map_or_else(|| state.0.address.to_string(), str::to_owned);
        Ok(Self(format!("http://{host}")))
    }
}

impl JobsState {
    /// The storage; 404 if there is none.
    pub(in super::super) fn storage(&self) -> Result<&Storage, Refused> {
        let none =
            || Refused::coded(StatusCode::NOT_FOUND, "no_storage", "no storage for files is configured");
        self.parts().storage.as_ref().ok_or_else(none)
    }

    /// A URL by which a file can be read.
    pub(in super::super) async fn download_link(
        &self,
        base: &Base,
        key: &ObjectKey,
        actor: &str,
    ) -> Result<String, Refused> {
        let storage = self.storage()?;
        if let Objects::Bucket(bucket) = &storage.objects {
            return Ok(bucket.sign_get(&key.to_string(), storage.lifetime()).await?);
        }
        let grant = Grant {
            method: GrantedMethod::Get,
            key: key.to_string(),
            expires: self.expiry(storage.lifetime()),
            content_type: None,
            size: None,
            sha256: None,
            claim: None,
            part: None,
            actor: actor.to_owned(),
        };
        self.sealed_url(base, &grant).await
    }

    /// A URL by which a file can be uploaded.
    pub(super) async fn upload_link(&self, base: &Base, upload: &Upload) -> Result<UploadLink, Refused> {
        let storage = self.storage()?;
        let (key, expires) = (upload.key.to_string(), self.expiry(storage.lifetime()));
        if let Objects::Bucket(bucket) = &storage.objects {
            let sha256 = upload.sha256.filter(|_| upload.sends_headers);
            let signed = bucket.sign_put(&key, &upload.content_type, sha256, storage.lifetime()).await?;
            let (url, headers) = signed;
            return Ok(UploadLink { url, headers, expires, is_bound: sha256.is_some() });
        }
        let grant = Grant {
            method: GrantedMethod::Put,
            key,
            expires,
            content_type: Some(upload.content_type.clone()),
            size: upload.size,
            sha256: upload.sha256.map(hex::encode),
            claim: upload.claim,
            part: None,
            actor: upload.actor.clone(),
        };
        let headers = vec![("content-type", upload.content_type.clone())];
        let is_bound = upload.sha256.is_some();
        Ok(UploadLink { url: self.sealed_url(base, &grant).await?, headers, expires, is_bound })
    }

    /// A URL for an upload to the bucket whose content changes nothing: the key has what it says.
    pub(super) async fn discarded_link(&self, upload: &Upload) -> Result<UploadLink, Refused> {
        let storage = self.storage()?;
        let Objects::Bucket(bucket) = &storage.objects else { return Err(Refused::not_found("file")) };
        let key = Bucket::discarded_key(&upload.key.to_string());
        let signed = bucket.sign_put(&key, &upload.content_type, None, storage.lifetime()).await?;
        let (url, headers) = signed;
        Ok(UploadLink { url, headers, expires: self.expiry(storage.lifetime()), is_bound: true })
    }

    /// The URL of a grant.
    pub(super) async fn sealed_url(&self, base: &Base, grant: &Grant) -> Result<String, Refused> {
        let sealed = seal(&self.lease_key().await?, grant);
        Ok(format!("{}/objects/{}?grant={sealed}", base.0, grant.key))
    }

    /// The time after `lifetime`, seconds since 1970.
    pub(super) fn expiry(&self, lifetime: Duration) -> i64 {
        let lifetime = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
        self.parts().clock.now().timestamp().saturating_add(lifetime)
    }
}
