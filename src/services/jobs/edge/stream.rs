//! `GET /events`: what happens to jobs and workers, as server-sent events. It goes on at the entry that
//! `Last-Event-ID` names, at every process of the database.
//!
//! | state | event | effect |
//! |---|---|---|
//! | begun | - | `ping` with `connected` |
//! | at its place | newer snapshot | the entries in between |
//! | at its place | more than 10,000 entries in between, an id of another era, one that lies ahead, or one more than 100,000 transactions old | `reset`, then from the newest snapshot on |
//! | any | 25 s without a frame | `ping` with `keepalive` |
//! | any | 25 s | the credential is checked again |
//! | any | queue full for 20 s, drain, reader gone, read error, credential revoked | the stream ends |

use std::cmp::Ordering;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::HeaderName;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, Sender};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::JobsState;
use super::access::Client;
use super::refusal::{RETRY_AFTER, Refused};
use crate::http::{Failure, RequestContext};
use crate::lifecycle::{BoxError, guarded};
use crate::services::jobs::decide::{Scope, StreamCursor};
use crate::services::jobs::read::{StreamEntry, StreamPage, entries, newest_snapshot};

/// Time without a frame after which `ping` is sent.
const KEEP_ALIVE: Duration = Duration::from_secs(25);

/// Time after which the credential is checked again, whatever is sent meanwhile: sessions and tokens end.
const CREDENTIAL_CHECK: Duration = Duration::from_secs(25);

/// Frames queued for a slow reader.
const FRAMES_QUEUED_MAX: usize = 32;

/// Time for which the queue of a reader may stay full before the stream ends. The reader can resume.
const SLOW_READER_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) async fn events(
    State(state): State<JobsState>,
    Extension(context): Extension<RequestContext>,
    client: Client,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let begun = begin(&state, &client, &headers).await;
    let cursor = begun.map_err(|refused| state.refuse(refused))?;
    let permit = state.0.streams.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Failure::Busy { retry_after: RETRY_AFTER })?;
    let lifecycle = state.parts().lifecycle.clone();
    let drain = lifecycle.drain_token();
    let newest = state.parts().newest.clone();
    let (frames, queue) = mpsc::channel(FRAMES_QUEUED_MAX);
    lifecycle.spawn("jobs stream", async move {
        state.parts().metrics.stream_began();
        let mut feed = Feed { state: state.clone(), client, frames, newest, drain, cursor };
        if let Ok(Err(Ended(Some(refused)))) = guarded("jobs_stream", "a reader", feed.run()).await {
            feed.fail(refused, &context);
        }
        state.parts().metrics.stream_ended();
        drop(permit);
        Ok::<(), BoxError>(())
    });
    let frames = stream::unfold(queue, |mut queue| async move {
        let frame: Event = queue.recv().await?;
        Some((Ok::<_, Infallible>(frame), queue))
    });
    Ok(([(HeaderName::from_static("x-accel-buffering"), "no")], Sse::new(frames)).into_response())
}

/// Where the stream begins: at the id that the reader names, or now.
async fn begin(state: &JobsState, client: &Client, headers: &HeaderMap) -> Result<StreamCursor, Refused> {
    client.require(Scope::Read)?;
    if let Some(id) = headers.get("last-event-id") {
        let cursor = id.to_str().ok().and_then(|id| id.parse().ok());
        cursor.ok_or_else(|| Refused::field("last_event_id", "is not an event id of this stream"))
    } else {
        let (era, snapshot) = newest_snapshot(&state.parts().pools.session).await?;
        Ok(StreamCursor::after(era, snapshot))
    }
}

/// Ends a stream: without a refusal the reader is gone or too slow, or the process drains.
struct Ended(Option<Refused>);

impl From<crate::store::Error> for Ended {
    fn from(error: crate::store::Error) -> Self {
        Self(Some(error.into()))
    }
}

struct Feed {
    state: JobsState,
    client: Client,
    frames: Sender<Event>,
    newest: watch::Receiver<Option<(i32, Arc<str>)>>,
    drain: CancellationToken,
    cursor: StreamCursor,
}

