//! What a request says before its body: who sends it, what, and whether it may.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use futures_util::{Stream, TryStreamExt as _};
use tokio::sync::OwnedSemaphorePermit;

use super::super::BlossomState;
use super::super::access::{Client, Need};
use super::super::limits::Uploader;
use super::super::refusal::Refused;
use super::outcome::NotStored;
use crate::base::Sha256;
use crate::config::Blossom;
use crate::http::{Rejection, RequestContext, client_key};
use crate::services::blossom::decide::authorization::{About, Token, Verb};
use crate::services::blossom::decide::media::normal_type;
use crate::services::blossom::event::{Ownership, Usage};
use crate::services::blossom::read;

pub(super) const X_SHA_256: HeaderName = HeaderName::from_static("x-sha-256");

/// Time between the end of an upload to an upstream and that of its token, seconds: the upstream checks the token again at the end.
const TOKEN_MARGIN_S: i64 = 30;

/// An upload that may begin.
#[derive(Debug)]
pub(super) struct Upload {
    /// Who sends it.
    pub(super) client: Client,
    /// How its key comes to own the blob.
    pub(super) how: Ownership,
    /// Where the blob is copied from.
    pub(super) origin: Option<String>,
    /// The hash that the client names in `X-SHA-256`.
    pub(super) claimed: Option<Sha256>,
    /// The hash that the body must have: the claimed one, or the only one that the token names.
    pub(super) expected: Option<Sha256>,
    /// Size in bytes, if the length is stated.
    pub(super) size: Option<u64>,
    /// Largest size in bytes.
    pub(super) bytes_max: u64,
    /// Media type, as the client states it.
    pub(super) stated_type: Option<String>,
    /// Time limit of each request to an upstream.
    pub(super) within: Duration,
    /// One of the places for uploads.
    _place: OwnedSemaphorePermit,
}

impl BlossomState {
    /// Checks the head of an upload. `size` is that of its body, if it is known.
    pub(super) async fn begin(
        &self,
        head: &Parts,
        size: Option<u64>,
        verb: Verb,
    ) -> Result<Upload, NotStored> {
        let headers = &head.headers;
        let claimed = claimed(headers)?;
        let client = self.admit_upload(head, verb, claimed)?;
        let bytes_max = self.settings().upload_bytes_max.get();
        if let Some(size) = size {
            check_size(size, bytes_max)?;
        }
        let stated_type = stated_type(headers, &CONTENT_TYPE)?;
        let upload = self.upload(client, claimed, size, stated_type, bytes_max)?;
        self.check_quota(&upload.client, upload.expected, size.unwrap_or(0)).await?;
        Ok(upload)
    }

    /// Checks token, key and rate of an upload of the blob that the client names.
    pub(super) fn admit_upload(
        &self,
        head: &Parts,
        verb: Verb,
        claimed: Option<Sha256>,
    ) -> Result<Client, Refused> {
        let about = claimed.map_or(About::BlobToCome, About::Blob);
        let client = self.admit(&head.headers, Need::Change, verb, about)?;
        if !self.limits().admits_upload(&uploader(head, &client)) {
            return Err(Refused::too_many("too many uploads: wait a little"));
        }
        Ok(client)
    }

    /// An upload, with one of the places.
    pub(super) fn upload(
        &self,
        client: Client,
        claimed: Option<Sha256>,
        size: Option<u64>,
        stated_type: Option<String>,
        bytes_max: u64,
    ) -> Result<Upload, Refused> {
        let place = self.limits().begin_upload().ok_or_else(|| Refused::busy("too_many"))?;
        let expected = claimed.or_else(|| client.token().and_then(Token::only_blob));
        let expiration = client.token().and_then(Token::expiration);
        let within = within(self.settings(), expiration, self.now_s());
        Ok(Upload {
            client,
            how: Ownership::Uploaded,
            origin: None,
            claimed,
            expected,
            size,
            bytes_max,
            stated_type,
            within,
            _place: place,
        })
    }

    /// Refuses an upload that is beyond the quota of its key before its body is read. The writer decides again, with the commit.
    pub(super) async fn check_quota(
        &self,
        client: &Client,
        expected: Option<Sha256>,
        size: u64,
    ) -> Result<(), NotStored> {
        let Blossom { key_bytes_max, key_blobs_max, .. } = *self.settings();
        let Some(key) = client.pubkey().filter(|_| key_bytes_max > 0 || key_blobs_max > 0) else {
            return Ok(());
        };
        let pools = &self.parts().pools;
        if let Some(expected) = expected
            && read::is_owner(pools, &expected, &key).await?
        {
            return Ok(());
        }
        let Usage { bytes, blobs } = read::usage(pools, &key).await?;
        if key_bytes_max > 0 && bytes.saturating_add(size) > key_bytes_max {
            return Err(over_bytes(key_bytes_max, size).into());
        }
        if key_blobs_max > 0 && blobs >= key_blobs_max {
            return Err(over_blobs(key_blobs_max).into());
        }
        Ok(())
    }
}

