//! `GET /v1/stream`: a device's messages as server-sent events. An event's id is the message's number, which `since` of a pull
//! and `Last-Event-ID` take alike.

use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use super::Listener;
use super::delivery::Delivery;
use super::gate::failure;
use super::http::{Asking, entry};
use crate::http::{Failure, Rejection, RequestContext};

/// Silence after which a comment is sent.
const QUIET: Duration = Duration::from_secs(15);

pub(super) async fn stream(
    State(listener): State<Listener>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    Query(asking): Query<Asking>,
) -> Result<Response, Failure> {
    let who = listener.who(&headers, &context, &asking).await?;
    let since = match headers.get("last-event-id") {
        Some(id) => {
            let number = id.to_str().ok().and_then(|id| id.parse().ok());
            let malformed = || Rejection::bad_field("last_event_id", "not a message's number");
            Some(number.ok_or_else(malformed)?)
        }
        None => asking.since,
    };
    let state = listener.state;
    let Some(admission) = state.admit(context.client().address) else {
        return Err(Failure::Busy { retry_after: Duration::from_secs(5) });
    };
    let delivery = Delivery::begin(&state, &who, since, true).await.map_err(failure)?;
    let drain = state.parts().lifecycle.drain_token();
    // A message is taken when the connection is ready for it, so that it is not over by then.
    let events =
        stream::unfold((delivery, admission, drain), |(mut delivery, admission, drain)| async move {
            let message = loop {
                // Whoever resumes finds what this did not bring.
                delivery.refill().await.ok()?;
                if let Some(message) = delivery.next() {
                    break message;
                }
                drain.run_until_cancelled(delivery.woken()).await?;
            };
            delivery.handed_over_for_good(&message).await.ok()?;
            let event = Event::default().event("message").id(message.number.to_string());
            let event = event.json_data(entry(&message)).ok()?;
            Some((Ok::<_, Infallible>(event), (delivery, admission, drain)))
        });
    let alive = KeepAlive::new().interval(QUIET);
    Ok(([("x-accel-buffering", "no")], Sse::new(events).keep_alive(alive)).into_response())
}