impl Feed {
    async fn run(&mut self) -> Result<(), Ended> {
        self.send(Event::default().event("ping").data("connected")).await?;
        let (era, snapshot) = newest_snapshot(&self.state.parts().pools.session).await?;
        let is_ahead = self.cursor.compare(&snapshot) == Ordering::Greater;
        if self.cursor.era == era && (is_ahead || self.cursor.is_far_behind(&snapshot)) {
            // The database was set back, or the id is very old or made up.
            self.reset(era, &snapshot).await?;
        } else {
            self.go_to(era, &snapshot).await?;
        }
        let (mut last_sent, mut last_checked) = (Instant::now(), Instant::now());
        loop {
            tokio::select! {
                () = self.drain.cancelled() => return Ok(()),
                () = self.frames.closed() => return Ok(()),
                changed = self.newest.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let newest = self.newest.borrow_and_update().clone();
                    if let Some((era, snapshot)) = newest
                        && self.go_to(era, &snapshot).await?
                    {
                        last_sent = Instant::now();
                    }
                }
                () = sleep_until(last_checked + CREDENTIAL_CHECK) => {
                    self.check_credential().await?;
                    last_checked = Instant::now();
                }
                () = sleep_until(last_sent + KEEP_ALIVE) => {
                    let id = self.cursor.to_string();
                    self.send(Event::default().event("ping").id(id).data("keepalive")).await?;
                    last_sent = Instant::now();
                }
            }
        }
    }

    /// Sends the entries up to a snapshot. Returns whether it sent anything.
    async fn go_to(&mut self, era: i32, snapshot: &str) -> Result<bool, Ended> {
        // What was read within another pair of snapshots is read to the end of that pair first.
        if let Some((to, _)) = self.cursor.within.clone()
            && self.cursor.era == era
        {
            let sent = self.read_to(era, &to).await?;
            return Ok(Box::pin(self.go_to(era, snapshot)).await? || sent);
        }
        if self.cursor.era != era {
            self.reset(era, snapshot).await?;
            return Ok(true);
        }
        self.read_to(era, snapshot).await
    }

    async fn read_to(&mut self, era: i32, to: &str) -> Result<bool, Ended> {
        // The snapshot that is read for all streams may be older than this stream.
        if self.cursor.within.is_none() && self.cursor.compare(to) != Ordering::Less {
            return Ok(false);
        }
        let page = entries(&self.state.parts().pools.session, &self.cursor, to).await?;
        let StreamPage::Entries(entries) = page else {
            self.reset(era, to).await?;
            return Ok(true);
        };
        let after = StreamCursor::after(era, to);
        let (last, mut sent) = (entries.len().saturating_sub(1), false);
        for (place, entry) in entries.iter().enumerate() {
            let Some((name, data)) = frame(entry) else { continue };
            let within = Some((to.to_owned(), entry.position));
            let id =
                if place == last { after.clone() } else { StreamCursor { within, ..self.cursor.clone() } };
            let data = json!({ "type": name, "data": data });
            self.send(Event::default().event(name).id(id.to_string()).data(data.to_string())).await?;
            sent = true;
        }
        self.cursor = after;
        Ok(sent)
    }

    /// Tells the reader that entries were skipped, and goes on after `snapshot`.
    async fn reset(&mut self, era: i32, snapshot: &str) -> Result<(), Ended> {
        self.cursor = StreamCursor::after(era, snapshot);
        let data = json!({ "type": "reset", "data": {} });
        let frame = Event::default().event("reset").id(self.cursor.to_string());
        self.send(frame.data(data.to_string())).await
    }

    /// Ends the stream of a reader whose credential was revoked or has expired.
    async fn check_credential(&self) -> Result<(), Ended> {
        let Some(sha256) = self.client.credential else { return Ok(()) };
        match self.state.credential(sha256).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(Ended(Some(Refused::unauthorized()))),
            Err(refused) => Err(Ended(Some(refused))),
        }
    }

    /// Sends the refusal as a last frame, if the queue has room. The reader reconnects by itself.
    fn fail(&self, refused: Refused, context: &RequestContext) {
        let body = context.report(&self.state.refuse(refused));
        if let Ok(frame) = Event::default().event("failure").json_data(body) {
            let _ = self.frames.try_send(frame);
        }
    }

    async fn send(&self, frame: Event) -> Result<(), Ended> {
        tokio::select! {
            sent = self.frames.send_timeout(frame, SLOW_READER_TIMEOUT) => sent.map_err(|_| Ended(None)),
            () = self.drain.cancelled() => Err(Ended(None)),
        }
    }
}

/// Name and data of an entry's event, with the names of the original; `None` for an entry without one.
fn frame(entry: &StreamEntry) -> Option<(&'static str, Value)> {
    let status = &entry.status;
    if let Some(event) = entry.kind.strip_prefix("worker_") {
        let data = json!({ "worker_id": entry.worker, "status": status });
        let is_gone = matches!(event, "unregistered" | "lost" | "created");
        // As in the original, a worker that is draining or was removed is announced as online, with that status.
        return Some((if is_gone { "worker_offline" } else { "worker_online" }, data));
    }
    let job = entry.job?;
    Some(match entry.kind.as_str() {
        "submitted" => ("job_created", json!({ "job_id": job, "type": entry.job_type })),
        "completed" => ("job_completed", json!({ "job_id": job })),
        "failed" => ("job_failed", json!({ "job_id": job, "error": entry.why, "status": status })),
        _ => ("job_updated", json!({ "job_id": job, "status": status })),
    })
}
