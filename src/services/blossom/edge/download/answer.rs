//! Answers with a blob.

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    LOCATION,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use url::Url;

use super::servable::Servable;
use crate::services::blossom::decide::range::ByteRange;

/// The bytes of a hash never change.
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// The same where a blob is for those with a token: a cache that clients share gives it to others.
const FOR_EVER_PRIVATE: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");

/// A blob is no page of this server: its scripts do not run, and it has no origin.
const SANDBOX: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; img-src 'self' data:; media-src 'self'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'",
);

const BYTES: HeaderValue = HeaderValue::from_static("bytes");

/// 307 to the URL of a copy.
pub(super) fn redirect(url: &Url) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    if let Ok(url) = HeaderValue::from_str(url.as_str()) {
        response.headers_mut().insert(LOCATION, url);
    }
    response
}

/// The answer to a client that has shown a token which it needs.
pub(super) fn for_its_client(mut response: Response) -> Response {
    if let Some(value) = response.headers_mut().get_mut(CACHE_CONTROL) {
        *value = FOR_EVER_PRIVATE;
    }
    response
}

/// 304.
pub(super) fn not_modified(servable: &Servable) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    let headers = response.headers_mut();
    headers.insert(ETAG, servable.etag.clone());
    headers.insert(CACHE_CONTROL, FOR_EVER);
    // A browser takes the fields of this answer for those of its copy.
    headers.insert(CONTENT_SECURITY_POLICY, SANDBOX);
    response
}

/// 200 to HEAD, with the length that GET has.
pub(super) fn of_head(servable: &Servable) -> Response {
    whole(servable, Body::empty())
}

/// 200 with a whole blob.
pub(super) fn whole(servable: &Servable, body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    describe(servable, headers);
    if let Some(size) = servable.size {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
        headers.insert(ACCEPT_RANGES, BYTES);
    }
    response
}

/// 206 with a part of a blob of `size` bytes.
pub(super) fn part(servable: &Servable, range: ByteRange, size: u64, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let headers = response.headers_mut();
    describe(servable, headers);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(range.bytes()));
    headers.insert(ACCEPT_RANGES, BYTES);
    if let Ok(value) = HeaderValue::from_str(&format!("bytes {}-{}/{size}", range.first, range.last)) {
        headers.insert(CONTENT_RANGE, value);
    }
    response
}

/// 416, with the size of the blob.
pub(super) fn unsatisfiable(mut response: Response, size: u64) -> Response {
    if let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}")) {
        response.headers_mut().insert(CONTENT_RANGE, value);
    }
    response
}

fn describe(servable: &Servable, headers: &mut HeaderMap) {
    headers.insert(CONTENT_TYPE, servable.content_type.clone());
    headers.insert(ETAG, servable.etag.clone());
    headers.insert(CACHE_CONTROL, FOR_EVER);
    headers.insert(CONTENT_SECURITY_POLICY, SANDBOX);
}
