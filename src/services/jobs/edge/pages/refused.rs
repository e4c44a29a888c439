//! Refusals and failures as pages.

use axum::http::StatusCode;
use axum::http::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::response::Response;
use maud::html;

use crate::http::RequestContext;
use crate::http::page::{Page, with_forms};
use crate::services::jobs::edge::JobsState;
use crate::services::jobs::edge::refusal::Refused;

/// What makes a browser ask for a token: it sends the password as the token, with any user name.
const CHALLENGE: HeaderValue = HeaderValue::from_static(r#"Basic realm="Quipu jobs", charset="UTF-8""#);

/// The page that says why a request is refused or has failed. Counted and logged as any other failure.
pub(super) fn refused_page(state: &JobsState, context: &RequestContext, refused: Refused) -> Response {
    let failure = state.refuse(refused);
    let (status, body) = (failure.status(), context.report(&failure));
    let has_login = state.parts().login.is_some();
    let main = html! {
        section.refused {
            h2 { (status.as_u16()) " " (status.canonical_reason().unwrap_or("Refused")) }
            p { (body.message) "." }
            @if status == StatusCode::UNAUTHORIZED && has_login {
                p { a href="/login" { "Log in" } }
            } @else if status == StatusCode::UNAUTHORIZED {
                p {
                    "The browser asks for a name and a password: any name, and an API token as the password. "
                    "An administrator makes tokens with " code { "quipu tokens create" } "."
                }
            }
            p.aside { "Request " (context.id()) }
            p { a href="/jobs" { "To the queue" } }
        }
    };
    let page =
        Page { title: Some("refused"), style: "/jobs.css", script: "/jobs.js", header: html! {}, main };
    let mut response = with_forms(status, page.document());
    if status == StatusCode::UNAUTHORIZED && !has_login {
        response = asked_for_token(response);
    }
    if let Some(seconds) = body.retry_after_s {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Makes a browser ask its user for a token.
pub(super) fn asked_for_token(mut response: Response) -> Response {
    response.headers_mut().insert(WWW_AUTHENTICATE, CHALLENGE);
    response
}
