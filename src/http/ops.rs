//! The pages for machines: `/healthz`, `/readyz`, `/metrics`, `/endpoints`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::json;

use super::{Access, Edge, Failure, Routes, Verdict};
use crate::lifecycle::HealthRegistry;
use crate::telemetry::Metrics;

/// Prometheus' text format.
const TEXT_0_0_4: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `/healthz` is 200 while no service is failing. `/readyz` is 200 once every service has succeeded (or, where a cycle may last
/// for hours, is at work) and until the drain. Both are 503 otherwise, and show all services either way. `/metrics` is for
/// Prometheus; `/endpoints` lists what the listeners of this process serve, and to whom.
///
/// The answers name internals: the listener must not be reachable by others than the operator.
pub fn ops_routes(health: HealthRegistry, metrics: Metrics, edge: Edge) -> Routes {
    Routes::new()
        .get("/healthz", Access::Anyone, healthz)
        .get("/readyz", Access::Anyone, readyz)
        .with_state(health)
        .merge(Routes::new().get("/metrics", Access::Anyone, exposition).with_state(metrics))
        .merge(Routes::new().get("/endpoints", Access::Anyone, endpoints).with_state(edge))
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
    let body = Json(json!({ "status": word, "services": health.snapshot() }));
    (status, Extension(Verdict), body).into_response()
}

async fn exposition(State(metrics): State<Metrics>) -> Result<Response, Failure> {
    Ok(([(CONTENT_TYPE, TEXT_0_0_4)], metrics.encode()?).into_response())
}

async fn endpoints(State(edge): State<Edge>) -> Response {
    Json(edge.endpoints()).into_response()
}
