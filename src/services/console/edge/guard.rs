//! What stands before every route: whose name the request came under, and the headers that keep the page to itself.

use axum::extract::{Request, State};
use axum::http::header::{
    CONTENT_SECURITY_POLICY, HOST, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::super::ConsoleState;
use crate::http::{Failure, Rejection, is_ours};

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

pub(super) async fn guard(State(state): State<ConsoleState>, request: Request, next: Next) -> Response {
    let host = request.headers().get(HOST).map(|host| host.to_str().unwrap_or("?"));
    let mut response = if host.is_none_or(|host| is_ours(host, &state.0.parts.hosts)) {
        next.run(request).await
    } else {
        let error = "this name is not the console's: use its address, or list the name in its hosts";
        Failure::from(Rejection::new(StatusCode::MISDIRECTED_REQUEST, error).field("host")).into_response()
    };
    response.headers_mut().extend(HEADERS);
    response
}
