//! Totals, health, and what the client is known as.

use axum::extract::{FromRequestParts as _, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::JobsState;
use super::access::Client;
use crate::http::{ExpectedStatus, Failure};
use crate::services::jobs::decide::{Actor, Scope};
use crate::services::jobs::read;

pub(super) async fn stats(State(state): State<JobsState>, client: Client) -> Result<Json<Value>, Failure> {
    let answer = async {
        client.require(Scope::Read)?;
        let totals = read::stats(&state.parts().pools.session).await?;
        Ok(json!({
            "total_jobs": totals.jobs(None),
            "pending_jobs": totals.jobs(Some("pending")),
            "running_jobs": totals.jobs(Some("running")),
            "completed_jobs": totals.jobs(Some("completed")),
            "failed_jobs": totals.jobs(Some("failed")),
            "dead_jobs": totals.jobs(Some("dead")),
            "total_workers": totals.workers.all,
            "online_workers": totals.workers.online,
            "offline_workers": totals.workers.offline,
            "waiting_jobs": totals.jobs(Some("waiting")),
            "cancelled_jobs": totals.jobs(Some("cancelled")),
        }))
    };
    state.json(answer).await
}

pub(super) async fn health(State(state): State<JobsState>) -> Response {
    let is_healthy = state.parts().health.liveness().is_healthy;
    let (status, word) =
        if is_healthy { (StatusCode::OK, "healthy") } else { (StatusCode::SERVICE_UNAVAILABLE, "unhealthy") };
    (status, Extension(ExpectedStatus), Json(json!({ "status": word }))).into_response()
}

/// Who the client is, without an error for a stranger.
pub(super) async fn auth_info(State(state): State<JobsState>, request: Request) -> Json<Value> {
    let (mut parts, _) = request.into_parts();
    Json(match Client::from_request_parts(&mut parts, &state).await {
        Err(_) => json!({ "authenticated": false, "oidc_enabled": state.parts().login.is_some() }),
        Ok(client) => {
            if let Some(own) = &client.session {
                let user = json!({
                    "id": own.subject, "name": own.name.as_ref().unwrap_or(&own.label), "email": own.email,
                    "groups": own.groups, "is_admin": own.is_admin, "expires_at": own.expires_at,
                });
                return Json(json!({ "authenticated": true, "user": user }));
            }
            let (name, is_admin) = match &client.actor {
                Actor::Token { name, is_admin, .. } => (name.as_str(), *is_admin),
                Actor::User { label, is_admin } => (label.as_str(), *is_admin),
                Actor::Worker { id } => (id.as_str(), false),
                Actor::Local => ("local", false),
            };
            json!({ "authenticated": true, "user": { "name": name, "is_admin": is_admin } })
        }
    })
}
