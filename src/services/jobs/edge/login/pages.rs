//! What a person sees when a login fails.

use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, HeaderValue, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, html};

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
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { "Login failed" }
                }
                body {
                    h1 { "Login failed" }
                    p { (self.text()) }
                    p { a href="/login" { "Log in again" } }
                }
            }
        };
        let mut response = (self.status(), page).into_response();
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if matches!(self, Self::ProviderDown | Self::TooMany | Self::TooOften) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("60"));
        }
        response
    }
}
