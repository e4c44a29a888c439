//! A Blossom server.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio_util::bytes::Bytes;
use url::Url;

use super::health::Health;
use super::reading::{self, REDIRECTS_MAX, is_absent, success};
use super::{
    Accepted, Announced, BlobReader, BodyBroken, Deleted, HeadFacts, Preflight, PutBlob, RemoteDescriptor,
    UpstreamError, descriptor,
};
use crate::base::{Secret, Sha256};
use crate::net::{Call, Caller, Content, FetchError, Open, Reply, Trust, Verb};

/// Longest answer to an upload, bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Longest list, bytes.
const LIST_BYTES_MAX: usize = 4 * 1024 * 1024;

const AUTHORIZATION: &str = "authorization";
const X_SHA_256: &str = "x-sha-256";

/// A server.
#[derive(Debug)]
pub(super) struct Server {
    caller: Arc<Caller>,
    /// As clients know it.
    public: Url,
    /// Where requests are sent.
    dialled: Url,
    /// Longest pause in an answer, and time until its head.
    within: Duration,
}

impl Server {
    pub(super) fn new(caller: Arc<Caller>, public: Url, dialled: Url, within: Duration) -> Self {
        Self { caller, public, dialled, within }
    }

    pub(super) fn public_url(&self, sha256: &Sha256, extension: &str) -> Option<Url> {
        let dot = if extension.is_empty() { "" } else { "." };
        self.public.join(&format!("{sha256}{dot}{extension}")).ok()
    }

    /// An address there. The names of endpoints and hashes are always parts of a URL.
    fn url(&self, path: &str) -> Result<Url, UpstreamError> {
        self.dialled.join(path).map_err(|error| UpstreamError::unsupported(&error.to_string()))
    }

    pub(super) async fn put(&self, blob: PutBlob, health: &Arc<Health>) -> Result<Accepted, UpstreamError> {
        let (claimed, size, hash) = (blob.claimed, blob.size, blob.sha256.clone());
        let sent = self.send("upload", blob, health).await?;
        // Before the whole blob was sent the upstream can only mean one that it had already.
        let expected = if sent.is_whole { hash.get() } else { claimed.filter(|_| !sent.body.is_empty()) };
        let Some(expected) = expected else {
            return Err(UpstreamError::wrong(
                Some(sent.status),
                "it answered before the whole blob was sent",
            ));
        };
        descriptor::accepted(sent.status, &sent.body, expected, size)
    }

    pub(super) async fn media(
        &self,
        blob: PutBlob,
        health: &Arc<Health>,
    ) -> Result<RemoteDescriptor, UpstreamError> {
        let sent = self.send("media", blob, health).await?;
        if !sent.is_whole {
            return Err(UpstreamError::wrong(
                Some(sent.status),
                "it answered before the whole blob was sent",
            ));
        }
        descriptor::read(sent.status, &sent.body)
    }

    /// Sends a blob, and reads the answer.
    async fn send(&self, path: &str, blob: PutBlob, health: &Arc<Health>) -> Result<Sent, UpstreamError> {
        let PutBlob { claimed, sha256, size, media_type, token, mut body, within, .. } = blob;
        let url = self.url(path)?;
        if size == Some(0) {
            // A request without a body is whole at once: first the sender has to say that there is none.
            while let Some(piece) = body.next().await {
                piece.map_err(|broken| UpstreamError::broken_off(&broken.0))?;
            }
            body = stream::empty().boxed();
        }
        let mut headers = Vec::new();
        headers.extend(claimed.or(sha256.get()).map(|hash| (X_SHA_256, Secret::new(hash.to_string()))));
        headers.extend(token.map(|token| (AUTHORIZATION, token)));
        let progress = Arc::new(Progress::default());
        let body = watched(body, Arc::clone(&progress), Arc::clone(health));
        let content = Content::Stream { body, bytes: size, media_type };
        let call = Call { verb: Verb::Put, url: &url, headers: &headers, content, head_within: within };
        let reply = match self.caller.call(call).await {
            Ok(reply) => reply,
            // HTTP/2 does not say why it was broken off.
            Err(_) if progress.is_broken() => return Err(UpstreamError::broken_off("the body was given up")),
            Err(error) => return Err(error.into()),
        };
        let status = success(&reply)?;
        let is_whole = progress.is_whole(size);
        let body = answer(reply, ANSWER_BYTES_MAX, self.within).await?;
        Ok(Sent { status, body, is_whole })
    }

    pub(super) async fn mirror(
        &self,
        sha256: &Sha256,
        source: &str,
        token: Option<&Secret>,
        within: Duration,
    ) -> Result<Accepted, UpstreamError> {
        let url = self.url("mirror")?;
        let content = Content::Json(serde_json::json!({ "url": source }).to_string());
        let mut headers = vec![(X_SHA_256, Secret::new(sha256.to_string()))];
        headers.extend(token.map(|token| (AUTHORIZATION, token.clone())));
        let call = Call { verb: Verb::Put, url: &url, headers: &headers, content, head_within: within };
        let reply = self.caller.call(call).await?;
        let status = success(&reply)?;
        let body = answer(reply, ANSWER_BYTES_MAX, self.within).await?;
        descriptor::accepted(status, &body, *sha256, None)
    }

