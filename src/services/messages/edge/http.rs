//! The requests of the socket over HTTP, and the health and metrics endpoints of aethos-relay.

use axum::extract::{FromRequestParts, Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Listener;
use super::admission::ClaimCheck;
use super::frame::for_recipient;
use super::requests::{Identity, STATUS_DEVICES_MAX, SendRequest};
use crate::http::{ExpectedStatus, Failure, Rejection, RequestContext, StrictQuery};
use crate::services::messages::event::{Generation, Message, MessageStatus};

/// Most messages in one answer to `GET /v1/messages`.
const PULL_MAX: i64 = 1_000;

/// The sweeper counts as stalled when its last success is older than this many sweep intervals plus this many
/// seconds, which one sweep may take.
const MISSED_SWEEPS_MAX: i64 = 3;
const SWEEP_DURATION_MAX_S: i64 = 60;

/// The query of a request. A listener that trusts claims takes the identity from it; otherwise the token
/// decides.
#[derive(Debug, Deserialize)]
pub(super) struct RequestQuery {
    wayfarer_id: Option<String>,
    device_id: Option<String>,
    pub(super) since: Option<i64>,
    limit: Option<i64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct SendBody {
    #[serde(default)]
    to: String,
    #[serde(default)]
    payload_b64: String,
    ttl_seconds: Option<i64>,
    client_msg_id: Option<String>,
}

/// The proven identity of a client, and the query of its request. Extracted before the body, so that the body
/// of an unproven client is not read.
pub(super) struct AuthenticatedClient {
    pub(super) identity: Identity,
    pub(super) query: RequestQuery,
}

impl FromRequestParts<Listener> for AuthenticatedClient {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, listener: &Listener) -> Result<Self, Response> {
        let StrictQuery(query) = StrictQuery::<RequestQuery>::from_request_parts(parts, listener).await?;
        let context = Extension::<RequestContext>::from_request_parts(parts, listener).await;
        let Extension(context) = context.map_err(IntoResponse::into_response)?;
        let identity = listener
            .authenticate(&parts.headers, &context, &query)
            .await
            .map_err(IntoResponse::into_response)?;
        Ok(Self { identity, query })
    }
}

impl Listener {
    /// Authenticates a request.
    async fn authenticate(
        &self,
        headers: &HeaderMap,
        context: &RequestContext,
        query: &RequestQuery,
    ) -> Result<Identity, Failure> {
        self.check_origin(headers)?;
        let credentials = self.credentials(headers, context.client()).await?;
        let token = credentials.token.as_ref();
        let wayfarer_id = query.wayfarer_id.clone().or_else(|| token.map(|t| t.wayfarer_id.clone()));
        let device = query.device_id.clone().or_else(|| token.and_then(|t| t.device.clone()));
        let unproven = || {
            Rejection::new(StatusCode::UNAUTHORIZED, "identity not proven: send a bearer token")
                .field("authorization")
        };
        let wayfarer_id = wayfarer_id.ok_or_else(unproven)?;
        let identity =
            Identity { wayfarer_id, device: device.unwrap_or_default(), generation: Generation::Two };
        match credentials.check_claim(&identity).map_err(|refusal| self.state.refuse(refusal))? {
            ClaimCheck::Accepted => Ok(identity),
            ClaimCheck::NeedsProof => Err(unproven().into()),
        }
    }
}

/// A message in the JSON form of HTTP and of event streams.
pub(super) fn message_json(message: &Message) -> Value {
    json!({
        "position": message.number,
        "msg_id": message.msg_id,
        "from": message.sender,
        "payload_b64": for_recipient(&message.payload, message.generation, Generation::Two),
        "received_at": message.received_at,
        "expires_at": message.expires_at,
    })
}

/// The status of a message as JSON.
pub(in crate::services::messages::edge) fn status_json(msg_id: &str, status: &MessageStatus) -> Value {
    let devices: Vec<Value> = status
        .devices
        .iter()
        .map(|d| json!({ "device_id": d.device, "pushed_at": d.pushed_at, "acknowledged_at": d.acknowledged_at }))
        .collect();
    let mut body = json!({
        "type": "status", "msg_id": msg_id, "accepted_at": status.accepted_at, "expires_at": status.expires_at,
        "expired": status.is_expired, "devices": devices,
    });
    if status.has_more_devices {
        body["more_devices"] = true.into();
        body["devices_max"] = STATUS_DEVICES_MAX.into();
    }
    body
}

pub(super) async fn send(
    State(listener): State<Listener>,
    AuthenticatedClient { identity, .. }: AuthenticatedClient,
    Json(body): Json<SendBody>,
) -> Result<Response, Failure> {
    let SendBody { to, payload_b64, ttl_seconds, client_msg_id } = body;
    let request = SendRequest { to, payload: payload_b64, ttl_s: ttl_seconds, client_msg_id };
    let accepted =
        listener.state.send(&identity, request).await.map_err(|refusal| listener.state.refuse(refusal))?;
    let status = if accepted.is_repeated { StatusCode::OK } else { StatusCode::CREATED };
    let body = json!({
        "msg_id": accepted.msg_id, "received_at": accepted.received_at, "expires_at": accepted.expires_at,
    });
    Ok((status, Json(body)).into_response())
}

pub(super) async fn pull(
    State(listener): State<Listener>,
    AuthenticatedClient { identity, query }: AuthenticatedClient,
) -> Result<Json<Value>, Failure> {
    let mut page = listener
        .state
        .pull(&identity, query.since, query.limit, PULL_MAX)
        .await
        .map_err(|refusal| listener.state.refuse(refusal))?;
    listener.state.remove_expired(&mut page.messages);
    let messages: Vec<Value> = page.messages.iter().map(message_json).collect();
    if messages.is_empty() && query.since.is_none() {
        // Every message is acknowledged, so later reads can begin after them.
        listener.state.move_position(&identity).await;
    }
    Ok(Json(json!({ "messages": messages, "next": page.read_to, "more": page.has_more })))
}

pub(super) async fn acknowledge(
    State(listener): State<Listener>,
    Path(msg_id): Path<String>,
    AuthenticatedClient { identity, .. }: AuthenticatedClient,
) -> Result<Json<Value>, Failure> {
    listener.state.check_registered(&identity).await.map_err(|refusal| listener.state.refuse(refusal))?;
    listener
        .state
        .acknowledge(&identity, &msg_id, None)
        .await
        .map_err(|refusal| listener.state.refuse(refusal))?;
    Ok(Json(json!({ "msg_id": msg_id })))
}

pub(super) async fn message_status(
    State(listener): State<Listener>,
    Path(msg_id): Path<String>,
    AuthenticatedClient { identity, .. }: AuthenticatedClient,
) -> Result<Json<Value>, Failure> {
    let status = listener
        .state
        .message_status(&identity, &msg_id)
        .await
        .map_err(|refusal| listener.state.refuse(refusal))?;
    Ok(Json(status_json(&msg_id, &status)))
}

/// Answers as aethos-relay does: `ok`, `store unhealthy` or `sweeper stalled`.
pub(super) async fn healthz(State(listener): State<Listener>) -> Response {
    let (status, text) = health(&listener);
    (status, Extension(ExpectedStatus), text).into_response()
}

fn health(listener: &Listener) -> (StatusCode, &'static str) {
    let parts = listener.state.parts();
    let (swept_at, store_answers) = parts.message_metrics.sweep();
    if !store_answers {
        return (StatusCode::SERVICE_UNAVAILABLE, "store unhealthy");
    }
    let interval = i64::from(parts.settings.sweep_interval_s.get());
    let since_success_s = parts.clock.now().timestamp() - swept_at;
    if since_success_s > MISSED_SWEEPS_MAX * interval + SWEEP_DURATION_MAX_S {
        return (StatusCode::SERVICE_UNAVAILABLE, "sweeper stalled");
    }
    (StatusCode::OK, "ok")
}

pub(super) async fn metrics(State(listener): State<Listener>) -> Result<Response, Failure> {
    let text = listener.state.parts().metrics.encode()?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}
