//! A Blossom server.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio_util::bytes::Bytes;
use url::Url;

use super::health::Health;
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

/// Redirects followed by a read.
const REDIRECTS_MAX: usize = 3;

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
        head(&self.caller, &self.url(&sha256.to_string())?, Trust::Named, self.within).await
    }

    pub(super) async fn get(
        &self,
        sha256: &Sha256,
        range: Option<Range<u64>>,
    ) -> Result<Option<BlobReader>, UpstreamError> {
        get(&self.caller, &self.url(&sha256.to_string())?, Trust::Named, range, self.within).await
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

/// Its status if that is a success.
fn success(reply: &Reply) -> Result<u16, UpstreamError> {
    if (200..300).contains(&reply.status) {
        return Ok(reply.status);
    }
    Err(UpstreamError::answered(reply.status, reply.headers.get("x-reason").map(String::as_str)))
}

/// Reads a short answer.
async fn answer(reply: Reply, bytes_max: usize, within: Duration) -> Result<Vec<u8>, UpstreamError> {
    let status = reply.status;
    reply.body(bytes_max, within).await.map_err(|error| match error {
        FetchError::TooLarge { .. } => UpstreamError::wrong(Some(status), "its answer is too long"),
        other => other.into(),
    })
}

const fn is_absent(status: u16) -> bool {
    matches!(status, 404 | 410)
}

/// Whether a success is none: some servers answer 200 for a blob that they do not have, with a reason. What the reason
/// says is not looked at (BUD-01).
fn is_disguised(reply: &Reply) -> bool {
    reply.headers.contains_key("x-reason")
}

fn media_type(reply: &Reply) -> Option<String> {
    reply
        .headers
        .get("content-type")
        .map(|text| text.trim().to_ascii_lowercase())
        .filter(|text| !text.is_empty())
}

/// The stated length. That of an encoded body is another one.
fn length(reply: &Reply) -> Option<u64> {
    if reply.headers.get("content-encoding").is_some_and(|coding| coding != "identity") {
        return None;
    }
    reply.headers.get("content-length")?.trim().parse().ok()
}

/// Asks for the head of a blob at `url`; `None` if it is not there.
pub(super) async fn head(
    caller: &Caller,
    url: &Url,
    trust: Trust,
    within: Duration,
) -> Result<Option<HeadFacts>, UpstreamError> {
    let reply = opened(caller, url, trust, true, &[], within).await?;
    if is_absent(reply.status) {
        return Ok(None);
    }
    success(&reply)?;
    if is_disguised(&reply) {
        return Ok(None);
    }
    let allows_pages = reply.headers.contains_key("access-control-allow-origin");
    Ok(Some(HeadFacts { size: length(&reply), media_type: media_type(&reply), allows_pages }))
}

/// Opens the blob at `url`, or a part of it; `None` if it is not there.
pub(super) async fn get(
    caller: &Caller,
    url: &Url,
    trust: Trust,
    range: Option<Range<u64>>,
    within: Duration,
) -> Result<Option<BlobReader>, UpstreamError> {
    let mut headers = vec![("accept-encoding", "identity".to_owned())];
    if let Some(range) = &range {
        if range.is_empty() {
            return Err(UpstreamError::unsupported("an empty range"));
        }
        headers.push(("range", format!("bytes={}-{}", range.start, range.end - 1)));
    }
    let reply = opened(caller, url, trust, false, &headers, within).await?;
    if is_absent(reply.status) {
        return Ok(None);
    }
    let status = success(&reply)?;
    if is_disguised(&reply) {
        return Ok(None);
    }
    let media_type = media_type(&reply);
    let stated = length(&reply);
    let (size, skip, wanted) = match (status, range) {
        (206, Some(range)) => {
            let part = reply.headers.get("content-range").and_then(|text| Part::parse(text));
            let part = part.filter(|part| part.bytes == range);
            let part = part.ok_or_else(|| UpstreamError::wrong(Some(status), "it gave another range"))?;
            (part.size, 0, Some(range.end - range.start))
        }
        (206, None) => return Err(UpstreamError::wrong(Some(status), "it gave a part of the blob")),
        // It does not know ranges.
        (_, Some(range)) => (stated, range.start, Some(range.end - range.start)),
        (_, None) => (stated, 0, stated),
    };
    let pieces = reply.pieces(within).map_err(UpstreamError::from).boxed();
    let bytes = Cut { pieces, skip, left: wanted }.stream();
    Ok(Some(BlobReader { size, media_type, bytes, source: None }))
}

async fn opened(
    caller: &Caller,
    url: &Url,
    trust: Trust,
    is_head: bool,
    headers: &[(&'static str, String)],
    head_within: Duration,
) -> Result<Reply, UpstreamError> {
    let redirects_max = REDIRECTS_MAX;
    let open = Open { is_head, url, trust, headers, secret: None, redirects_max, head_within };
    Ok(caller.open(open).await?)
}

/// A header `Content-Range`.
struct Part {
    bytes: Range<u64>,
    size: Option<u64>,
}

impl Part {
    fn parse(text: &str) -> Option<Self> {
        let (bytes, size) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = bytes.split_once('-')?;
        let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        Some(Self { bytes: first..last.checked_add(1)?, size: size.trim().parse().ok() })
    }
}

/// Leaves out the first bytes, and ends with an error if there are fewer bytes than wanted.
struct Cut {
    pieces: BoxStream<'static, Result<Bytes, UpstreamError>>,
    skip: u64,
    left: Option<u64>,
}

impl Cut {
    fn stream(self) -> BoxStream<'static, Result<Bytes, UpstreamError>> {
        stream::try_unfold(self, |mut cut| async move { Ok(cut.next().await?.map(|piece| (piece, cut))) })
            .boxed()
    }

    async fn next(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        loop {
            if self.left == Some(0) {
                return Ok(None);
            }
            let Some(mut piece) = self.pieces.next().await.transpose()? else {
                return match self.left {
                    Some(_) => Err(UpstreamError::wrong(None, "it gave fewer bytes than it said")),
                    None => Ok(None),
                };
            };
            let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
            if length <= self.skip {
                self.skip -= length;
                continue;
            }
            // Shorter than the piece, which is in memory.
            let skipped = usize::try_from(std::mem::take(&mut self.skip)).unwrap_or(usize::MAX);
            drop(piece.split_to(skipped));
            if let Some(left) = &mut self.left {
                piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= u64::try_from(piece.len()).unwrap_or(*left);
            }
            return Ok(Some(piece));
        }
    }
}
