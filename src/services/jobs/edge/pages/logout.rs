//! The end of a session, for people who have logged in.

use axum::Extension;
use axum::extract::State;
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::html;

use super::refused::refused_page;
use crate::http::RequestContext;
use crate::http::page::{Page, with_forms};
use crate::services::jobs::edge::JobsState;

/// Ends the session of the browser. It leads to a page that needs no session: any other one would lead to the
/// provider, which may log the person in again without asking.
pub(super) async fn logout(
    State(state): State<JobsState>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
) -> Response {
    match state.end_session(&headers).await {
        Ok(Some(closed)) => ([(SET_COOKIE, closed)], Redirect::to("/logged-out")).into_response(),
        Ok(None) => state.login_is_off(),
        Err(refused) => refused_page(&state, &context, refused),
    }
}

pub(super) async fn logged_out() -> Response {
    let main = html! {
        section.refused {
            h2 { "You are logged out" }
            p { "The session at the identity provider may go on: to log in again, it may not ask for a password." }
            p { a href="/login" { "Log in" } }
        }
    };
    let page =
        Page { title: Some("logged out"), style: "/jobs.css", script: "/jobs.js", header: html! {}, main };
    with_forms(StatusCode::OK, page.document())
}
