//! Blobs on their way to and from upstreams.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use sha2::Digest as _;
use tokio_util::bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::UpstreamError;
use super::health::{Attempt, Health};
use crate::base::{Secret, Sha256};
use crate::net::BodyBroken;

/// The hash of a blob that may still be arriving.
#[derive(Debug, Clone, Default)]
pub struct HashToCome(Arc<OnceLock<Sha256>>);

impl HashToCome {
    /// A hash that is known.
    #[must_use]
    pub fn known(sha256: Sha256) -> Self {
        Self(Arc::new(OnceLock::from(sha256)))
    }

    /// Tells the hash of all bytes, before their stream ends. Only the first call counts.
    pub fn set(&self, sha256: Sha256) {
        let _ = self.0.set(sha256);
    }

    /// The hash, once it is known.
    #[must_use]
    pub fn get(&self) -> Option<Sha256> {
        self.0.get().copied()
    }
}

/// A blob for an upstream.
pub struct PutBlob {
    /// The hash that the client states, for the header `X-SHA-256`.
    pub claimed: Option<Sha256>,
    /// The hash of the bytes, set before `body` ends: what the upstream says is compared with it.
    pub sha256: HashToCome,
    /// Size in bytes, if it is known before the last byte; else the body is sent in chunks.
    pub size: Option<u64>,
    /// Media type.
    pub media_type: String,
    /// Value of the header `Authorization`.
    pub token: Option<Secret>,
    /// The bytes. If it ends with an error, the request is broken off, so that the upstream has no whole body.
    pub body: BoxStream<'static, Result<Bytes, BodyBroken>>,
    /// Cancelled to give up this upstream because it reads too slowly; counts as its failure. Dropping the request does
    /// not.
    pub too_slow: CancellationToken,
    /// Time limit for all of it.
    pub within: Duration,
}

impl fmt::Debug for PutBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PutBlob")
            .field("claimed", &self.claimed)
            .field("size", &self.size)
            .field("media_type", &self.media_type)
            .finish_non_exhaustive()
    }
}

/// An upstream took a blob.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Whether it says that it did not have it before (201).
    pub is_new: bool,
    /// What it said about it, with our hash.
    pub descriptor: Option<RemoteDescriptor>,
}

/// What an upstream says about a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteDescriptor {
    /// Its hash.
    pub sha256: Sha256,
    /// Its size in bytes, if it is stated.
    pub size: Option<u64>,
    /// Its media type, if it is stated.
    pub media_type: Option<String>,
    /// Where it is, if it is stated: any URL that the upstream likes.
    pub url: Option<String>,
    /// When it was stored, Unix seconds.
    pub uploaded: Option<i64>,
}

/// What an upstream says of a blob without giving it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeadFacts {
    /// Size in bytes, if it is stated.
    pub size: Option<u64>,
    /// Media type, if it is stated.
    pub media_type: Option<String>,
    /// Whether web pages of other sites may read it there (`Access-Control-Allow-Origin`).
    pub allows_pages: bool,
}

/// How a deletion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// It was deleted.
    Done,
    /// There was no such blob.
    Absent,
}

/// What an upstream says before an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preflight {
    /// It would take the blob.
    Welcome,
    /// It cannot say (404, 405, 501).
    Unknown,
}

/// A blob that is to be announced before its upload.
#[derive(Debug, Clone, Copy)]
pub struct Announced<'a> {
    /// `X-SHA-256`.
    pub sha256: Sha256,
    /// `X-Content-Length`.
    pub size: Option<u64>,
    /// `X-Content-Type`.
    pub media_type: Option<&'a str>,
    /// Value of the header `Authorization`.
    pub token: Option<&'a Secret>,
    /// Whether `/media` is asked in place of `/upload`.
    pub is_media: bool,
}

/// A blob that is being read, or a part of it.
pub struct BlobReader {
    /// Size of the whole blob in bytes, if it is known.
    pub size: Option<u64>,
    /// Media type, if it is stated.
    pub media_type: Option<String>,
    /// The bytes, of a part only those that were asked for. Ends with an error if nothing arrives for a while, or more
    /// or fewer bytes than stated.
    pub bytes: BoxStream<'static, Result<Bytes, UpstreamError>>,
    /// The upstream that is at fault for other bytes; `None` of a server that is none of ours.
    pub(super) source: Option<Arc<Health>>,
}

