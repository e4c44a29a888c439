//! `GET /events`: journal entries as server-sent events, resumable and with bounded memory.
//!
//! One task per stream reads the journal at the stream's cursor and fills a short queue. A reader that leaves
//! the queue full is disconnected, and resumes with the id of the last entry that it received.
//!
//! | state | event | effect |
//! |---|---|---|
//! | no cursor: no tick existed at the start | first tick | `reset`, the cursor is that tick |
//! | at the cursor | new tick | entries up to the tick, page by page |
//! | at the cursor | the cursor's tick is no longer kept | `reset`, the cursor is the newest tick |
//! | any | totals changed, at most once a second | `totals` |
//! | any | 15 s without a frame | a comment with the cursor |
//! | any | queue full for 20 s, drain, reader gone, read error | the stream ends |

use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Query, State};
use axum::http::header::{HeaderMap, HeaderName};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc::{self, Sender};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::super::read::{self, Cursor, Page};
use super::super::{ConsoleState, FRAMES_WAITING_MAX, SLOW_READER_TIMEOUT};
use super::refuse_other_sites;
use super::status;
use crate::http::{Failure, Rejection, RequestContext};
use crate::lifecycle::{BoxError, guarded};
use crate::store::Error;

/// Time without a frame after which a comment is sent.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// `Retry-After` when all streams are in use or the database is unavailable.
const RETRY: Duration = Duration::from_secs(5);

#[derive(Debug, Deserialize)]
pub(super) struct Resume {
    last_event_id: Option<String>,
}

/// The header wins over the query: a browser that reconnects repeats the query unchanged.
fn resume(headers: &HeaderMap, query: Resume) -> Result<Option<Cursor>, Rejection> {
    let id = match headers.get("last-event-id") {
        Some(header) => Some(header.to_str().unwrap_or_default().to_owned()),
        None => query.last_event_id,
    };
    let malformed = || Rejection::bad_field("last_event_id", "not an event id of this stream: TICK-POSITION");
    id.map(|id| id.parse().map_err(|()| malformed())).transpose()
}

fn busy_or_broken(error: Error) -> Failure {
    if error.is_transient() { Failure::Busy { retry_after: RETRY } } else { error.into() }
}

pub(super) async fn events(
    State(state): State<ConsoleState>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    Query(query): Query<Resume>,
) -> Result<Response, Failure> {
    refuse_other_sites(&headers)?;
    let resumed = resume(&headers, query)?;
    let lifecycle = state.0.parts.lifecycle.clone();
    let drain = lifecycle.drain_token();
    let permit =
        state.0.streams.clone().try_acquire_owned().map_err(|_| Failure::Busy { retry_after: RETRY })?;
    if drain.is_cancelled() {
        return Err(Failure::Busy { retry_after: RETRY });
    }
    let newest =
        read::with_timeout(read::newest_tick(&state.0.parts.pools.read)).await.map_err(busy_or_broken)?;
    let (frames, queue) = mpsc::channel(FRAMES_WAITING_MAX);
    lifecycle.spawn("console stream", async move {
        let mut feed = Feed { state, frames, drain, cursor: resumed };
        if let Ok(Err(Ended(Some(error)))) = guarded("console_stream", "a reader", feed.run(newest)).await {
            feed.fail(error, &context);
        }
        drop(permit);
        Ok::<(), BoxError>(())
    });
    let frames = stream::unfold(queue, |mut queue| async move {
        let frame: Event = queue.recv().await?;
        Some((Ok::<_, Infallible>(frame), queue))
    });
    Ok(([(HeaderName::from_static("x-accel-buffering"), "no")], Sse::new(frames)).into_response())
}

/// Ends a stream: without an error the reader is gone or too slow, or the process drains; with an error the
/// database could not be read.
struct Ended(Option<Error>);

struct Feed {
    state: ConsoleState,
    frames: Sender<Event>,
    drain: CancellationToken,
    cursor: Option<Cursor>,
}

