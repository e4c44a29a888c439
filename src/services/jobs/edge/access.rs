//! Authenticates requests, and reads their bodies.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::JobsState;
use super::refusal::Refused;
use super::values::{VALUES_MAX, has_too_many};
use crate::http::{RequestContext, is_of_another_origin, is_of_another_site};
use crate::services::jobs::decide::{Actor, LeaseKey, NAME_BYTES_MAX, Scope, check_not_reserved, check_text};
use crate::services::jobs::{append, read};

/// SHA-256 of a token or secret, as the journal stores it.
#[must_use]
pub fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// A new secret with this beginning: 32 random bytes.
pub(super) fn draw(prefix: &str) -> String {
    format!("{prefix}{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()))
}

/// A new API token. It begins as those of BlobForge.
#[must_use]
pub fn draw_token() -> String {
    draw("bf_")
}

/// A credential that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Credential {
    /// An API token.
    Token(read::TokenRecord),
    /// A worker's secret.
    Worker(read::WorkerRecord),
    /// The cookie of a session.
    Session(read::SessionRecord),
}

/// The authenticated client of a request. Extracted before the body, so that the body of a stranger is not
/// read.
#[derive(Debug, Clone)]
pub(super) struct Client {
    /// Who it is.
    pub(super) actor: Actor,
    /// The hash of its credential, by which a stream checks it again; `None` for a program on this machine.
    pub(super) credential: Option<[u8; 32]>,
    /// The session, of a person who has logged in.
    pub(super) session: Option<read::SessionRecord>,
}

impl Client {
    /// A client with a credential that belongs to no person.
    fn with(actor: Actor, sha256: [u8; 32]) -> Self {
        Self { actor, credential: Some(sha256), session: None }
    }

    /// Requires a scope.
    pub(super) fn require(&self, scope: Scope) -> Result<(), Refused> {
        if self.actor.may(scope) {
            return Ok(());
        }
        Err(Refused::forbidden(match scope {
            Scope::Admin => "an administrator's token or session is required".to_owned(),
            scope => format!("the scope `{}` is required", scope.as_str()),
        }))
    }

    /// Requires that the client may act as this worker.
    pub(super) fn require_worker(&self, worker: &str) -> Result<(), Refused> {
        check_text("worker_id", worker, NAME_BYTES_MAX)?;
        check_not_reserved("worker_id", worker)?;
        if self.actor.may_be(worker) {
            return Ok(());
        }
        Err(Refused::forbidden("the credential is not that of this worker, and has no scope `work`"))
    }
}

impl FromRequestParts<JobsState> for Client {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &JobsState) -> Result<Self, Response> {
        let context = Extension::<RequestContext>::from_request_parts(parts, state).await;
        let Extension(context) = context.map_err(axum::response::IntoResponse::into_response)?;
        let client = state.authenticate(parts, &context, false).await;
        client.map_err(|refused| state.refuse(refused).into_response())
    }
}

impl JobsState {
    /// Authenticates a request by its API token, by its worker's secret, by its session, or by its origin.
    /// `is_link`: it asks for a page, to which pages of other sites may link.
    pub(super) async fn authenticate(
        &self,
        parts: &Parts,
        context: &RequestContext,
        is_link: bool,
    ) -> Result<Client, Refused> {
        let headers = &parts.headers;
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if let (Some(id), Some(secret)) = (text("x-worker-id"), text("x-worker-secret")) {
            let sha256 = hash(secret);
            return match self.credential(sha256).await? {
                Some(Credential::Worker(record)) if record.worker == id && record.is_enabled => {
                    Ok(Client::with(Actor::Worker { id: record.worker }, sha256))
                }
                _ => Err(Refused::unauthorized()),
            };
        }
        if headers.contains_key(AUTHORIZATION) {
            let presented =
                text(AUTHORIZATION.as_str()).and_then(presented).ok_or_else(Refused::unauthorized)?;
            let sha256 = match &presented {
                Presented::Bearer(token) => hash(token),
                Presented::Basic(token) => {
                    refuse_other_pages(headers, is_link)?;
                    hash(token)
                }
            };
            return match self.credential(sha256).await? {
                Some(Credential::Token(record)) => {
                    let scopes = Scope::parse_all(&record.scopes);
                    let actor = Actor::Token { name: record.name, is_admin: record.is_admin, scopes };
                    Ok(Client::with(actor, sha256))
                }
                Some(Credential::Worker(record)) if record.is_enabled => {
                    Ok(Client::with(Actor::Worker { id: record.worker }, sha256))
                }
                _ => Err(Refused::unauthorized()),
            };
        }
        if let Some(client) = self.session(parts, is_link).await? {
            return Ok(client);
        }
        let is_direct = context.client().is_loopback_direct;
        if !self.parts().settings.serves_unauthenticated(self.0.address, is_direct) {
            return Err(Refused::unauthorized());
        }
        refuse_other_pages(headers, is_link)?;
        Ok(Client { actor: Actor::Local, credential: None, session: None })
    }

