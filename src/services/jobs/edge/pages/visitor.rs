//! The client of a page: authenticated as every other one. A browser without a credential is asked for a token, or
//! sent to the login where people log in.

use axum::Extension;
use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, HeaderValue};
use axum::http::request::Parts;
use axum::http::{Method, Uri};
use axum::response::{IntoResponse as _, Redirect, Response};

use super::refused::{asked_for_token, refused_page};
use crate::http::{RequestContext, is_of_another_origin, is_of_another_site};
use crate::services::jobs::decide::{Actor, Scope};
use crate::services::jobs::edge::JobsState;
use crate::services::jobs::edge::access::Client;
use crate::services::jobs::edge::login;
use crate::services::jobs::edge::refusal::Refused;

/// The client of a page or of a form. A refusal is a page as well.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    pub(super) client: Client,
    pub(super) context: RequestContext,
    /// The page that was asked for, as path and query.
    pub(super) at: String,
    /// Whether people log in here.
    pub(super) has_login: bool,
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

    /// Whether what administrators do is shown. A program on this machine is none, but its browser can be asked for a
    /// token, or its user can log in.
    pub(super) fn may_become_administrator(&self) -> bool {
        self.client.actor == Actor::Local || self.may(Scope::Admin)
    }
}

impl FromRequestParts<JobsState> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &JobsState) -> Result<Self, Response> {
        let context = Extension::<RequestContext>::from_request_parts(parts, state).await;
        let Extension(context) = context.map_err(axum::response::IntoResponse::into_response)?;
        match visit(parts, state, &context).await {
            Ok(client) => {
                let (at, has_login) = (path_of(&parts.uri).to_owned(), state.parts().login.is_some());
                Ok(Self { client, context, at, has_login })
            }
            Err(refused) => Err(turned_away(parts, state, &context, refused)),
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
            Err(refused) => Err(turned_away(parts, state, &visitor.context, refused)),
        }
    }
}

fn path_of(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |path| path.as_str())
}

/// The answer to a visitor who is refused. Where people log in, a browser without a credential that asks for a page is
/// sent to the login; a script of a page and a form are not, because they cannot follow.
fn turned_away(parts: &Parts, state: &JobsState, context: &RequestContext, refused: Refused) -> Response {
    let is_stranger = refused.is_unauthorized();
    if !is_stranger || state.parts().login.is_none() {
        return refused_page(state, context, refused);
    }
    let shows_token = parts.headers.contains_key(AUTHORIZATION);
    let mode = parts.headers.get("sec-fetch-mode");
    let is_page = parts.method == Method::GET && mode.is_none_or(|mode| mode.as_bytes() == b"navigate");
    if is_page && !shows_token {
        let mut response = Redirect::to(&login::address(path_of(&parts.uri))).into_response();
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        return response;
    }
    let response = refused_page(state, context, refused);
    if shows_token { asked_for_token(response) } else { response }
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
