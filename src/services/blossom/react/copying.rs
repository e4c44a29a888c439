//! Copies a blob from one upstream to another: by the taker itself if it can, else through this process, hashed on the
//! way.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::ReactParts;
use super::check::is_other_content;
use crate::base::{Secret, Sha256};
use crate::services::blossom::command::ReplicaResult;
use crate::services::blossom::decide::authorization::{Credential, Verb};
use crate::services::blossom::event::{BlobFacts, ReplicaEvent};
use crate::services::blossom::upstream::{
    BlobReader, BodyBroken, HashToCome, PutBlob, Upstream, UpstreamError,
};

/// How a copy was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// The taker fetched it.
    Mirrored,
    /// The bytes went through this process.
    Streamed,
}

/// Why a copy was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// No holder gives the blob.
    #[error("no copy can be read: {0}")]
    NoSource(String),
    /// The taker refuses it or fails.
    #[error("{0}")]
    Taker(String),
}

/// A copy, or why there is none, and what was found out about copies on the way.
#[derive(Debug)]
pub struct Attempt {
    /// How it ended.
    pub ended: Result<Copied, CopyError>,
    /// Entries about the taker, and about holders that have lost the blob.
    pub results: Vec<ReplicaResult>,
}

/// Copies a blob to `taker` from the first of `holders` that gives it.
pub async fn copy_blob(
    parts: &ReactParts,
    blob: &BlobFacts,
    holders: &[Upstream],
    taker: &Upstream,
) -> Attempt {
    let mut results = Vec::new();
    let ended = copy(parts, blob, holders, taker, &mut results).await;
    match &ended {
        Ok(_) => results.push(result(taker, ReplicaEvent::Accepted, None)),
        Err(CopyError::Taker(why)) => {
            results.push(result(taker, ReplicaEvent::Failed, Some(why.clone())));
        }
        Err(CopyError::NoSource(_)) => {}
    }
    Attempt { ended, results }
}

fn result(upstream: &Upstream, event: ReplicaEvent, why: Option<String>) -> ReplicaResult {
    ReplicaResult { upstream: upstream.name().to_owned(), event, why }
}

async fn copy(
    parts: &ReactParts,
    blob: &BlobFacts,
    holders: &[Upstream],
    taker: &Upstream,
    results: &mut Vec<ReplicaResult>,
) -> Result<Copied, CopyError> {
    let within = Duration::from_secs(parts.settings.upload_timeout_max_s.get().into());
    if taker.supports_mirror() && mirror(parts, blob, holders, taker, within).await? {
        return Ok(Copied::Mirrored);
    }
    let mut last = "no upstream holds it".to_owned();
    for holder in holders {
        let reader = match holder.get(&blob.sha256, None).await {
            Ok(Some(reader)) => reader,
            Ok(None) => {
                results.push(result(holder, ReplicaEvent::Lost, Some("it is not there any more".to_owned())));
                last = format!("{}: it is not there", holder.name());
                continue;
            }
            Err(error) => {
                last = format!("{}: {error}", holder.name());
                continue;
            }
        };
        let transfer = Transfer {
            sha256: blob.sha256,
            size: Some(blob.size),
            bytes_max: blob.size,
            media_type: &blob.media_type,
            reader,
            within,
        };
        match transfer.send(parts, taker).await {
            Ok(_) => return Ok(Copied::Streamed),
            Err(Broken::Source(error)) => {
                if is_other_content(&error) {
                    let why = "it has other bytes there".to_owned();
                    results.push(result(holder, ReplicaEvent::Lost, Some(why)));
                }
                last = format!("{}: {error}", holder.name());
            }
            Err(Broken::Taker(why)) => return Err(CopyError::Taker(why)),
        }
    }
    Err(CopyError::NoSource(last))
}

/// Asks the taker to fetch the blob from a holder. Returns whether it did; if not, it is sent.
async fn mirror(
    parts: &ReactParts,
    blob: &BlobFacts,
    holders: &[Upstream],
    taker: &Upstream,
    within: Duration,
) -> Result<bool, CopyError> {
    let url = holders.iter().find_map(|holder| holder.public_url(&blob.sha256, ""));
    let Some(url) = url else { return Ok(false) };
    let token = token(parts, blob.sha256, taker)?;
    match taker.mirror(&blob.sha256, url.as_str(), token.as_ref(), within).await {
        Ok(_) => Ok(true),
        Err(error) => {
            let name = taker.name();
            tracing::debug!(upstream = name, blob = %blob.sha256, "not mirrored, so it is sent: {error}");
            Ok(false)
        }
    }
}

/// What the taker is shown.
fn token(parts: &ReactParts, sha256: Sha256, taker: &Upstream) -> Result<Option<Secret>, CopyError> {
    let now = parts.clock.now().timestamp();
    match parts.upstreams.credential(taker, None, Verb::Upload, Some(sha256), now) {
        Credential::Token(token) => Ok(Some(token)),
        Credential::Nothing => Ok(None),
        Credential::Unavailable => Err(CopyError::Taker("no token is valid there".to_owned())),
    }
}

/// Which end of a transfer broke.
#[derive(Debug)]
pub(super) enum Broken {
    /// The one that is read from.
    Source(UpstreamError),
    /// The one that is written to.
    Taker(String),
}

/// A blob on its way to an upstream.
#[derive(Debug)]
pub(super) struct Transfer<'a> {
    pub(super) sha256: Sha256,
    /// Bytes, if the number is known to be right.
    pub(super) size: Option<u64>,
    /// Most bytes.
    pub(super) bytes_max: u64,
    pub(super) media_type: &'a str,
    pub(super) reader: BlobReader,
    /// Time limit for all of it.
    pub(super) within: Duration,
}

impl Transfer<'_> {
    /// Sends the blob. Its last piece is held back until the hash is right. Returns the number of bytes.
    pub(super) async fn send(self, parts: &ReactParts, taker: &Upstream) -> Result<u64, Broken> {
        let token = token(parts, self.sha256, taker).map_err(|error| Broken::Taker(error.to_string()))?;
        let reader = self.reader.limited(self.bytes_max).map_err(Broken::Source)?;
        let source: Arc<Mutex<Option<UpstreamError>>> = Arc::default();
        let sent = Arc::new(AtomicU64::new(0));
        let (broken, counted) = (Arc::clone(&source), Arc::clone(&sent));
        let body = reader.verified(self.sha256).bytes.map(move |piece| {
            if let Ok(piece) = &piece {
                counted.fetch_add(u64::try_from(piece.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
            piece.map_err(|error| {
                let why = BodyBroken(error.reason.clone());
                *broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                why
            })
        });
        let put = PutBlob {
            claimed: Some(self.sha256),
            sha256: HashToCome::known(self.sha256),
            size: self.size,
            media_type: self.media_type.to_owned(),
            token,
            body: body.boxed(),
            too_slow: CancellationToken::new(),
            within: self.within,
        };
        let put = taker.put(put).await;
        let source = source.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (put, source) {
            (_, Some(error)) => Err(Broken::Source(error)),
            (Ok(_), None) => Ok(sent.load(Ordering::Relaxed)),
            (Err(error), None) => Err(Broken::Taker(error.reason)),
        }
    }
}
