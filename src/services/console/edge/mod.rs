//! Routes of the console.

mod blobs;
mod chart;
mod crawl;
mod format;
mod links;
mod page;
mod panels;
mod status;
mod storage;
mod stream;
mod wrong;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, HeaderMap};
use axum::response::{IntoResponse, Response};

use blobs::BlobStatus;

use super::ConsoleState;
use crate::http::page::{asset, assets};
use crate::http::{Access, Failure, Rejection, Routes, is_of_another_site};

/// The routes: `/` and `/blobs` for people, `/status.json` for scripts, `/events` for both; `/alerts.md` says what to do.
pub fn routes(state: ConsoleState) -> Routes {
    Routes::new()
        .get("/", Access::Anyone, page)
        .get("/panels", Access::Anyone, panels)
        .get("/status.json", Access::Anyone, status_json)
        .get("/events", Access::Anyone, stream::events)
        .get("/blobs", Access::Anyone, blobs_page)
        .get("/blobs/panels", Access::Anyone, blobs_panels)
        .get("/blobs.js", Access::Anyone, async || {
            asset("text/javascript; charset=utf-8", include_str!("blobs.js"))
        })
        .get("/console.css", Access::Anyone, async || {
            asset("text/css; charset=utf-8", include_str!("console.css"))
        })
        .get("/console.js", Access::Anyone, async || {
            asset("text/javascript; charset=utf-8", include_str!("console.js"))
        })
        .get("/alerts.md", Access::Anyone, async || {
            asset("text/plain; charset=utf-8", include_str!("../../../../docs/alerts.md"))
        })
        .merge(assets())
        .with_state(state)
}

/// The status code: 503 while the database cannot be read. The body is sent in either case.
fn code(status: &status::Status) -> StatusCode {
    code_of(status.archive.is_some())
}

fn code_of(is_read: bool) -> StatusCode {
    if is_read { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn page(State(state): State<ConsoleState>, headers: HeaderMap) -> Response {
    let status = status::status(&state).await;
    let latest = status::latest(&state).await;
    let parts = &state.0.parts;
    let links = links::links(&parts.links, &parts.listeners, &headers);
    (code(&status), [(CACHE_CONTROL, "no-store")], page::page(&status, &latest, &parts.pages, &links))
        .into_response()
}

async fn panels(State(state): State<ConsoleState>, headers: HeaderMap) -> Result<Response, Failure> {
    refuse_other_sites(&headers)?;
    let status = status::status(&state).await;
    Ok((code(&status), [(CACHE_CONTROL, "no-store")], panels::panels(&status)).into_response())
}

/// The page of blobs: 503 while the database cannot be read.
async fn blobs_page(State(state): State<ConsoleState>, headers: HeaderMap) -> Response {
    let status = BlobStatus::read(&state).await;
    let parts = &state.0.parts;
    let links = links::links(&parts.links, &parts.listeners, &headers);
    (code_of(status.is_read()), [(CACHE_CONTROL, "no-store")], blobs::page(&status, &parts.pages, &links))
        .into_response()
}

async fn blobs_panels(State(state): State<ConsoleState>, headers: HeaderMap) -> Result<Response, Failure> {
    refuse_other_sites(&headers)?;
    let status = BlobStatus::read(&state).await;
    Ok((code_of(status.is_read()), [(CACHE_CONTROL, "no-store")], blobs::panels(&status)).into_response())
}

async fn status_json(State(state): State<ConsoleState>, headers: HeaderMap) -> Result<Response, Failure> {
    refuse_other_sites(&headers)?;
    let status = status::status(&state).await;
    Ok((code(&status), [(CACHE_CONTROL, "no-store")], Json(status)).into_response())
}

/// Refuses what a web page of another site requests in its visitor's browser. `/` stays open: other pages may
/// link to it.
fn refuse_other_sites(headers: &HeaderMap) -> Result<(), Rejection> {
    if is_of_another_site(headers) {
        let why = "a web page of another site asks for what the console reads";
        return Err(Rejection::new(StatusCode::FORBIDDEN, why).field("sec-fetch-site"));
    }
    Ok(())
}
