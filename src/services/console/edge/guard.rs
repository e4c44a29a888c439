//! What stands before every route: whose name the request came under, and the headers that keep the page to itself.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::header::{
    CONTENT_SECURITY_POLICY, HOST, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::super::ConsoleState;
use crate::http::{Failure, Rejection};

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

/// A stranger's page reaches us under the stranger's *name*, made to resolve to our address. So an address is ours, and a name
/// only when the operator or the resolver's standard says so.
fn is_ours(host: &str, hosts: &[String]) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    name.parse::<IpAddr>().is_ok()
        || name == "localhost"
        || name.ends_with(".localhost")
        || hosts.iter().any(|known| known.eq_ignore_ascii_case(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_known_names_are_ours_and_nothing_else() {
        let hosts = ["Quipu.example".to_owned()];
        for host in
            ["127.0.0.1:4700", "[::1]:4700", "localhost", "LocalHost:1", "a.localhost", "quipu.example:443"]
        {
            assert!(is_ours(host, &hosts), "{host}");
        }
        for host in
            ["rebind.example", "127.0.0.1.rebind.example:4700", "localhost.rebind.example", "", "?", "a b"]
        {
            assert!(!is_ours(host, &hosts), "{host}");
        }
    }
}
