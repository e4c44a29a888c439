//! The machine-readable pages: `/healthz`, `/readyz`, `/metrics`, `/endpoints`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::json;

use super::{Access, Edge, ExpectedStatus, Failure, Routes};
use crate::lifecycle::HealthRegistry;
use crate::telemetry::Metrics;

/// Content type of Prometheus' text format.
const TEXT_0_0_4: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `/healthz` returns 200 while no service is failing. `/readyz` returns 200 once every service has succeeded
/// (a service whose cycles may last for hours: once it is working) and until the drain. Both return 503
/// otherwise, and list all services in either case. `/metrics` is for Prometheus; `/endpoints` lists the
/// endpoints of all listeners of this process, with the access that each requires.
///
/// The responses contain internals: only the operator may be able to reach this listener.
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
    (status, Extension(ExpectedStatus), body).into_response()
}

async fn exposition(State(metrics): State<Metrics>) -> Result<Response, Failure> {
    Ok(([(CONTENT_TYPE, TEXT_0_0_4)], metrics.encode()?).into_response())
}

async fn endpoints(State(edge): State<Edge>) -> Response {
    Json(edge.endpoints()).into_response()
}
