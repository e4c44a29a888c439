//! Login of people by `OpenID` Connect, and their sessions.
//!
//! | request | effect |
//! |---|---|
//! | `GET /login` | the browser gets a cookie and goes to the provider; state, nonce and verifier are kept for 10 minutes |
//! | `GET /auth/callback` | what was kept is taken, once; the code is redeemed; a session begins if the groups allow it |
//! | `POST /logout` of a page of this listener | the session ends |
//! | any request with the cookie of a session | served as its person; one that changes something only from a page of this listener |

mod cookies;
mod pages;

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Extension;
use axum::Json;
use axum::extract::{Query, State};
use axum::http::header::{CACHE_CONTROL, LOCATION, ORIGIN, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::json;
use url::Url;
use uuid::Uuid;

use super::JobsState;
use super::access::{Client, Credential, draw, hash};
use super::refusal::Refused;
use crate::config::JobLogin;
use crate::http::{ClientAddress, Failure, RequestContext, client_key, is_of_another_site};
use crate::net::oidc::{Arrival, LoginError, Person, Provider};
use crate::services::jobs::append::{PendingLogin, begin_login, take_login};
use crate::services::jobs::command::{NewSession, UserCommand};
use crate::services::jobs::decide::{Actor, Admission, GroupRules, admit, local_path, user_label};
use cookies::Cookies;
use pages::Page;

/// How long a session lasts, seconds, whatever its use, so that rights of a group that a person has left end within a
/// day.
const SESSION_S: i32 = 86_400;

/// Requests for a login, and returns from one, of one address in a minute: each makes a row and asks the provider.
const LOGINS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(30).expect("not zero");

/// Requests between two removals of addresses that were not seen for a minute.
const CLEANUP_INTERVAL: u64 = 256;

/// Login by one provider.
pub struct Login {
    provider: Provider,
    settings: JobLogin,
    /// Scheme, host and port by which browsers reach the listener.
    origin: String,
    cookies: Cookies,
    attempts: DefaultKeyedRateLimiter<IpAddr>,
    counted: AtomicU64,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("provider", &self.provider)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

impl Login {
    /// Login by this provider, for browsers that return to `redirect_url`.
    #[must_use]
    pub fn new(provider: Provider, settings: JobLogin, redirect_url: &Url) -> Self {
        Self {
            provider,
            settings,
            origin: redirect_url.origin().ascii_serialization(),
            cookies: Cookies { is_secure: redirect_url.scheme() == "https" },
            attempts: RateLimiter::keyed(Quota::per_minute(LOGINS_PER_MINUTE)),
            counted: AtomicU64::new(0),
        }
    }

    /// Whether the address may try another login. Programs on this machine that no proxy serves are not counted.
    fn admits(&self, client: ClientAddress) -> bool {
        if self.counted.fetch_add(1, Ordering::Relaxed).is_multiple_of(CLEANUP_INTERVAL) {
            self.attempts.retain_recent();
        }
        client.is_loopback_direct || self.attempts.check_key(&client_key(client.address)).is_ok()
    }

    /// Whether a page of this listener sends the request. Browsers send `Origin` with every request that changes
    /// something, and its absence proves nothing.
    fn is_of_own_page(&self, headers: &HeaderMap) -> bool {
        match headers.get(ORIGIN) {
            Some(origin) => origin.as_bytes() == self.origin.as_bytes(),
            None => headers.get("sec-fetch-site").is_some_and(|site| site.as_bytes() == b"same-origin"),
        }
    }
}

impl JobsState {
    /// The person whose session's cookie the request has; `None` if it has none that is valid. `is_link`: as in
    /// `authenticate`.
    pub(super) async fn session(&self, parts: &Parts, is_link: bool) -> Result<Option<Client>, Refused> {
        let headers = &parts.headers;
        let Some(login) = &self.parts().login else { return Ok(None) };
        let Some(value) = login.cookies.session(headers) else { return Ok(None) };
        let sha256 = hash(&value);
        let Some(Credential::Session(record)) = self.credential(sha256).await? else { return Ok(None) };
        if matches!(parts.method, Method::GET | Method::HEAD) {
            // A link of another site leads to a page; its scripts and images do not.
            if is_of_another_site(headers) && !is_link {
                return Err(Refused::forbidden(
                    "a web page of another site asks with the session of a person",
                ));
            }
        } else if !login.is_of_own_page(headers) {
            let why = format!("by a session only pages of {} change something (`Origin`)", login.origin);
            return Err(Refused::coded(StatusCode::FORBIDDEN, "cross_site", why));
        }
        let actor = Actor::User { label: record.label.clone(), is_admin: record.is_admin };
        Ok(Some(Client { actor, credential: Some(sha256), session: Some(record) }))
    }

    /// The login, unless it is off or the address asks too often.
    fn login(&self, context: &RequestContext) -> Result<&Login, Box<Response>> {
        let Some(login) = &self.parts().login else { return Err(Box::new(self.login_is_off())) };
        if login.admits(context.client()) { Ok(login) } else { Err(Box::new(self.page(Page::TooOften))) }
    }

    /// Ends the session of the request's cookie. A page of another site cannot do it. Returns the field `Set-Cookie`
    /// by which the browser forgets the cookie; `None` where people do not log in.
    pub(super) async fn end_session(&self, headers: &HeaderMap) -> Result<Option<HeaderValue>, Refused> {
        let Some(login) = &self.parts().login else { return Ok(None) };
        if !login.is_of_own_page(headers) {
            let why = format!("only a page of {} logs a person out (`Origin`)", login.origin);
            return Err(Refused::coded(StatusCode::FORBIDDEN, "cross_site", why));
        }
        if let Some(value) = login.cookies.session(headers) {
            self.parts().users.append(UserCommand::Logout { sha256: hash(&value) }).await?;
            self.forget_credentials();
        }
        Ok(Some(login.cookies.closed()))
    }

    pub(super) fn login_is_off(&self) -> Response {
        self.parts().metrics.refused("login_off");
        let message = "people do not log in here: services.jobs.oidc.issuer has no value";
        let body = json!({ "code": "login_off", "message": message, "error": message });
        (StatusCode::NOT_IMPLEMENTED, Json(body)).into_response()
    }

    /// A page that says why a login failed.
    fn page(&self, page: Page) -> Response {
        self.parts().metrics.refused(page.reason());
        page.into_response()
    }
}

/// Where a login that leads back to this path begins.
pub(super) fn address(return_to: &str) -> String {
    format!("/login?return_to={}", utf8_percent_encode(return_to, NON_ALPHANUMERIC))
}

/// The query of a login.
#[derive(Debug, Deserialize)]
pub(super) struct LoginQuery {
    return_to: Option<String>,
}

/// Sends the browser to the provider.
pub(super) async fn login(
    State(state): State<JobsState>,
    Extension(context): Extension<RequestContext>,
    Query(query): Query<LoginQuery>,
) -> Result<Response, Failure> {
    let login = match state.login(&context) {
        Ok(login) => login,
        Err(answer) => return Ok(*answer),
    };
    let departure = match login.provider.depart().await {
        Ok(departure) => departure,
        Err(error) => return Ok(failed(&state, &error)),
    };
    let browser = draw("");
    let pending = PendingLogin {
        state_sha256: hash(departure.state.expose()),
        browser_sha256: hash(&browser),
        nonce: departure.nonce,
        verifier: departure.verifier,
        return_to: local_path(query.return_to.as_deref()).to_owned(),
    };
    let kept = begin_login(&state.parts().pools, &pending).await;
    if !kept.map_err(|error| state.refuse(error))? {
        return Ok(state.page(Page::TooMany));
    }
    Ok(redirect(departure.url.as_str(), &[login.cookies.begun(&browser)]))
}

/// What a provider sends a browser back with.
#[derive(Debug, Deserialize)]
pub(super) struct CallbackQuery {
    state: Option<String>,
    code: Option<String>,
    iss: Option<String>,
    error: Option<String>,
}

/// Ends the login of a browser that returned.
pub(super) async fn callback(
    State(state): State<JobsState>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    Query(query): Query<CallbackQuery>,
) -> Result<Response, Failure> {
    let login = match state.login(&context) {
        Ok(login) => login,
        Err(answer) => return Ok(*answer),
    };
    let (Some(returned), Some(browser)) = (query.state.as_deref(), login.cookies.browser(&headers)) else {
        return Ok(state.page(Page::NotBegun));
    };
    let pending = take_login(&state.parts().pools, hash(returned), hash(&browser)).await;
    let Some(pending) = pending.map_err(|error| state.refuse(error))? else {
        return Ok(state.page(Page::NotBegun));
    };
    let Some(code) = query.code.as_deref().filter(|_| query.error.is_none()) else {
        return Ok(state.page(Page::NotAllowedByProvider));
    };
    let PendingLogin { nonce, verifier, return_to, .. } = pending;
    let arrival = Arrival { code, issuer: query.iss.as_deref(), nonce, verifier };
    let person = match login.provider.arrive(arrival).await {
        Ok(person) => person,
        Err(error) => return Ok(failed(&state, &error)),
    };
    let rules = GroupRules { allowed: &login.settings.allowed_groups, admin: &login.settings.admin_groups };
    let Some(admission) = admit(&person.groups, rules) else {
        tracing::info!(subject = %person.subject, "a person in none of the allowed groups tried to log in");
        return Ok(state.page(Page::NotInGroup));
    };
    let secret = draw("");
    let open = UserCommand::Login(Box::new(session_of(person, admission, hash(&secret))));
    state.parts().users.append(open).await.map_err(|error| state.refuse(error))?;
    Ok(redirect(&return_to, &[login.cookies.opened(&secret), login.cookies.arrived()]))
}

/// The session of a person who may log in.
fn session_of(person: Person, admission: Admission, sha256: [u8; 32]) -> NewSession {
    NewSession {
        session: Uuid::now_v7(),
        sha256,
        label: user_label(person.email.as_deref(), &person.subject),
        issuer: person.issuer,
        subject: person.subject,
        name: person.name,
        email: person.email,
        groups: admission.groups,
        is_admin: admission.is_admin,
        lifetime_s: SESSION_S,
    }
}

pub(super) async fn logout(State(state): State<JobsState>, headers: HeaderMap) -> Result<Response, Failure> {
    if state.parts().login.is_none() {
        return Ok(state.login_is_off());
    }
    let closed = state.end_session(&headers).await.map_err(|refused| state.refuse(refused))?;
    let mut response = Json(json!({ "status": "logged_out" })).into_response();
    response.headers_mut().extend(closed.map(|cookie| (SET_COOKIE, cookie)));
    Ok(response)
}

/// The page for a login that failed at the provider. What the operator has to mend is logged.
fn failed(state: &JobsState, error: &LoginError) -> Response {
    match error {
        LoginError::Refused(_) => {
            tracing::info!(error = %error, "a login was refused: {error}");
            state.page(Page::NotValid)
        }
        LoginError::Unreachable(_) | LoginError::Provider(_) => {
            tracing::warn!(error = %error, "people cannot log in: {error}");
            state.page(if matches!(error, LoginError::Provider(_)) {
                Page::ProviderBroken
            } else {
                Page::ProviderDown
            })
        }
    }
}

/// 302 with cookies.
fn redirect(to: &str, cookies: &[HeaderValue]) -> Response {
    let mut response = StatusCode::FOUND.into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for cookie in cookies {
        headers.append(SET_COOKIE, cookie.clone());
    }
    match HeaderValue::from_str(to) {
        Ok(to) => drop(headers.insert(LOCATION, to)),
        Err(_) => drop(headers.insert(LOCATION, HeaderValue::from_static("/"))),
    }
    response
}