impl Feed {
    async fn run(&mut self, newest: Option<i64>) -> Result<(), Ended> {
        let mut ticks = self.state.0.newest_tick.subscribe();
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut totals = None;
        let mut last_sent = Instant::now();
        if self.cursor.is_none() {
            self.cursor = newest.map(Cursor::end_of);
            self.send_comment("from here on").await?;
        }
        let mut behind = true;
        loop {
            if behind && self.catch_up().await? {
                last_sent = Instant::now();
            }
            behind = false;
            tokio::select! {
                () = self.drain.cancelled() => return Ok(()),
                () = self.frames.closed() => return Ok(()),
                changed = ticks.changed() => behind = changed.is_ok(),
                () = sleep_until(last_sent + KEEP_ALIVE) => {
                    self.send_comment("quiet").await?;
                    last_sent = Instant::now();
                }
                _ = second.tick() => {
                    let current = status::totals(&self.state).await.map_err(|error| Ended(Some(error)))?;
                    if totals.as_ref() != Some(&current) {
                        self.send(Event::default().event("totals").json_data(&current)).await?;
                        totals = Some(current);
                        last_sent = Instant::now();
                    }
                }
            }
        }
    }

    /// Sends the entries after the cursor, page by page. Returns whether it sent anything.
    async fn catch_up(&mut self) -> Result<bool, Ended> {
        let pool = self.state.0.parts.pools.read.clone();
        let mut sent = false;
        loop {
            let Some(after) = self.cursor else {
                // No tick existed when the stream began, so nothing before the first tick is missed.
                let newest = read::newest_tick(&pool).await.map_err(|error| Ended(Some(error)))?;
                let Some(tick) = newest else { return Ok(sent) };
                return self.reset(tick).await.map(|()| true);
            };
            let page = read::with_timeout(read::entries_after(&pool, after)).await;
            match page.map_err(|error| Ended(Some(error)))? {
                Page::Entries { entries, reached, more } => {
                    for (cursor, entry) in entries {
                        let frame = Event::default().event("entry").id(cursor.to_string());
                        self.send(frame.json_data(&entry)).await?;
                        sent = true;
                    }
                    self.cursor = Some(reached);
                    if !more {
                        return Ok(sent);
                    }
                }
                Page::TickMissing => {
                    let newest = read::newest_tick(&pool).await.map_err(|error| Ended(Some(error)))?;
                    // Without any tick the cursor is kept; the first new tick differs from it and causes a
                    // reset.
                    let Some(tick) = newest else { return Ok(sent) };
                    self.reset(tick).await?;
                    sent = true;
                }
            }
        }
    }

    /// Tells the reader that entries were skipped, and continues after `tick`.
    async fn reset(&mut self, tick: i64) -> Result<(), Ended> {
        let cursor = Cursor::end_of(tick);
        self.cursor = Some(cursor);
        let frame = Event::default().event("reset").id(cursor.to_string());
        self.send(frame.json_data(json!({ "tick": tick }))).await
    }

    /// Sends a comment with the cursor as its id, so that a reader that was idle for long resumes at a tick
    /// that is still kept.
    async fn send_comment(&self, comment: &str) -> Result<(), Ended> {
        let frame = Event::default().comment(comment);
        self.send(Ok(match self.cursor {
            Some(cursor) => frame.id(cursor.to_string()),
            None => frame,
        }))
        .await
    }

    /// Sends the error as a last frame, if the queue has room. The reader reconnects by itself.
    fn fail(&self, error: Error, context: &RequestContext) {
        let body = context.report(&busy_or_broken(error));
        if let Ok(frame) = Event::default().event("failure").json_data(body) {
            let _ = self.frames.try_send(frame);
        }
    }

    async fn send(&self, frame: Result<Event, axum::Error>) -> Result<(), Ended> {
        let frame = frame.map_err(|error| Ended(Some(Error::inconsistent("journal", error.to_string()))))?;
        tokio::select! {
            sent = self.frames.send_timeout(frame, SLOW_READER_TIMEOUT) => sent.map_err(|_| Ended(None)),
            () = self.drain.cancelled() => Err(Ended(None)),
        }
    }
}
