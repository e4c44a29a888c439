//! A source that arrives before its key is known: the file of a form. Its SHA-256 is computed meanwhile.

use std::pin::pin;

use axum::body::Bytes;
use axum::http::StatusCode;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::OwnedSemaphorePermit;

use super::storage::{Storage, Upload};
use super::transfer::Meter;
use super::{CONTENT_TYPE_BYTES_MAX, CONTENT_TYPE_DEFAULT};
use crate::http::Rejection;
use crate::net::objects::{Flushed, Objects};
use crate::services::jobs::decide::ObjectKey;
use crate::services::jobs::edge::refusal::Refused;
use crate::services::jobs::event::FileKind;

/// Largest object that S3 copies, bytes: it gets its key by a copy.
const COPY_BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024;

/// What a form has beside its file at most, bytes.
const FORM_BYTES_MAX: u64 = 64 * 1024;

/// A source that is complete and has no key yet. Dropping it removes it.
#[derive(Debug)]
pub(in super::super) struct ReceivedSource<'a> {
    storage: &'a Storage,
    flushed: Flushed,
    content_type: String,
    pub(in super::super) size: u64,
    sha256: [u8; 32],
    _one_of_few: OwnedSemaphorePermit,
}

impl Storage {
    /// The largest file of a form, bytes.
    pub(in super::super) fn form_file_bytes_max(&self) -> u64 {
        let most = self.settings().file_bytes_max.get();
        if matches!(self.objects(), Objects::Bucket(_)) { most.min(COPY_BYTES_MAX) } else { most }
    }

    fn check_form_file(&self, bytes: u64) -> Result<(), Refused> {
        self.check_size("file", bytes)?;
        let most = self.form_file_bytes_max();
        if bytes <= most {
            return Ok(());
        }
        let message = format!("{bytes} bytes, at most {most} in a form: use `quipu jobs submit`");
        let rejection = Rejection::new(StatusCode::PAYLOAD_TOO_LARGE, message);
        Err(Refused::Other("too_large", rejection.field("file").over_limit(most, bytes)))
    }

    /// Refuses a form of this size, bytes, before it is read.
    pub(in super::super) fn check_form(&self, bytes: u64) -> Result<(), Refused> {
        self.check_form_file(bytes.saturating_sub(FORM_BYTES_MAX))?;
        self.check_space(bytes)
    }

    /// Receives a source: one of a limited number of uploads.
    pub(in super::super) async fn receive(
        &self,
        content_type: Option<&str>,
        pieces: impl Stream<Item = Result<Bytes, Refused>>,
    ) -> Result<ReceivedSource<'_>, Refused> {
        let content_type = content_type.filter(|given| given.len() <= CONTENT_TYPE_BYTES_MAX);
        let content_type = content_type.unwrap_or(CONTENT_TYPE_DEFAULT).to_owned();
        let one_of_few = self.begin_upload()?;
        let mut incoming = self.objects().begin().await?;
        let mut pieces = pin!(pieces);
        let mut meter = Meter::new(self);
        let arrived = async {
            while let Some(piece) = pieces.next().await {
                let piece = piece?;
                self.check_form_file(meter.size + piece.len() as u64)?;
                meter.add(&piece)?;
                incoming.write(piece).await?;
            }
            Ok::<(), Refused>(())
        };
        let arrived = arrived.await;
        if let Err(refused) = arrived {
            incoming.discard().await?;
            return Err(refused);
        }
        let (size, sha256) = meter.end();
        let flushed = incoming.flush().await?;
        Ok(ReceivedSource { storage: self, flushed, content_type, size, sha256, _one_of_few: one_of_few })
    }
}

impl ReceivedSource<'_> {
    /// The SHA-256 in lower-case hex.
    pub(in super::super) fn source_hash(&self) -> String {
        hex::encode(self.sha256)
    }

    /// Gives the source its key, and records it: what a bucket has got from this server is checked.
    pub(in super::super) async fn keep(self, actor: String) -> Result<(), Refused> {
        let kind = match self.storage.objects() {
            Objects::Bucket(_) => FileKind::Verified,
            Objects::Folder(_) => FileKind::Stored,
        };
        let upload = Upload {
            key: ObjectKey::Source(self.sha256),
            content_type: self.content_type,
            size: Some(self.size),
            sha256: Some(self.sha256),
            sends_headers: true,
            claim: None,
            actor,
        };
        self.flushed.publish(&upload.key.to_string()).await?;
        self.storage.record(upload.entry(kind, true)).await
    }

    /// Removes it.
    pub(in super::super) async fn discard(self) -> Result<(), Refused> {
        Ok(self.flushed.discard().await?)
    }
}