    /// The credential with this hash. An unknown one is remembered as well.
    pub(super) async fn credential(&self, sha256: [u8; 32]) -> Result<Option<Credential>, Refused> {
        if let Some(known) = self.0.credentials.get(&sha256).await {
            return Ok(known);
        }
        let pool = &self.parts().pools.session;
        let found = match read::token(pool, &sha256).await? {
            Some(record) => Some(Credential::Token(record)),
            None => match read::worker_by_secret(pool, &sha256).await? {
                Some(record) => Some(Credential::Worker(record)),
                None if self.parts().login.is_none() => None,
                None => read::session(pool, &sha256).await?.map(Credential::Session),
            },
        };
        self.0.credentials.insert(sha256, found.clone()).await;
        Ok(found)
    }

    /// Forgets what was checked, after a credential or a worker was changed by this process.
    pub(super) fn forget_credentials(&self) {
        self.0.credentials.invalidate_all();
    }

    /// The key of lease tokens.
    pub(super) async fn lease_key(&self) -> Result<LeaseKey, Refused> {
        let read = async { append::lease_key(&self.parts().pools, rand::random()).await };
        self.0.lease_key.try_get_with((), read).await.map_err(|error| Refused::Store((*error).clone()))
    }
}

/// A token as a request shows it.
#[derive(Debug, PartialEq, Eq)]
enum Presented {
    /// Shown by a program.
    Bearer(String),
    /// Kept by a browser, which adds it to the requests of any page.
    Basic(String),
}

/// The token in a field `Authorization`. With the scheme `Basic` it is the password, of any user.
fn presented(value: &str) -> Option<Presented> {
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Presented::Bearer(rest.trim().to_owned()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (_, password) = decoded.split_once(':')?;
    Some(Presented::Basic(password.to_owned()))
}

/// Refuses what a page of another site makes a browser send with the authority of its user: that of a program on
/// this machine, or of a token that the browser keeps.
fn refuse_other_pages(headers: &HeaderMap, is_link: bool) -> Result<(), Refused> {
    if (is_of_another_site(headers) && !is_link) || is_of_another_origin(headers) {
        return Err(Refused::forbidden("a web page of another site asks without a token"));
    }
    Ok(())
}

/// The JSON body of a request, whatever its content type says: clients of the original do not always say it.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<JobsState> for Body<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &JobsState) -> Result<Self, Response> {
        let bytes = Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(axum::response::IntoResponse::into_response)?;
        parse(&bytes).map(Self).map_err(|refused| state.refuse(refused).into_response())
    }
}

/// The content of a body.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refused> {
    // An empty body is an empty object: the original ignores the body of requests that need none.
    let text = if bytes.is_empty() { b"{}" } else { bytes };
    if has_too_many(text) {
        return Err(Refused::field("body", format!("has more than {VALUES_MAX} values")));
    }
    serde_json::from_slice(text)
        .map_err(|error| Refused::field("body", format!("is not the expected JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_shown_as_bearer_or_as_the_password_of_any_user() {
        assert_eq!(presented("Bearer  bf_x "), Some(Presented::Bearer("bf_x".to_owned())));
        // me:bf_x:y
        assert_eq!(presented("basic bWU6YmZfeDp5"), Some(Presented::Basic("bf_x:y".to_owned())));
        for wrong in ["", "bf_x", "Basic", "Basic ?", "Basic bWU=", "Digest x"] {
            assert_eq!(presented(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn other_sites_may_link_to_a_page_and_cause_nothing_else() {
        let from = |name: &'static str, value: &str| {
            HeaderMap::from_iter([(name.parse::<axum::http::HeaderName>().unwrap(), value.parse().unwrap())])
        };
        let linked = from("sec-fetch-site", "cross-site");
        assert!(refuse_other_pages(&linked, true).is_ok() && refuse_other_pages(&linked, false).is_err());
        assert!(refuse_other_pages(&from("origin", "null"), true).is_err());
        assert!(refuse_other_pages(&from("sec-fetch-site", "same-origin"), false).is_ok());
    }
}
