//! Keeps the lease of a job: heartbeats, and what they say.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::super::client::{Server, Trouble};
use super::super::resend::patiently;
use super::super::transfer::Claimed;

/// Time after which progress is sent before a heartbeat is due: the server records it at most every 10 s.
const PROGRESS_PAUSE: Duration = Duration::from_millis(10_500);

/// Pause before a heartbeat that failed is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// Time limit for the answer to a heartbeat.
const BEAT_WITHIN: Duration = Duration::from_secs(10);

/// Why a lease is not kept any longer.
#[derive(Debug)]
pub(super) enum Lost {
    /// The server says so, with the reason as a word: `cancelled`, `lease_expired` and others.
    Told(String),
    /// The server could not be asked until its end.
    Over,
    /// The credential is refused.
    Refused(Trouble),
}

/// A lease that this worker holds.
#[derive(Debug)]
pub(super) struct Lease<'a> {
    server: &'a Server,
    claimed: &'a Claimed,
    length: Duration,
    heartbeat: Duration,
    /// Until when the lease lasts at least: from when the last request that renewed it was sent.
    until: Instant,
    /// When the last heartbeat was sent.
    beat_at: Instant,
    /// The newest progress, if the server has not recorded it.
    unrecorded: Option<Value>,
    /// When progress was last sent, or the lease was taken.
    offered_at: Instant,
}

impl<'a> Lease<'a> {
    /// A lease that was taken by a request that was sent at `sent_at`.
    pub(super) fn new(
        server: &'a Server,
        claimed: &'a Claimed,
        length: Duration,
        heartbeat: Duration,
        sent_at: Instant,
    ) -> Self {
        let until = sent_at + length;
        let (beat_at, offered_at, unrecorded) = (sent_at, sent_at, None);
        Self { server, claimed, length, heartbeat, until, beat_at, unrecorded, offered_at }
    }

    /// Renews the lease until it is lost. May be dropped and called again.
    pub(super) async fn keep(&mut self, progress: &mut watch::Receiver<Option<Value>>) -> Lost {
        let mut due = self.beat_at + self.heartbeat;
        // After progress that the server refuses, the lease is renewed without any.
        let mut is_plain = false;
        loop {
            let next = match &self.unrecorded {
                Some(_) => due.min(self.offered_at + PROGRESS_PAUSE),
                None => due,
            };
            tokio::select! {
                () = sleep_until(next.min(self.until)) => {}
                Ok(()) = progress.changed(), if !is_plain => {
                    self.unrecorded.clone_from(&progress.borrow_and_update());
                    continue;
                }
            }
            let sent_at = Instant::now();
            if sent_at >= self.until {
                return Lost::Over;
            }
            self.beat_at = sent_at;
            match timeout(self.until - sent_at, self.beat()).await {
                Ok(Ok(is_recorded)) => {
                    self.until = sent_at + self.length;
                    is_plain = false;
                    due = sent_at + self.heartbeat;
                    self.offered_at = sent_at;
                    if is_recorded {
                        self.unrecorded = None;
                    }
                }
                Ok(Err(trouble)) => match trouble.refusal() {
                    Some((404 | 409, code)) => return Lost::Told(code.to_owned()),
                    Some((401 | 403, _)) => return Lost::Refused(trouble),
                    _ => {
                        tracing::warn!("heartbeat of job {}: {trouble}", self.claimed.job);
                        due = Instant::now() + AGAIN.min(self.heartbeat);
                        self.offered_at = Instant::now();
                        if self.unrecorded.is_some() && matches!(trouble.refusal(), Some((400, _))) {
                            // The server cannot take this progress, and renews nothing with it.
                            self.unrecorded = None;
                            is_plain = true;
                            due = Instant::now();
                        }
                    }
                },
                Err(_) => return Lost::Over,
            }
        }
    }

    /// Renews the lease. Returns whether the server recorded it, and with it the progress.
    async fn beat(&self) -> Result<bool, Trouble> {
        let mut body = self.proof();
        if let Some(progress) = &self.unrecorded {
            body["progress"] = progress.clone();
        }
        let job = self.claimed.job.to_string();
        let path = ["api", "jobs", job.as_str(), "heartbeat"];
        let answer = self.server.post_within(&path, &body, BEAT_WITHIN).await?;
        Ok(answer["recorded"] != false)
    }

    /// The members of every request about the lease.
    fn proof(&self) -> Value {
        json!({ "worker_id": self.claimed.worker, "lease_token": self.claimed.lease_token })
    }

    /// Reports the end of the work: `complete`, `fail` or `release`, with further members. The server answers a
    /// repeated report as the first one, so it is sent again until it is answered, for at most `within` longer
    /// than the lease. Returns the answer, or why it is refused; `None` without an answer.
    pub(super) async fn report(
        &self,
        verb: &str,
        members: Value,
        within: Duration,
    ) -> Option<Result<Value, Trouble>> {
        let mut body = self.proof();
        if let (Value::Object(body), Value::Object(members)) = (&mut body, members) {
            body.extend(members);
        }
        let job = self.claimed.job.to_string();
        let path = ["api", "jobs", job.as_str(), verb];
        let sending = patiently(|| self.server.post(&path, &body));
        timeout(within, sending).await.ok()
    }

    /// The time that is left of the lease.
    pub(super) fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}