    pub(super) async fn head(&self, sha256: &Sha256) -> Result<Option<HeadFacts>, UpstreamError> {
        reading::head(&self.caller, &self.url(&sha256.to_string())?, Trust::Named, self.within).await
    }

    pub(super) async fn get(
        &self,
        sha256: &Sha256,
        range: Option<Range<u64>>,
    ) -> Result<Option<BlobReader>, UpstreamError> {
        reading::get(&self.caller, &self.url(&sha256.to_string())?, Trust::Named, range, self.within).await
    }

    pub(super) async fn delete(
        &self,
        sha256: &Sha256,
        token: Option<&Secret>,
    ) -> Result<Deleted, UpstreamError> {
        let url = self.url(&sha256.to_string())?;
        let headers: Vec<_> = token.map(|token| (AUTHORIZATION, token.clone())).into_iter().collect();
        let (content, head_within) = (Content::None, self.within);
        let call = Call { verb: Verb::Delete, url: &url, headers: &headers, content, head_within };
        let reply = self.caller.call(call).await?;
        if is_absent(reply.status) {
            return Ok(Deleted::Absent);
        }
        success(&reply).map(|_| Deleted::Done)
    }

    pub(super) async fn list(
        &self,
        pubkey: &[u8; 32],
        token: Option<&Secret>,
    ) -> Result<Vec<RemoteDescriptor>, UpstreamError> {
        let url = self.url(&format!("list/{}", hex::encode(pubkey)))?;
        let open = Open {
            is_head: false,
            url: &url,
            trust: Trust::Named,
            headers: &[],
            secret: token,
            redirects_max: REDIRECTS_MAX,
            head_within: self.within,
        };
        let reply = self.caller.open(open).await?;
        let status = success(&reply)?;
        let body = answer(reply, LIST_BYTES_MAX, self.within).await?;
        descriptor::list(status, &body)
    }

    pub(super) async fn preflight(&self, blob: Announced<'_>) -> Result<Preflight, UpstreamError> {
        let url = self.url(if blob.is_media { "media" } else { "upload" })?;
        let mut headers = vec![(X_SHA_256, Secret::new(blob.sha256.to_string()))];
        headers.extend(blob.size.map(|size| ("x-content-length", Secret::new(size.to_string()))));
        headers.extend(blob.media_type.map(|name| ("x-content-type", Secret::new(name))));
        headers.extend(blob.token.map(|token| (AUTHORIZATION, token.clone())));
        let (content, head_within) = (Content::None, self.within);
        let call = Call { verb: Verb::Head, url: &url, headers: &headers, content, head_within };
        let reply = self.caller.call(call).await?;
        if matches!(reply.status, 404 | 405 | 501) {
            return Ok(Preflight::Unknown);
        }
        success(&reply).map(|_| Preflight::Welcome)
    }
}

/// The answer to a blob that was sent.
struct Sent {
    status: u16,
    body: Vec<u8>,
    /// Whether all of the blob was sent before.
    is_whole: bool,
}

/// How far a body was sent.
#[derive(Debug, Default)]
struct Progress {
    bytes: AtomicU64,
    end: AtomicU64,
}

impl Progress {
    const ENDED: u64 = 1;
    const BROKEN: u64 = 2;

    fn is_broken(&self) -> bool {
        self.end.load(Ordering::Acquire) == Self::BROKEN
    }

    /// With a known length the end of the stream is not waited for.
    fn is_whole(&self, size: Option<u64>) -> bool {
        let ended = self.end.load(Ordering::Acquire) == Self::ENDED;
        ended || size.is_some_and(|size| self.bytes.load(Ordering::Acquire) >= size)
    }
}

/// The same body; notes how far it got.
fn watched(
    body: BoxStream<'static, Result<Bytes, BodyBroken>>,
    progress: Arc<Progress>,
    health: Arc<Health>,
) -> BoxStream<'static, Result<Bytes, BodyBroken>> {
    stream::unfold((body, progress, health), |(mut body, progress, health)| async move {
        let piece = body.next().await;
        match &piece {
            Some(Ok(bytes)) => {
                let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                progress.bytes.fetch_add(length, Ordering::AcqRel);
                health.metrics().sent(length);
            }
            Some(Err(_)) => progress.end.store(Progress::BROKEN, Ordering::Release),
            None => progress.end.store(Progress::ENDED, Ordering::Release),
        }
        piece.map(|piece| (piece, (body, progress, health)))
    })
    .boxed()
}

/// Reads a short answer.
async fn answer(reply: Reply, bytes_max: usize, within: Duration) -> Result<Vec<u8>, UpstreamError> {
    let status = reply.status;
    reply.body(bytes_max, within).await.map_err(|error| match error {
        FetchError::TooLarge { .. } => UpstreamError::wrong(Some(status), "its answer is too long"),
        other => other.into(),
    })
}