impl fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobReader")
            .field("size", &self.size)
            .field("media_type", &self.media_type)
            .finish_non_exhaustive()
    }
}

impl BlobReader {
    /// The same bytes, of at most `bytes_max`; the stream of a longer blob ends with an error.
    ///
    /// # Errors
    /// An [`UpstreamError`] if its size is stated and larger.
    pub fn limited(self, bytes_max: u64) -> Result<Self, UpstreamError> {
        let too_long = || UpstreamError::answered(413, Some("the blob is larger than allowed"));
        if self.size.is_some_and(|size| size > bytes_max) {
            return Err(too_long());
        }
        let Self { size, media_type, bytes, source } = self;
        let bytes = stream::try_unfold((bytes, 0_u64), move |(mut bytes, mut read)| async move {
            let Some(piece) = bytes.next().await.transpose()? else { return Ok(None) };
            read = read.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
            if read > bytes_max { Err(too_long()) } else { Ok(Some((piece, (bytes, read)))) }
        });
        Ok(Self { size, media_type, bytes: bytes.boxed(), source })
    }

    /// The same bytes; how the stream ends counts for the upstream.
    pub(super) fn watched(self, mut attempt: Attempt, health: Arc<Health>) -> Self {
        let Self { size, media_type, bytes, .. } = self;
        // A reader that does not want the rest says nothing about the upstream.
        attempt.succeeds_if_dropped();
        let source = Some(Arc::clone(&health));
        let state = (bytes, Some(attempt), health);
        let counted = stream::unfold(state, |(mut bytes, mut attempt, health)| async move {
            let piece = match bytes.next().await? {
                Ok(piece) => {
                    health.metrics().received(u64::try_from(piece.len()).unwrap_or(u64::MAX));
                    Ok(piece)
                }
                Err(error) => match attempt.take() {
                    Some(attempt) => attempt.end(Err(error)),
                    None => Err(error),
                },
            };
            Some((piece, (bytes, attempt, health)))
        });
        Self { size, media_type, bytes: counted.boxed(), source }
    }

    /// The same bytes, hashed: the last piece is held back until the hash is right. If it is wrong the stream ends with an
    /// error in its place, so that a reader never has a whole blob of other bytes. Only for a whole blob.
    #[must_use]
    pub fn verified(self, sha256: Sha256) -> Self {
        let Self { size, media_type, bytes, source } = self;
        let state = Verifying {
            bytes,
            held: None,
            hasher: sha2::Sha256::new(),
            has_ended: false,
            source: source.clone(),
        };
        let checked = stream::try_unfold(state, move |mut state| async move {
            let piece = state.next(sha256).await?;
            Ok(piece.map(|piece| (piece, state)))
        });
        Self { size, media_type, bytes: checked.boxed(), source }
    }
}

struct Verifying {
    bytes: BoxStream<'static, Result<Bytes, UpstreamError>>,
    held: Option<Bytes>,
    hasher: sha2::Sha256,
    has_ended: bool,
    source: Option<Arc<Health>>,
}

impl Verifying {
    async fn next(&mut self, sha256: Sha256) -> Result<Option<Bytes>, UpstreamError> {
        while !self.has_ended {
            match self.bytes.next().await.transpose()? {
                Some(piece) if piece.is_empty() => {}
                Some(piece) => {
                    self.hasher.update(&piece);
                    if let Some(earlier) = self.held.replace(piece) {
                        return Ok(Some(earlier));
                    }
                }
                None => {
                    self.has_ended = true;
                    let found: [u8; 32] = self.hasher.finalize_reset().into();
                    if Sha256::from_bytes(found) != sha256 {
                        self.held = None;
                        if let Some(health) = &self.source {
                            health.gave_other_bytes();
                        }
                        return Err(UpstreamError::other_bytes());
                    }
                }
            }
        }
        Ok(self.held.take())
    }
}
