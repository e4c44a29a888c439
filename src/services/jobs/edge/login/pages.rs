//! What a person sees when a login fails.

use axum::http::StatusCode;
use axum::http::header::{HeaderValue, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use maud::html;

use crate::http::page;

/// Why a login failed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Page {
    /// The browser was not on its way, or for too long, or has returned before.
    NotBegun,
    /// The provider did not give a code.
    NotAllowedByProvider,
    /// The code, or the ID token for it, is not valid.
    NotValid,
    /// The person is in none of the allowed groups.
    NotInGroup,
    /// The provider cannot be reached.
    ProviderDown,
    /// The provider answers with something else than expected.
    ProviderBroken,
    /// The address asks too often.
    TooOften,
    /// Too many browsers are on their way.
    TooMany,
}

impl Page {
    /// The label in metrics.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::NotBegun => "login_state",
            Self::NotAllowedByProvider => "login_cancelled",
            Self::NotValid => "login_invalid",
            Self::NotInGroup => "login_denied",
            Self::ProviderDown => "login_provider_down",
            Self::ProviderBroken => "login_provider_broken",
            Self::TooOften => "login_rate",
            Self::TooMany => "login_busy",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::NotBegun => StatusCode::BAD_REQUEST,
            Self::NotAllowedByProvider | Self::NotInGroup => StatusCode::FORBIDDEN,
            Self::NotValid => StatusCode::UNAUTHORIZED,
            Self::ProviderDown | Self::TooMany => StatusCode::SERVICE_UNAVAILABLE,
            Self::ProviderBroken => StatusCode::BAD_GATEWAY,
            Self::TooOften => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::NotBegun => {
                "This login was not begun in this browser, was begun more than ten minutes ago, or has been used already."
            }
            Self::NotAllowedByProvider => {
                "The identity provider did not allow the login, or it was cancelled."
            }
            Self::NotValid => "The identity provider's answer is not valid. The log of the server says why.",
            Self::NotInGroup => {
                "Your account is in none of the groups that may log in here. Ask the operator."
            }
            Self::ProviderDown => {
                "The identity provider cannot be reached. Requests with API tokens are served as usual."
            }
            Self::ProviderBroken => {
                "The identity provider answers with something else than expected. The log of the server says what."
            }
            Self::TooOften => "Too many logins from this address. Try again in a minute.",
            Self::TooMany => "Too many logins at this moment. Try again in some minutes.",
        }
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let main = html! {
            section.refused {
                h2 { "Login failed" }
                p { (self.text()) }
                p { a href="/login" { "Log in again" } }
            }
        };
        let page = page::Page {
            title: Some("login failed"),
            style: "/jobs.css",
            script: "/jobs.js",
            header: html! {},
            main,
        };
        let mut response = page::with_forms(self.status(), page.document());
        let headers = response.headers_mut();
        if matches!(self, Self::ProviderDown | Self::TooMany | Self::TooOften) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("60"));
        }
        response
    }
}
