//! Middleware in front of every route of every listener: request id and span, check of the `Host` field, time
//! limits, panics, and the format of errors.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;
use tracing::Instrument as _;
use uuid::fmt::Simple;

use super::body::TimeLimit;
use super::client::client;
use super::context::{Dialect, RequestContext};
use super::failure::answer;
use super::metrics::HttpMetrics;
use super::reason::{X_REASON, reason};
use super::routes::SlowPath;
use super::{Failure, Rejection, host};
use crate::config::Http;
use crate::lifecycle::guarded;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Added to every response that has not its own: a browser must run and frame only our own content.
const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];

/// Longest text of a library's error response that is used as an error message, in bytes.
const TEXT_BYTES_MAX: usize = 4096;

/// Marks a response whose 4xx or 5xx status is its result and not an error, as on a health page:
/// `Extension(Verdict)`.
#[derive(Debug, Clone, Copy)]
pub struct ExpectedStatus;

/// Address of the peer of a request's connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// A 5xx response that a library produced.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unexplained(String);

/// The guard of one listener.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) listener: &'static str,
    pub(super) hosts: Vec<String>,
    pub(super) settings: Arc<Http>,
    pub(super) metrics: HttpMetrics,
    pub(super) dialect: Dialect,
    pub(super) slow: Vec<SlowPath>,
}

/// Handles one request.
pub(super) async fn guard(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |Peer(address)| *address);
    let context = RequestContext {
        id: request_id(),
        client: client(peer, request.headers(), &guard.settings.trusted_proxies),
        listener: guard.listener,
        metrics: guard.metrics.clone(),
        dialect: guard.dialect,
    };
    // Only the path: the query may contain a token.
    let span = tracing::info_span!(
        "request", listener = guard.listener, request_id = &*context.id, http.method = %request.method(),
        http.path = request.uri().path()
    );
    request.extensions_mut().insert(context.clone());
    async move {
        let response = guard.run(request, next, &context).await;
        let mut response = unify_error(response, &context).await;
        let headers = response.headers_mut();
        for (name, value) in HEADERS {
            headers.entry(name).or_insert(value);
        }
        if let Ok(id) = HeaderValue::from_str(&context.id) {
            headers.insert(REQUEST_ID, id);
        }
        response
    }
    .instrument(span)
    .await
}

/// A new request id. Its randomness is that of the thread: the operating system's costs a system call for each request.
fn request_id() -> Arc<str> {
    let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
    Arc::from(&*id.simple().encode_lower(&mut [0; Simple::LENGTH]))
}

impl Guard {
    async fn run(&self, request: Request, next: Next, context: &RequestContext) -> Response {
        if let Err(rejection) = host::check(&request, &self.hosts) {
            return Failure::from(rejection).into_response();
        }
        let seconds = |seconds: std::num::NonZeroU32| Duration::from_secs(seconds.get().into());
        let limit = TimeLimit::default();
        let body_timeout = seconds(self.settings.body_timeout_s);
        let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        let slow = self.slow.iter().find(|slow| Some(slow.path) == path);
        let within = slow.map_or_else(|| seconds(self.settings.request_timeout_s), |slow| slow.within);
        let request = request.map(|body| match slow {
            None => limit.apply(body, body_timeout),
            Some(_) => limit.apply_between(body, body_timeout),
        });
        let answer = guarded("http_request", context.id(), next.run(request));
        match timeout(within, answer).await {
            Ok(Ok(response)) if limit.has_passed() && response.status().is_client_error() => {
                let allowed = self.settings.body_timeout_s.get();
                let message = match slow {
                    None => format!("the body was not complete after {allowed} s"),
                    Some(_) => format!("nothing of the body arrived for {allowed} s"),
                };
                let rejection = Rejection::new(StatusCode::REQUEST_TIMEOUT, message);
                Failure::from(rejection.code("body_timeout").field("body")).into_response()
            }
            Ok(Ok(response)) => response,
            Ok(Err(panicked)) => Failure::from(panicked).into_response(),
            Err(_) => Failure::Busy { retry_after: Duration::from_secs(1) }.into_response(),
        }
    }
}

/// Reports a failure under the request id. Text errors that axum produces get the format of all other errors.
async fn unify_error(mut response: Response, context: &RequestContext) -> Response {
    if let Some(failure) = response.extensions_mut().remove::<Arc<Failure>>() {
        return explain(&failure, context, response.into_parts().0.headers);
    }
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let is_text =
        response.headers().get(CONTENT_TYPE).is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !is_error || !is_text || response.extensions().get::<ExpectedStatus>().is_some() {
        return response;
    }
    let (head, body) = response.into_parts();
    let text = to_bytes(body, TEXT_BYTES_MAX).await.unwrap_or_default();
    let text = match &*String::from_utf8_lossy(&text) {
        "" => status.canonical_reason().unwrap_or("refused").to_lowercase(),
        text => text.to_owned(),
    };
    let failure = if status.is_client_error() {
        Failure::from(Rejection::new(status, text))
    } else {
        Failure::from(Unexplained(text))
    };
    explain(&failure, context, head.headers)
}

/// Reports a failure, and returns the response for it. It keeps `fields`, such as `Allow`, which a 405 response needs, but for
/// those about the body, which is replaced.
fn explain(failure: &Failure, context: &RequestContext, mut fields: HeaderMap) -> Response {
    let body = context.report(failure);
    let mut response = answer(failure, &body);
    for name in [CONTENT_LENGTH, CONTENT_TYPE] {
        fields.remove(name);
    }
    response.headers_mut().extend(fields);
    if context.dialect.has_reason {
        response.headers_mut().insert(X_REASON, reason(&body.message));
    }
    response
}
