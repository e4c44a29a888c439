//! Copies that are streamed through here: those of built-in stores, of which small ones are kept in memory for a moment, and
//! those of servers, whose bytes are checked against the hash.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _, stream};
use moka::future::Cache;

use super::BlossomState;
use super::answer::{part, whole};
use super::servable::Servable;
use crate::base::Sha256;
use crate::services::blossom::decide::range::{ByteRange, Wanted};
use crate::services::blossom::metrics::DownloadOutcome;
use crate::services::blossom::upstream::{BlobReader, Upstream, UpstreamError};

/// Largest blob that is kept in memory, bytes: a larger one costs more to send than to open.
const SMALL_BYTES_MAX: u64 = 256 * 1024;

/// Memory for such blobs, bytes.
const MEMORY_BYTES_MAX: u64 = 24 * 1024 * 1024;

/// Time for which one is kept after its last download.
const MEMORY_LIFE: Duration = Duration::from_mins(1);

/// Small blobs of built-in stores. The bytes of a hash never change; whether they may be given away is decided before.
pub(super) struct Contents(Cache<Sha256, Bytes>);

impl Default for Contents {
    fn default() -> Self {
        let weigh = |_: &Sha256, content: &Bytes| {
            u32::try_from(content.len()).unwrap_or(u32::MAX).saturating_add(128)
        };
        let cache = Cache::builder().weigher(weigh).max_capacity(MEMORY_BYTES_MAX).time_to_idle(MEMORY_LIFE);
        Self(cache.build())
    }
}

impl BlossomState {
    /// The answer with the wanted bytes of one copy; `None` if the upstream has it not, or other bytes.
    pub(super) async fn read_copy(
        &self,
        upstream: &Upstream,
        servable: &Servable,
        wanted: Wanted,
    ) -> Result<Option<Response>, UpstreamError> {
        let is_small = servable.size.is_some_and(|size| size <= SMALL_BYTES_MAX);
        if upstream.is_store() && is_small {
            let content = self.small(upstream, servable).await?;
            return Ok(content.map(|content| self.of_memory(servable, wanted, content)));
        }
        let range = match wanted {
            Wanted::Part(range) => Some(range),
            Wanted::Whole | Wanted::Unsatisfiable => None,
        };
        let exclusive = range.map(|range| range.first..range.last.saturating_add(1));
        let Some(reader) = upstream.get(&servable.sha256, exclusive).await? else { return Ok(None) };
        if let (Some(expected), Some(found)) = (servable.size, reader.size)
            && expected != found
        {
            tracing::warn!(
                upstream = upstream.name(),
                "blob {} has {found} bytes there, not {expected}",
                servable.sha256
            );
            return Ok(None);
        }
        // The proofs of stored copies are made by a loop: a hash for each download would cost more than the download.
        let is_checked = range.is_none() && !upstream.is_store();
        let reader = if is_checked { reader.verified(servable.sha256) } else { reader };
        let source = Source { upstream: upstream.name().to_owned(), is_recorded: servable.is_recorded };
        let body = self.body(reader, servable.sha256, Some(source)).await?;
        Ok(Some(match (range, servable.size) {
            (Some(range), Some(size)) => part(servable, range, size, body),
            _ => whole(servable, body),
        }))
    }

    /// A small blob of a store.
    async fn small(&self, upstream: &Upstream, servable: &Servable) -> Result<Option<Bytes>, UpstreamError> {
        let Contents(contents) = &self.lookups().contents;
        if let Some(content) = contents.get(&servable.sha256).await {
            return Ok(Some(content));
        }
        let Some(reader) = upstream.get(&servable.sha256, None).await? else { return Ok(None) };
        let mut bytes = reader.verified(servable.sha256).bytes;
        let mut content = Vec::new();
        loop {
            match bytes.next().await.transpose() {
                Ok(Some(piece)) => content.extend_from_slice(&piece),
                Ok(None) => break,
                Err(error) if error.is_other_bytes() => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let content = Bytes::from(content);
        contents.insert(servable.sha256, content.clone()).await;
        Ok(Some(content))
    }

    /// A body of the bytes of `reader`. An upstream that breaks before its first byte is an error, so that another one can be asked.
    pub(super) async fn body(
        &self,
        reader: BlobReader,
        sha256: Sha256,
        source: Option<Source>,
    ) -> Result<Body, UpstreamError> {
        let mut bytes = reader.bytes;
        let first = bytes.next().await.transpose()?;
        let bytes = stream::iter(first.map(Ok)).chain(bytes).boxed();
        let outcome = DownloadOutcome::Streamed;
        Ok(Body::from_stream(Sending { bytes, state: self.clone(), sha256, source, outcome }))
    }

    fn of_memory(&self, servable: &Servable, wanted: Wanted, content: Bytes) -> Response {
        let metrics = &self.parts().metrics;
        metrics.downloaded(DownloadOutcome::Streamed);
        let size = u64::try_from(content.len()).unwrap_or(u64::MAX);
        match wanted {
            Wanted::Part(range) => {
                metrics.sent(range.bytes());
                part(servable, range, size, Body::from(slice(&content, range)))
            }
            Wanted::Whole | Wanted::Unsatisfiable => {
                metrics.sent(size);
                whole(servable, Body::from(content))
            }
        }
    }
}

/// The bytes of a range, which is within the blob.
fn slice(content: &Bytes, range: ByteRange) -> Bytes {
    let place = |number: u64| usize::try_from(number).unwrap_or(usize::MAX).min(content.len());
    content.slice(place(range.first)..place(range.last.saturating_add(1)))
}

/// The copy that a body is read from.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) upstream: String,
    /// Whether the journal has it.
    pub(super) is_recorded: bool,
}

/// The bytes of a blob on their way to a client.
struct Sending {
    bytes: BoxStream<'static, Result<Bytes, UpstreamError>>,
    state: BlossomState,
    sha256: Sha256,
    /// `None` of a server that a client named.
    source: Option<Source>,
    outcome: DownloadOutcome,
}

impl Stream for Sending {
    type Item = Result<Bytes, UpstreamError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = ready!(self.bytes.poll_next_unpin(context));
        match &piece {
            Some(Ok(piece)) => {
                self.state.parts().metrics.sent(u64::try_from(piece.len()).unwrap_or(u64::MAX));
            }
            Some(Err(error)) => {
                self.outcome = DownloadOutcome::BrokenOff;
                if let (true, Some(source)) = (error.is_other_bytes(), &self.source) {
                    self.state.lost(
                        self.sha256,
                        source.is_recorded,
                        &source.upstream,
                        "other bytes at a download",
                    );
                }
            }
            None => {}
        }
        Poll::Ready(piece)
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.state.parts().metrics.downloaded(self.outcome);
    }
}
