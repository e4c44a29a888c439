//! The pages for machines: `/healthz`, `/readyz`, `/metrics`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use super::Failure;
use crate::lifecycle::HealthRegistry;
use crate::telemetry::Metrics;

/// Prometheus' text format.
const TEXT_0_0_4: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `/healthz` is 200 while no service is failing; `/readyz` is 200 once every service has succeeded (or,
/// where a cycle may last for hours, is at work) and until the drain; both are 503 otherwise, and show all services either way. `/metrics` is for
/// Prometheus. The answers name internals: keep the listener away from strangers.
pub fn ops_router(health: HealthRegistry, metrics: Metrics) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(health)
        .merge(Router::new().route("/metrics", get(exposition)).with_state(metrics))
}

async fn healthz(State(health): State<HealthRegistry>) -> Response {
    answer(&health, health.liveness().is_healthy, "failing")
}

async fn readyz(State(health): State<HealthRegistry>) -> Response {
    answer(&health, health.liveness().is_ready, "not ready")
}

fn answer(health: &HealthRegistry, is_good: bool, otherwise: &str) -> Response {
    let (status, word) =
        if is_good { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, otherwise) };
    (status, Json(json!({ "status": word, "services": health.snapshot() }))).into_response()
}

async fn exposition(State(metrics): State<Metrics>) -> Result<Response, Failure> {
    Ok(([(CONTENT_TYPE, TEXT_0_0_4)], metrics.encode()?).into_response())
}
