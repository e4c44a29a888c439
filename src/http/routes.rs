//! Routes that declare their endpoints: a listener serves only what is declared.

use std::time::Duration;

use axum::Router;
use axum::handler::Handler;
use axum::routing::{delete, get, head, patch, post, put};
use serde::Serialize;

/// What a client needs for an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Nothing: every client that reaches the listener under one of its names is served.
    Anyone,
    /// A bearer token; where claimed identities are believed, a claim.
    Identity,
    /// Every client may connect, and must prove its identity within the connection before anything else.
    Handshake,
    /// Every client may send the request, which must contain a valid proof.
    Proof,
    /// An API token with the right scope, a worker's secret, or the session of a person; where the settings allow it, a program on this
    /// machine needs neither.
    Token,
    /// An API token or a session of an administrator.
    Admin,
}

/// A method on a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// `GET` (which includes `HEAD`), `HEAD`, `POST`, `PUT`, `PATCH` or `DELETE`.
    pub method: &'static str,
    /// The route's path: `/v1/messages/{msg_id}`.
    pub path: &'static str,
    /// What a client needs.
    pub access: Access,
}

/// The routes of one listener, with the list of its endpoints.
#[derive(Debug, Clone)]
pub struct Routes<S = ()> {
    router: Router<S>,
    endpoints: Vec<Endpoint>,
    slow: Vec<SlowPath>,
}

/// A path whose requests may take longer than others.
#[derive(Debug, Clone, Copy)]
pub(super) struct SlowPath {
    pub(super) path: &'static str,
    pub(super) within: Duration,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// No routes.
    #[must_use]
    pub fn new() -> Self {
        Self { router: Router::new(), endpoints: Vec::new(), slow: Vec::new() }
    }

    /// Adds a handler of GET.
    #[must_use]
    pub fn get<H, T>(mut self, path: &'static str, access: Access, handler: H) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.endpoints.push(Endpoint { method: "GET", path, access });
        Self { router: self.router.route(path, get(handler)), ..self }
    }

    /// Adds a handler of HEAD: for a path without GET, or whose HEAD differs from it.
    #[must_use]
    pub fn head<H, T>(mut self, path: &'static str, access: Access, handler: H) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.endpoints.push(Endpoint { method: "HEAD", path, access });
        Self { router: self.router.route(path, head(handler)), ..self }
    }

    /// Adds a handler of POST.
    #[must_use]
    pub fn post<H, T>(mut self, path: &'static str, access: Access, handler: H) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.endpoints.push(Endpoint { method: "POST", path, access });
        Self { router: self.router.route(path, post(handler)), ..self }
    }

    /// Adds a handler of PUT.
    #[must_use]
    pub fn put<H, T>(mut self, path: &'static str, access: Access, handler: H) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.endpoints.push(Endpoint { method: "PUT", path, access });
        Self { router: self.router.route(path, put(handler)), ..self }
    }

    /// Gives requests to `path` this time until their response begins, in place of `http.request_timeout_s`. Their
    /// bodies may take it as well, as long as no pause between two pieces is longer than `http.body_timeout_s`.
    #[must_use]
    pub fn within(mut self, path: &'static str, within: Duration) -> Self {
        self.slow.push(SlowPath { path, within });
        self
    }

    /// Adds a handler of PATCH.
    #[must_use]
    pub fn patch<H, T>(mut self, path: &'static str, access: Access, handler: H) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.endpoints.push(Endpoint { method: "PATCH", path, access });
        Self { router: self.router.route(path, patch(handler)), ..self }
    }

    /// Adds a handler of DELETE.
    #[must_use]
    pub fn delete<H, T>(mut self, path: &'static str, access: Access, handler: H) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.endpoints.push(Endpoint { method: "DELETE", path, access });
        Self { router: self.router.route(path, delete(handler)), ..self }
    }

    /// Sets the state that the handlers share.
    #[must_use]
    pub fn with_state(self, state: S) -> Routes {
        Routes { router: self.router.with_state(state), endpoints: self.endpoints, slow: self.slow }
    }

    /// Adds the routes of `other`.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.endpoints.extend(other.endpoints);
        self.slow.extend(other.slow);
        Self { router: self.router.merge(other.router), ..self }
    }
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl Routes {
    pub(super) fn into_parts(self) -> (Router, Vec<Endpoint>, Vec<SlowPath>) {
        (self.router, self.endpoints, self.slow)
    }
}
