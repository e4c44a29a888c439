//! What pages of other sites may do here: everything that other clients may (BUD-01).

use axum::http::Method;

use crate::http::Cors;

/// Fields that clients send. `*` does not stand for `authorization`, and old browsers do not know it.
const SENT: &[&str] = &[
    "authorization",
    "*",
    "content-type",
    "range",
    "if-none-match",
    "if-range",
    "x-sha-256",
    "x-content-type",
    "x-content-length",
    "x-cashu",
    "x-lightning",
];

/// Fields that pages may read.
const READ: &[&str] = &[
    "x-reason",
    "content-length",
    "content-range",
    "accept-ranges",
    "etag",
    "location",
    "retry-after",
    "sunset",
    "x-cashu",
    "x-lightning",
    "x-request-id",
];

/// The rules of this listener.
#[must_use]
pub fn cors_rules() -> Cors {
    Cors::for_every_site(&[Method::GET, Method::HEAD, Method::PUT, Method::DELETE], SENT, READ)
}
