//! Cross-origin requests (CORS): listeners whose endpoints the pages of every site may call.

use std::time::Duration;

use axum::http::{HeaderName, Method};
use tower_http::cors::{Any, CorsLayer};

/// Time for which a browser may remember the answer to a preflight.
const PREFLIGHT_AGE: Duration = Duration::from_hours(24);

/// What pages of every site may send to a listener and read from its responses. A page has no credentials of the
/// listener but those that it sends itself: cookies are never allowed.
///
/// It covers every response of the listener: errors, redirects, refusals of the guard and unknown routes. `OPTIONS` of every
/// path is answered with 200.
#[derive(Debug, Clone)]
pub struct Cors(pub(super) CorsLayer);

impl Cors {
    /// Pages may use `methods`, send the fields `sent` and read the fields `read`. All names are in lower case. The field `*`
    /// stands for every field except `authorization`, which has to be named (Fetch, "CORS-preflight fetch").
    #[must_use]
    pub fn for_every_site(methods: &[Method], sent: &[&'static str], read: &[&'static str]) -> Self {
        let names = |names: &[&'static str]| -> Vec<HeaderName> {
            names.iter().map(|name| HeaderName::from_static(name)).collect()
        };
        // The answer is the same for all requests, so caches need no `Vary`.
        let layer = CorsLayer::new()
            .allow_origin(Any)
            .allow_methods(methods.to_vec())
            .allow_headers(names(sent))
            .expose_headers(names(read))
            .max_age(PREFLIGHT_AGE)
            .vary(Vec::<HeaderName>::new());
        Self(layer)
    }
}
