//! Pages of jobs for people, on the listener of jobs itself, so that its permissions apply. They can be read
//! without JavaScript; the script keeps them up to date. Forms send to `/actions/…`, which answers with a
//! redirect.

mod actions;
mod job;
mod parts;
mod queue;
mod refused;
mod tokens;
mod visitor;
mod workers;

use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};

use super::JobsState;
use crate::http::page::{Page, asset, assets, live_mark, navigation, with_forms};
use crate::http::{Access, Routes};
use crate::services::jobs::decide::{Actor, Scope};

use visitor::Visitor;

/// Paths of the pages with their titles.
const PAGES: [(&str, &str); 3] = [("/jobs", "Queue"), ("/workers", "Workers"), ("/admin/tokens", "Tokens")];

/// The routes of the pages, of their files, and of their forms.
pub(super) fn routes() -> Routes<JobsState> {
    use Access::{Admin, Anyone, Token};
    Routes::new()
        .get("/", Token, queue::page)
        .get("/jobs", Token, queue::page)
        .get("/jobs/{id}", Token, job::page)
        .get("/workers", Token, workers::page)
        .get("/admin/tokens", Admin, tokens::page)
        .post("/actions/jobs/{id}/retry", Token, actions::retry)
        .post("/actions/jobs/{id}/cancel", Token, actions::cancel)
        .post("/actions/jobs/{id}/priority", Token, actions::priority)
        .post("/actions/workers/{id}/drain", Token, actions::drain)
        .post("/actions/workers/{id}/suspend", Token, actions::suspend)
        .post("/actions/workers/{id}/resume", Token, actions::resume)
        .post("/actions/workers/{id}/remove", Token, actions::remove)
        .post("/actions/tokens", Admin, tokens::create)
        .post("/actions/tokens/{id}/revoke", Admin, tokens::revoke)
        .get("/jobs.css", Anyone, async || asset("text/css; charset=utf-8", include_str!("jobs.css")))
        .get("/jobs.js", Anyone, async || asset("text/javascript; charset=utf-8", include_str!("jobs.js")))
        .merge(assets())
}

/// A complete page. `here` is the path that the navigation marks, `live` whether events renew it.
fn answer(visitor: &Visitor, here: &str, title: &str, is_live: bool, main: Markup) -> Response {
    let shown = PAGES.into_iter().filter(|(path, _)| *path != "/admin/tokens" || may_ask_for_tokens(visitor));
    let pages: Vec<(&str, &str)> = shown.collect();
    let header = html! {
        p.version { (env!("CARGO_PKG_VERSION")) }
        p.health { (parts::foreign(&visitor.client.actor.label(), parts::NAME_SHOWN)) }
        @if is_live { (live_mark()) }
        (navigation(&pages, here))
    };
    let page = Page { title: Some(title), style: "/jobs.css", script: "/jobs.js", header, main };
    with_forms(StatusCode::OK, page.document())
}

/// A program on this machine is no administrator, but its browser can be asked for a token.
fn may_ask_for_tokens(visitor: &Visitor) -> bool {
    visitor.client.actor == Actor::Local || visitor.client.actor.may(Scope::Admin)
}
