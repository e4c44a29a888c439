//! The console's routes, and what every answer carries.

mod chart;
mod guard;
mod page;
mod panels;
mod status;
mod stream;
mod words;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::ConsoleState;

/// `/` for people, `/status.json` for scripts, `/events` for both.
pub fn router(state: ConsoleState) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/panels", get(panels))
        .route("/status.json", get(status_json))
        .route("/events", get(stream::events))
        .route("/console.css", get(async || asset("text/css; charset=utf-8", include_str!("console.css"))))
        .route(
            "/console.js",
            get(async || asset("text/javascript; charset=utf-8", include_str!("console.js"))),
        )
        .route("/favicon.svg", get(async || asset("image/svg+xml", include_str!("favicon.svg"))))
        .layer(from_fn_with_state(state.clone(), guard::guard))
        .with_state(state)
}

/// A lost database is shown, and said in the status code.
fn code(status: &status::Status) -> StatusCode {
    if status.archive.is_some() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn page(State(state): State<ConsoleState>) -> Response {
    let status = status::status(&state).await;
    let latest = status::latest(&state).await;
    (code(&status), [(CACHE_CONTROL, "no-store")], page::page(&status, &latest)).into_response()
}

async fn panels(State(state): State<ConsoleState>) -> Response {
    let status = status::status(&state).await;
    (code(&status), [(CACHE_CONTROL, "no-store")], panels::panels(&status)).into_response()
}

async fn status_json(State(state): State<ConsoleState>) -> Response {
    let status = status::status(&state).await;
    (code(&status), [(CACHE_CONTROL, "no-store")], Json(status)).into_response()
}

fn asset(content_type: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-cache")], text).into_response()
}
