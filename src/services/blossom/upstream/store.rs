//! The built-in store: a folder of this machine, or a bucket.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt as _, TryStreamExt as _};

use super::health::Health;
use super::{Accepted, BlobReader, Deleted, HeadFacts, PutBlob, UpstreamError};
use crate::base::Sha256;
use crate::net::objects::Objects;

/// Age of an unfinished upload to a folder at which it is removed. Far longer than an upload may take.
const UNFINISHED_MAX: Duration = Duration::from_hours(48);

/// A store.
#[derive(Debug)]
pub(super) struct Store(pub(super) Objects);

/// Where a blob is in the store: in one of 256 folders by its first two digits.
fn key(sha256: &Sha256) -> String {
    let digits = sha256.to_string();
    format!("{}/{digits}", &digits[..2])
}

impl Store {
    pub(super) async fn put(&self, blob: PutBlob, health: &Arc<Health>) -> Result<Accepted, UpstreamError> {
        let PutBlob { sha256, size, mut body, .. } = blob;
        let mut incoming = self.0.begin().await?;
        let mut received = 0_u64;
        while let Some(piece) = body.next().await {
            let broken = match piece {
                Ok(piece) => {
                    let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
                    received = received.saturating_add(length);
                    health.metrics().sent(length);
                    incoming.write(piece).await?;
                    continue;
                }
                Err(broken) => broken,
            };
            // What is left over is removed by the sweep.
            if let Err(error) = incoming.discard().await {
                tracing::debug!(error = %error, "an unfinished blob was not removed: {error}");
            }
            return Err(UpstreamError::broken_off(&broken.0));
        }
        let Some(sha256) = sha256.get().filter(|_| size.is_none_or(|size| size == received)) else {
            drop(incoming.discard().await);
            return Err(UpstreamError::broken_off("the blob is not whole"));
        };
        incoming.flush().await?.publish(&key(&sha256)).await?;
        Ok(Accepted { is_new: true, descriptor: None })
    }

    pub(super) async fn head(&self, sha256: &Sha256) -> Result<Option<HeadFacts>, UpstreamError> {
        let facts = self.0.head(&key(sha256)).await?;
        Ok(facts.map(|facts| HeadFacts { size: Some(facts.size), ..HeadFacts::default() }))
    }

    pub(super) async fn get(
        &self,
        sha256: &Sha256,
        range: Option<Range<u64>>,
    ) -> Result<Option<BlobReader>, UpstreamError> {
        let object = match range {
            Some(range) => self.0.read_range(&key(sha256), range).await?,
            None => self.0.read(&key(sha256)).await?,
        };
        Ok(object.map(|object| BlobReader {
            size: Some(object.facts.size),
            media_type: None,
            bytes: object.bytes.map_err(UpstreamError::from).boxed(),
            source: None,
        }))
    }

    pub(super) async fn delete(&self, sha256: &Sha256) -> Result<Deleted, UpstreamError> {
        let key = key(sha256);
        let is_there = self.0.head(&key).await?.is_some();
        self.0.delete(&key).await?;
        Ok(if is_there { Deleted::Done } else { Deleted::Absent })
    }

    /// Removes what uploads have left over that were broken off long before `now`. Returns how many.
    pub(super) async fn sweep(&self, now: SystemTime) -> Result<usize, UpstreamError> {
        match &self.0 {
            Objects::Folder(folder) => Ok(folder.sweep(now, UNFINISHED_MAX, UNFINISHED_MAX).await?),
            // A lifecycle rule of the bucket does.
            Objects::Bucket(_) => Ok(0),
        }
    }
}
