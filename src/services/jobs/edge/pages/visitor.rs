//! The client of a page: authenticated as every other one, and asked for a token if it has none.

use axum::Extension;
use axum::extract::FromRequestParts;
use axum::http::Method;
use axum::http::request::Parts;
use axum::response::Response;

use super::refused::refused_page;
use crate::http::{RequestContext, is_of_another_site};
use crate::services::jobs::decide::{Actor, Scope};
use crate::services::jobs::edge::JobsState;
use crate::services::jobs::edge::access::{Client, is_of_another_origin};
use crate::services::jobs::edge::refusal::Refused;

/// The client of a page or of a form. A refusal is a page as well.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    pub(super) client: Client,
    pub(super) context: RequestContext,
}

impl Visitor {
    /// Requires a scope. A program on this machine, which is no administrator, is asked for a token.
    pub(super) fn require(&self, scope: Scope) -> Result<(), Refused> {
        if scope == Scope::Admin && self.client.actor == Actor::Local {
            return Err(Refused::unauthorized());
        }
        self.client.require(scope)
    }

    /// Whether a button that needs this scope is shown.
    pub(super) fn may(&self, scope: Scope) -> bool {
        self.client.actor.may(scope)
    }
}

impl FromRequestParts<JobsState> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &JobsState) -> Result<Self, Response> {
        let context = Extension::<RequestContext>::from_request_parts(parts, state).await;
        let Extension(context) = context.map_err(axum::response::IntoResponse::into_response)?;
        match visit(parts, state, &context).await {
            Ok(client) => Ok(Self { client, context }),
            Err(refused) => Err(refused_page(state, &context, refused)),
        }
    }
}

/// A visitor who is an administrator; checked before the body is read.
#[derive(Debug, Clone)]
pub(super) struct Administrator(pub(super) Visitor);

impl FromRequestParts<JobsState> for Administrator {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &JobsState) -> Result<Self, Response> {
        let visitor = Visitor::from_request_parts(parts, state).await?;
        match visitor.require(Scope::Admin) {
            Ok(()) => Ok(Self(visitor)),
            Err(refused) => Err(refused_page(state, &visitor.context, refused)),
        }
    }
}

async fn visit(parts: &Parts, state: &JobsState, context: &RequestContext) -> Result<Client, Refused> {
    let headers = &parts.headers;
    let is_read = matches!(parts.method, Method::GET | Method::HEAD);
    // Whatever the credential is: a browser adds it to what a page of another site makes it send.
    if !is_read && (is_of_another_site(headers) || is_of_another_origin(headers)) {
        return Err(Refused::forbidden("a web page of another site sends this form"));
    }
    let is =
        |name: &str, value: &str| headers.get(name).is_some_and(|found| found.as_bytes() == value.as_bytes());
    // Other sites may link to a page. They cannot read what the browser then shows, nor frame it.
    let is_link = is_read && is("sec-fetch-mode", "navigate") && is("sec-fetch-dest", "document");
    state.authenticate(parts, context, is_link).await
}
