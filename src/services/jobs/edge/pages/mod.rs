//! Pages of jobs for people, on the listener of jobs itself, so that its permissions apply. They can be read
//! without JavaScript; the script keeps them up to date. Forms send to `/actions/…`, which answers with a
//! redirect.

mod audit;
mod credentials;
mod failures;
mod job;
mod logout;
mod manage;
mod many;
mod parts;
mod queue;
mod refused;
mod upload;
mod visitor;
mod workers;

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};

use super::{JobsState, login};
use crate::http::page::{Page, asset, assets, live_mark, navigation, with_forms};
use crate::http::{Access, Routes};
use crate::services::jobs::decide::Actor;

use visitor::Visitor;

/// Paths of the pages with their titles.
const PAGES: [(&str, &str); 4] =
    [("/jobs", "Queue"), ("/workers", "Workers"), ("/admin/tokens", "Tokens"), ("/admin/audit", "Audit")];

/// What the path of a page for administrators begins with.
const ADMIN: &str = "/admin/";

/// The routes of the pages, of their files, and of their forms. A file may take `upload` to arrive.
pub(super) fn routes(upload: Duration) -> Routes<JobsState> {
    use Access::{Admin, Anyone, Token};
    Routes::new()
        .get("/", Token, queue::page)
        .get("/jobs", Token, queue::page)
        .get("/jobs/{id}", Token, job::page)
        .get("/jobs/retry-all", Token, many::preview_retry)
        .get("/jobs/cancel-all", Token, many::preview_cancel)
        .get("/workers", Token, workers::page)
        .get("/admin/tokens", Admin, credentials::page)
        .get("/admin/audit", Admin, audit::page)
        .get("/logged-out", Anyone, logout::logged_out)
        .post("/actions/jobs", Token, upload::submit)
        .within("/actions/jobs", upload)
        .post("/actions/jobs/retry-all", Token, many::retry)
        .post("/actions/jobs/cancel-all", Token, many::cancel)
        .post("/actions/jobs/{id}/retry", Token, manage::retry)
        .post("/actions/jobs/{id}/cancel", Token, manage::cancel)
        .post("/actions/jobs/{id}/priority", Token, manage::priority)
        .post("/actions/workers", Admin, workers::create)
        .post("/actions/workers/{id}/drain", Token, workers::drain)
        .post("/actions/workers/{id}/suspend", Token, workers::suspend)
        .post("/actions/workers/{id}/resume", Token, workers::resume)
        .post("/actions/workers/{id}/remove", Token, workers::remove)
        .post("/actions/workers/{id}/enable", Admin, workers::enable)
        .post("/actions/workers/{id}/disable", Admin, workers::disable)
        .post("/actions/workers/{id}/regenerate", Admin, workers::regenerate)
        .post("/actions/tokens", Admin, credentials::create)
        .post("/actions/tokens/{id}/revoke", Admin, credentials::revoke)
        .post("/actions/logout", Anyone, logout::logout)
        .get("/jobs.css", Anyone, async || asset("text/css; charset=utf-8", include_str!("jobs.css")))
        .get("/jobs.js", Anyone, async || asset("text/javascript; charset=utf-8", include_str!("jobs.js")))
        .merge(assets())
}

/// A complete page. `here` is the path that the navigation marks, `live` whether events renew it.
fn answer(visitor: &Visitor, here: &str, title: &str, is_live: bool, main: Markup) -> Response {
    let is_shown = |path: &str| !path.starts_with(ADMIN) || visitor.may_become_administrator();
    let pages: Vec<(&str, &str)> = PAGES.into_iter().filter(|(path, _)| is_shown(path)).collect();
    let header = html! {
        p.version { (env!("CARGO_PKG_VERSION")) }
        (known_as(visitor))
        @if is_live { (live_mark()) }
        (navigation(&pages, here))
    };
    let page = Page { title: Some(title), style: "/jobs.css", script: "/jobs.js", header, main };
    with_forms(StatusCode::OK, page.document())
}

/// Who the visitor is, and the way in or out where people log in.
fn known_as(visitor: &Visitor) -> Markup {
    let label = visitor.client.actor.label();
    let session = visitor.client.session.as_ref();
    let name = session.and_then(|session| session.name.as_ref()).unwrap_or(&label);
    let title = parts::visible(&label, parts::NAME_SHOWN);
    html! {
        div.visitor {
            span.who title=(title) { (parts::foreign(name, parts::NAME_SHOWN)) }
            @if session.is_some() {
                form action="/actions/logout" method="post" { button type="submit" { "Log out" } }
            } @else if visitor.has_login && visitor.client.actor == Actor::Local {
                a href=(login::address(&visitor.at)) { "Log in" }
            }
        }
    }
}
