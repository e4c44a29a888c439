//! `GET /v1/stream`: a device's messages as server-sent events. An event's id is the message's number, which `since` of a pull
//! and `Last-Event-ID` take alike.

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

use super::delivery::Delivery;
use super::gate::Admission;
use super::http::{Asked, entry};
use super::refused::Refused;
use super::{Listener, MessagesState};
use crate::http::{Failure, Rejection, RequestContext};

/// Silence after which a comment is sent.
const QUIET: Duration = Duration::from_secs(15);

pub(super) async fn stream(
    State(listener): State<Listener>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    Asked { who, asking }: Asked,
) -> Result<Response, Failure> {
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
    let delivery = Delivery::begin(&state, &who, since, true).await;
    let delivery = delivery.map_err(|refused| state.refuse(refused))?;
    let drain = state.parts().lifecycle.drain_token();
    let following = Following { state, context, delivery, drain, _admission: admission };
    // A message is taken when the connection is ready for it, so that it is not over by then.
    let events = stream::unfold(Some(following), |following| async move {
        let mut following = following?;
        match following.next().await {
            Ok(event) => Some((Ok::<_, Infallible>(event?), Some(following))),
            Err(refused) => Some((Ok(following.failed(refused)), None)),
        }
    });
    let alive = KeepAlive::new().interval(QUIET);
    Ok(([("x-accel-buffering", "no")], Sse::new(events).keep_alive(alive)).into_response())
}

/// A client's stream.
struct Following {
    state: MessagesState,
    context: RequestContext,
    delivery: Delivery,
    drain: CancellationToken,
    _admission: Admission,
}

impl Following {
    /// The next message; `None` when the relay stops. A client that resumes gets what this did not bring.
    async fn next(&mut self) -> Result<Option<Event>, Refused> {
        let message = loop {
            self.delivery.refill().await?;
            if let Some(message) = self.delivery.next() {
                break message;
            }
            if self.drain.run_until_cancelled(self.delivery.woken()).await.is_none() {
                return Ok(None);
            }
        };
        self.delivery.handed_over_for_good(&message).await?;
        let event = Event::default().event("message").id(message.number.to_string());
        Ok(Some(event.data(entry(&message).to_string())))
    }

    /// The last event of a stream that cannot go on, with the body that an error has over HTTP.
    fn failed(&self, refused: Refused) -> Event {
        let body = self.context.report(&self.state.refuse(refused));
        Event::default().event("error").data(json!(body).to_string())
    }
}
