//! Applies a time limit to the body of a request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

/// Whether the time limit of a body has passed. Clones share the state of one body.
#[derive(Debug, Clone, Default)]
pub(super) struct TimeLimit(Arc<AtomicBool>);

impl TimeLimit {
    /// Whether the limit passed before the body was complete.
    pub(super) fn has_passed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Wraps `body` so that it fails if it is not complete after `limit`.
    pub(super) fn apply(&self, body: Body, limit: Duration) -> Body {
        self.limited(body, limit, None)
    }

    /// Wraps `body` so that it fails if nothing of it arrives for `limit`.
    pub(super) fn apply_between(&self, body: Body, limit: Duration) -> Body {
        self.limited(body, limit, Some(limit))
    }

    fn limited(&self, body: Body, limit: Duration, between: Option<Duration>) -> Body {
        if body.is_end_stream() {
            return body;
        }
        Body::new(Limited { body, until: Box::pin(sleep(limit)), between, limit: self.clone() })
    }
}

struct Limited {
    body: Body,
    until: Pin<Box<Sleep>>,
    /// Time until the next piece; with `None` the limit is that of the whole body.
    between: Option<Duration>,
    limit: TimeLimit,
}

impl http_body::Body for Limited {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // A piece that arrived while the room was busy with the one before is not late.
        if let Some(between) = self.between {
            let frame = Pin::new(&mut self.body).poll_frame(context);
            if let Poll::Ready(Some(Ok(_))) = &frame {
                self.until.as_mut().reset(Instant::now() + between);
            }
            if frame.is_ready() {
                return frame;
            }
        }
        if self.until.as_mut().poll(context).is_ready() {
            self.limit.0.store(true, Ordering::Relaxed);
            return Poll::Ready(Some(Err(axum::Error::new(io::Error::from(io::ErrorKind::TimedOut)))));
        }
        if self.between.is_some() { Poll::Pending } else { Pin::new(&mut self.body).poll_frame(context) }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
