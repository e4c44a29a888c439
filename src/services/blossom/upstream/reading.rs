//! Reading a blob at a URL: its head, or its bytes, or a part of them.

use std::ops::Range;
use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio_util::bytes::Bytes;
use url::Url;

use super::{BlobReader, HeadFacts, UpstreamError};
use crate::net::{Caller, Open, Reply, Trust};

/// Redirects followed by a read.
pub(super) const REDIRECTS_MAX: usize = 3;

/// Its status if that is a success.
pub(super) fn success(reply: &Reply) -> Result<u16, UpstreamError> {
    if (200..300).contains(&reply.status) {
        return Ok(reply.status);
    }
    Err(UpstreamError::answered(reply.status, reply.headers.get("x-reason").map(String::as_str)))
}

/// Whether the status says that there is no such blob.
pub(super) const fn is_absent(status: u16) -> bool {
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
