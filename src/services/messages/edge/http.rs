//! The socket's twins for clients without a `WebSocket`, and the original's pages for machines.

use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Listener;
use super::desk::{Letter, Who};
use super::frame::for_recipient;
use super::socket::told;
use crate::http::{Failure, Rejection, RequestContext, Verdict};
use crate::services::messages::event::{Generation, Message};

/// Most messages in one answer.
const PULL_MAX: i64 = 1_000;

/// Sweeps that may fail in a row, and the seconds that one may take, before the sweeper counts as stalled.
const SWEEPS_MISSED: i64 = 3;
const SWEEP_S: i64 = 60;

/// What a request says beside its body. Who it is comes from the token, or is believed on loopback addresses.
#[derive(Debug, Deserialize)]
pub(super) struct Asking {
    wayfarer_id: Option<String>,
    device_id: Option<String>,
    pub(super) since: Option<i64>,
    limit: Option<i64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Sending {
    #[serde(default)]
    to: String,
    #[serde(default)]
    payload_b64: String,
    ttl_seconds: Option<i64>,
    client_msg_id: Option<String>,
}

/// A client that has proven who it is, and what its URL asks. Extracted before the body: nothing is read of the body of a client that
/// has not.
pub(super) struct Asked {
    pub(super) who: Who,
    pub(super) asking: Asking,
}

impl FromRequestParts<Listener> for Asked {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, listener: &Listener) -> Result<Self, Response> {
        let asking = Query::<Asking>::from_request_parts(parts, listener).await;
        let Query(asking) = asking.map_err(IntoResponse::into_response)?;
        let context = Extension::<RequestContext>::from_request_parts(parts, listener).await;
        let Extension(context) = context.map_err(IntoResponse::into_response)?;
        let who =
            listener.who(&parts.headers, &context, &asking).await.map_err(IntoResponse::into_response)?;
        Ok(Self { who, asking })
    }
}

impl Listener {
    /// Who asks.
    async fn who(
        &self,
        headers: &HeaderMap,
        context: &RequestContext,
        asking: &Asking,
    ) -> Result<Who, Failure> {
        self.check_origin(headers)?;
        let visitor = self.visitor(headers, context.client()).await?;
        let token = visitor.token.as_ref();
        let wayfarer_id = asking.wayfarer_id.clone().or_else(|| token.map(|t| t.wayfarer_id.clone()));
        let device = asking.device_id.clone().or_else(|| token.and_then(|t| t.device.clone()));
        let unproven = || {
            Rejection::new(StatusCode::UNAUTHORIZED, "prove who you are: a bearer token")
                .field("authorization")
        };
        let wayfarer_id = wayfarer_id.ok_or_else(unproven)?;
        let who = Who { wayfarer_id, device: device.unwrap_or_default(), generation: Generation::Two };
        visitor.identify(&who).map_err(|refused| self.state.refuse(refused))?.ok_or_else(unproven)?;
        Ok(who)
    }
}

/// A message as JSON.
pub(super) fn entry(message: &Message) -> Value {
    json!({
        "position": message.number,
        "msg_id": message.msg_id,
        "from": message.sender,
        "payload_b64": for_recipient(&message.payload, message.generation, Generation::Two),
        "received_at": message.received_at,
        "expires_at": message.expires_at,
    })
}

pub(super) async fn send(
    State(listener): State<Listener>,
    Asked { who, .. }: Asked,
    Json(sending): Json<Sending>,
) -> Result<Response, Failure> {
    let Sending { to, payload_b64, ttl_seconds, client_msg_id } = sending;
    let letter = Letter { to, payload: payload_b64, ttl_s: ttl_seconds, client_msg_id };
    let accepted =
        listener.state.send(&who, letter).await.map_err(|refused| listener.state.refuse(refused))?;
    let status = if accepted.is_repeated { StatusCode::OK } else { StatusCode::CREATED };
    let body = json!({
        "msg_id": accepted.msg_id, "received_at": accepted.received_at, "expires_at": accepted.expires_at,
    });
    Ok((status, Json(body)).into_response())
}

pub(super) async fn pull(
    State(listener): State<Listener>,
    Asked { who, asking }: Asked,
) -> Result<Json<Value>, Failure> {
    let mut page = listener
        .state
        .pull(&who, asking.since, asking.limit, PULL_MAX)
        .await
        .map_err(|refused| listener.state.refuse(refused))?;
    listener.state.leave_out_what_is_over(&mut page.messages);
    let entries: Vec<Value> = page.messages.iter().map(entry).collect();
    if entries.is_empty() && asking.since.is_none() {
        // Everything is acknowledged: the next one need not look at it.
        listener.state.move_position(&who).await;
    }
    Ok(Json(json!({ "messages": entries, "next": page.read_to, "more": page.has_more })))
}

pub(super) async fn acknowledge(
    State(listener): State<Listener>,
    Path(msg_id): Path<String>,
    Asked { who, .. }: Asked,
) -> Result<Json<Value>, Failure> {
    listener.state.check_shown(&who).await.map_err(|refused| listener.state.refuse(refused))?;
    listener
        .state
        .acknowledge(&who, &msg_id, None)
        .await
        .map_err(|refused| listener.state.refuse(refused))?;
    Ok(Json(json!({ "msg_id": msg_id })))
}

pub(super) async fn life(
    State(listener): State<Listener>,
    Path(msg_id): Path<String>,
    Asked { who, .. }: Asked,
) -> Result<Json<Value>, Failure> {
    let life = listener.state.life(&who, &msg_id).await.map_err(|refused| listener.state.refuse(refused))?;
    Ok(Json(told(&msg_id, &life)))
}

/// The original's words: `ok`, `store unhealthy`, `sweeper stalled`.
pub(super) async fn healthz(State(listener): State<Listener>) -> Response {
    let (status, word) = health(&listener);
    (status, Extension(Verdict), word).into_response()
}

fn health(listener: &Listener) -> (StatusCode, &'static str) {
    let parts = listener.state.parts();
    let (swept_at, store_answers) = parts.counted.sweep();
    if !store_answers {
        return (StatusCode::SERVICE_UNAVAILABLE, "store unhealthy");
    }
    let interval = i64::from(parts.settings.sweep_interval_s.get());
    let late = parts.clock.now().timestamp() - swept_at;
    if late > SWEEPS_MISSED * interval + SWEEP_S {
        return (StatusCode::SERVICE_UNAVAILABLE, "sweeper stalled");
    }
    (StatusCode::OK, "ok")
}

pub(super) async fn metrics(State(listener): State<Listener>) -> Result<Response, Failure> {
    let text = listener.state.parts().metrics.encode()?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}