/// Whose rate an upload counts against.
fn uploader(head: &Parts, client: &Client) -> Uploader {
    let address = || {
        let context = head.extensions.get::<RequestContext>();
        context.map(|context| client_key(context.client().address))
    };
    client.pubkey().map_or_else(|| Uploader::Address(address()), Uploader::Key)
}

/// The hash in `X-SHA-256` (BL-02.5).
pub(super) fn claimed(headers: &HeaderMap) -> Result<Option<Sha256>, Refused> {
    let Some(value) = headers.get(&X_SHA_256) else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| !text.bytes().any(|byte| byte.is_ascii_uppercase()));
    let hash = text.and_then(|text| text.trim().parse().ok());
    hash.map(Some).ok_or_else(|| Refused::bad_hash("x-sha-256"))
}

/// The media type in a header field.
pub(super) fn stated_type(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Refused> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let media_type = value.to_str().ok().and_then(normal_type);
    let wrong = || Refused::field("bad_type", "content-type", "expected a media type such as image/png");
    media_type.map(Some).ok_or_else(wrong)
}

/// 413 for more bytes than are accepted.
pub(super) fn check_size(size: u64, bytes_max: u64) -> Result<(), Refused> {
    if size <= bytes_max {
        return Ok(());
    }
    let message = format!("{size} bytes, at most {bytes_max}");
    let rejection = Rejection::new(StatusCode::PAYLOAD_TOO_LARGE, message).field("content-length");
    Err(Refused::rejected("too_large", rejection.over_limit(bytes_max, size)))
}

/// 409: the content is not what the client has announced; nothing was stored.
pub(super) fn hash_mismatch(found: Sha256) -> Refused {
    let message = format!("the SHA-256 of the content is {found}; nothing was stored");
    Refused::new(StatusCode::CONFLICT, "hash_mismatch", message)
}

/// 413: the key would own more bytes than it may.
pub(super) fn over_bytes(most: impl std::fmt::Display, size: u64) -> Refused {
    let message = format!("this key may store {most} bytes in total; this blob has {size}");
    Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "over_bytes", message)
}

/// 403: the key may own no more blobs.
pub(super) fn over_blobs(most: impl std::fmt::Display) -> Refused {
    let message = format!("this key may store {most} blobs: delete others first");
    Refused::new(StatusCode::FORBIDDEN, "over_blobs", message)
}

/// Time limit of an upload whose token expires at this time, Unix seconds.
fn within(settings: &Blossom, expiration: Option<i64>, now: i64) -> Duration {
    let (shortest, longest) = (settings.upload_timeout_min_s.get(), settings.upload_timeout_max_s.get());
    let left = expiration.map(|expiration| expiration.saturating_sub(now).saturating_sub(TOKEN_MARGIN_S));
    let left = left.map_or(longest, |left| u32::try_from(left.max(0)).unwrap_or(u32::MAX));
    // Shorter tokens are given the shortest time: most upstreams look at the token at the beginning alone.
    Duration::from_secs(left.clamp(shortest.min(longest), longest).into())
}

/// The body of a request. It ends with an error if the client breaks off, or sends less than it has stated.
pub(super) fn whole_body(
    body: Body,
    state: &BlossomState,
) -> impl Stream<Item = Result<Bytes, NotStored>> + Send + Unpin + use<> {
    let metrics = state.parts().metrics.clone();
    let pieces = body
        .into_data_stream()
        .inspect_ok(move |piece| metrics.received(u64::try_from(piece.len()).unwrap_or(u64::MAX)));
    pieces.map_err(|_| {
        let message = "the body ended before its stated length or was broken off; nothing was stored";
        NotStored::aborted(Refused::field("bad_length", "body", message))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_ends_before_its_token_within_the_bounds_of_the_settings() {
        let settings = Blossom::default();
        let seconds = |expiration| within(&settings, expiration, 1_000).as_secs();
        assert_eq!(seconds(Some(1_000 + 630)), 600);
        assert_eq!(seconds(Some(1_000 + 60)), 300);
        assert_eq!(seconds(Some(500)), 300);
        assert_eq!(seconds(Some(i64::MAX)), 1_800);
        assert_eq!(seconds(Some(i64::MIN)), 300);
        assert_eq!(seconds(None), 1_800);
    }

    #[test]
    fn bl_02_5_a_hash_that_is_not_64_lower_case_digits_is_refused() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(X_SHA_256, text.parse().unwrap());
            claimed(&headers)
        };
        let hash = Sha256::of(b"");
        assert_eq!(of(&hash.to_string()).unwrap(), Some(hash));
        for wrong in ["", "e3", &hash.to_string().to_uppercase(), &format!("{hash}0"), &"g".repeat(64)] {
            assert_eq!(of(wrong).unwrap_err().status(), StatusCode::BAD_REQUEST, "{wrong}");
        }
        assert_eq!(claimed(&HeaderMap::new()).unwrap(), None);
    }
}
