//! `GET /v1/stream`: pushes a device's messages as server-sent events. The id of an event is the message's
//! number. A client resumes with `Last-Event-ID`, or with `since`, which `pull` takes as well.

use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::admission::ConnectionPermit;
use super::delivery::Delivery;
use super::http::{AuthenticatedClient, message_json};
use super::refusal::Refusal;
use super::{Listener, MessagesState};
use crate::http::{Failure, Rejection, RequestContext};

/// A comment is sent after this time without an event.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

pub(super) async fn stream(
    State(listener): State<Listener>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    AuthenticatedClient { identity, query }: AuthenticatedClient,
) -> Result<Response, Failure> {
    let since = match headers.get("last-event-id") {
        Some(id) => {
            let number = id.to_str().ok().and_then(|id| id.parse().ok());
            let malformed = || Rejection::bad_field("last_event_id", "not a message's number");
            Some(number.ok_or_else(malformed)?)
        }
        None => query.since,
    };
    let state = listener.state;
    let Some(permit) = state.acquire_connection(context.client().address) else {
        return Err(Failure::Busy { retry_after: Duration::from_secs(5) });
    };
    let delivery = Delivery::begin(&state, &identity, since, true).await;
    let delivery = delivery.map_err(|refusal| state.refuse(refusal))?;
    let drain = state.parts().lifecycle.drain_token();
    let stream = MessageStream { state, context, delivery, drain, _permit: permit };
    // A message is taken only when the connection is ready for it, so that it has not expired by then.
    let events = stream::unfold(Some(stream), |stream| async move {
        let mut stream = stream?;
        match stream.next().await {
            Ok(event) => Some((Ok::<_, Infallible>(event?), Some(stream))),
            Err(refusal) => Some((Ok(stream.failed(refusal)), None)),
        }
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE_INTERVAL);
    Ok(([("x-accel-buffering", "no")], Sse::new(events).keep_alive(keep_alive)).into_response())
}

/// The state of one stream.
struct MessageStream {
    state: MessagesState,
    context: RequestContext,
    delivery: Delivery,
    drain: CancellationToken,
    _permit: ConnectionPermit,
}

impl MessageStream {
    /// The next event; `None` when the relay shuts down. The client can resume after its last event.
    async fn next(&mut self) -> Result<Option<Event>, Refusal> {
        let message = loop {
            self.delivery.refill().await?;
            if let Some(message) = self.delivery.next() {
                break message;
            }
            if self.drain.run_until_cancelled(self.delivery.changed()).await.is_none() {
                return Ok(None);
            }
        };
        self.delivery.record_push(&message).await?;
        let event = Event::default().event("message").id(message.number.to_string());
        Ok(Some(event.data(message_json(&message).to_string())))
    }

    /// The last event of a stream that failed. Its data is the body that HTTP returns for the same error.
    fn failed(&self, refusal: Refusal) -> Event {
        let body = self.context.report(&self.state.refuse(refusal));
        Event::default().event("error").data(json!(body).to_string())
    }
}
