//! `PUT /mirror` (BUD-04): a blob is copied from a URL that the client names.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::{Stream, StreamExt as _};
use serde::Deserialize;
use url::Url;

use super::super::BlossomState;
use super::super::refusal::Refused;
use super::begin::{Upload, check_size, claimed};
use super::outcome::{Counted, NotStored, Stored};
use crate::base::Sha256;
use crate::http::Failure;
use crate::services::blossom::decide::authorization::{Verb, host_of};
use crate::services::blossom::decide::media::normal_type;
use crate::services::blossom::decide::references::hash_in;
use crate::services::blossom::event::Ownership;
use crate::services::blossom::metrics::Way;
use crate::services::blossom::upstream::{BlobReader, UpstreamError};

/// Longest body of a request, bytes.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// Longest URL that is recorded as the origin of a copy, bytes.
const URL_BYTES_MAX: usize = 2_048;

/// The body of a request.
#[derive(Deserialize)]
struct Asked {
    url: String,
}

/// `PUT /mirror`.
pub(in super::super) async fn mirror(
    State(state): State<BlossomState>,
    request: Request,
) -> Result<Response, Failure> {
    let (head, body) = request.into_parts();
    let base = state.base(&head.headers);
    let counted = Counted::begin(&state, Way::Mirror);
    let storing = async {
        let claimed = claimed(&head.headers)?;
        let client = state.admit_upload(&head, Verb::Upload, claimed)?;
        let url = asked_url(body).await?;
        let bytes_max = state.settings().fetch_bytes_max.get();
        let mut upload = state.upload(client, claimed, None, None, bytes_max)?;
        upload.how = Ownership::Mirrored;
        upload.origin = Some(url.to_string());
        upload.expected = upload.expected.or_else(|| named_in(&url, &upload));
        state.copy(upload, &url, &base).await
    };
    let ended = storing.await;
    counted.end(&ended);
    state.answer(&base, ended, None)
}

/// The URL in the body of a request (BL-04.1, BL-04.7).
async fn asked_url(body: Body) -> Result<Url, Refused> {
    let wrong = |why| Refused::field("bad_url", "url", why);
    let expected = "expected JSON such as {\"url\": \"https://…\"}";
    let body = to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| wrong(expected))?;
    let Asked { url } = serde_json::from_slice(&body).map_err(|_| wrong(expected))?;
    let url = Url::parse(&url).map_err(|_| wrong("not a URL"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wrong("only http and https URLs are copied"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.as_str().len() > URL_BYTES_MAX {
        return Err(wrong("expected a URL without user and password, of at most 2048 bytes"));
    }
    Ok(url)
}

/// The hash in a URL, if the token of the client names it.
fn named_in(url: &Url, upload: &Upload) -> Option<Sha256> {
    let hash = hash_in(url)?;
    upload.client.token().is_none_or(|token| token.names(&hash)).then_some(hash)
}

impl BlossomState {
    /// Copies a blob from a URL. One that has enough copies is not fetched (BL-04.8).
    async fn copy(&self, mut upload: Upload, url: &Url, base: &str) -> Result<Stored, NotStored> {
        if let Some(expected) = upload.expected
            && let Some(known) = self.known(&expected).await?
        {
            let plan = self.plan(Some(&known));
            if plan.needed == 0 && (plan.targets.is_empty() || self.is_own(url, base)) {
                self.check_quota(&upload.client, upload.expected, known.facts.size).await?;
                return self.commit(&upload, &plan, known.facts, Some(self.owner(&upload)), Vec::new()).await;
            }
        }
        let fetching = self.parts().upstreams.fetch(url, upload.bytes_max);
        let reader = fetching.await.map_err(|error| of_origin(&error))?;
        let Some(BlobReader { size, media_type, bytes, .. }) = reader else {
            return Err(Refused::gateway("absent", "the server of this URL has no such blob").into());
        };
        if let Some(size) = size {
            check_size(size, upload.bytes_max)?;
        }
        self.check_quota(&upload.client, upload.expected, size.unwrap_or(0)).await?;
        upload.size = size;
        // What the server says is no fault of the client.
        upload.stated_type = media_type.as_deref().and_then(normal_type);
        self.receive(upload, self.fetched(bytes)).await
    }

    /// Whether a URL is one of this listener.
    fn is_own(&self, url: &Url, base: &str) -> bool {
        let has_base = Url::parse(base).is_ok_and(|base| base.origin() == url.origin());
        let is_here = url.port_or_known_default() == Some(self.0.address.port())
            && url.host_str().is_some_and(|host| self.0.hosts.contains(&host_of(host)));
        has_base || is_here
    }

    fn fetched(
        &self,
        bytes: impl Stream<Item = Result<Bytes, UpstreamError>> + Send,
    ) -> impl Stream<Item = Result<Bytes, NotStored>> + Send {
        let metrics = self.parts().metrics.clone();
        bytes.map(move |piece| {
            let piece = piece.map_err(|error| of_origin(&error))?;
            metrics.received(u64::try_from(piece.len()).unwrap_or(u64::MAX));
            Ok(piece)
        })
    }
}

/// The answer for a server that does not give a blob (BL-04.6).
fn of_origin(error: &UpstreamError) -> NotStored {
    if error.status == Some(413) {
        let message = "the blob at this URL is larger than what is copied here";
        return Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message).into();
    }
    let message = format!("the blob cannot be fetched: {}", error.reason);
    Refused::gateway("no_upstream", message).into()
}
