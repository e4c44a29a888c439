//! Hints: "something was written", for speed only. Polling is the truth.
//!
//! NOTIFY is never sent inside a transaction that writes (its cluster-wide lock would be held through the
//! fsync). One notifier a process sends a coalesced hint after commits.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_postgres::Pool;
use sqlx::postgres::{PgListener, PgPool};
use tokio::sync::broadcast;
use tokio_postgres::types::Type;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::lifecycle::Wake;

/// The channel that all Quipu processes of one database share.
const CHANNEL: &str = "quipu";

/// Hints leave at most this often; what is written in between shares one.
const COALESCE: Duration = Duration::from_millis(10);

/// Longest text of one NOTIFY, in bytes; PostgreSQL takes less than 8,000.
const TEXT_BYTES_MAX: usize = 7_900;

/// Words that wait to be sent. When there are more, everybody is to look.
const WORDS_MAX: usize = 10_000;

/// Messages with words that may wait for a slow listener; beyond that it is told that it missed some.
const WAITING_MAX: usize = 256;

/// Marks writes and wakes whoever subscribed. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Hints {
    process: Uuid,
    outgoing: Wake,
    subscribers: Arc<Mutex<Vec<Wake>>>,
    waiting: Arc<Mutex<Waiting>>,
    heard: broadcast::Sender<Words>,
}

/// What the next hint will say.
#[derive(Debug, Default)]
struct Waiting {
    /// Whether loops are to look for what was written.
    is_written: bool,
    words: Words,
}

/// What a hint is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Words {
    /// Any of these.
    These(HashSet<String>),
    /// It may be anything.
    Anything,
}

impl Default for Words {
    fn default() -> Self {
        Self::These(HashSet::new())
    }
}

impl Default for Hints {
    fn default() -> Self {
        Self {
            process: Uuid::new_v4(),
            outgoing: Wake::new(),
            subscribers: Arc::default(),
            waiting: Arc::default(),
            heard: broadcast::Sender::new(WAITING_MAX),
        }
    }
}

impl Hints {
    /// What was committed concerns these; short words without blanks. They are for those who listen to [`Hints::words`]; loops are
    /// not woken.
    pub fn tell(&self, words: impl Iterator<Item = String>) {
        let mut waiting = self.waiting();
        if let Words::These(these) = &mut waiting.words {
            these.extend(words);
            if these.is_empty() {
                return;
            }
            if these.len() > WORDS_MAX {
                waiting.words = Words::Anything;
            }
        }
        drop(waiting);
        self.outgoing.wake();
    }

    /// What other processes said with their hints. A receiver that lags behind has missed some, and has to look at everything.
    #[must_use]
    pub fn words(&self) -> broadcast::Receiver<Words> {
        self.heard.subscribe()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The texts to send: who says it, alone where loops are to look, and with words in as many texts as they take.
    fn texts(&self) -> Vec<String> {
        let Waiting { is_written, words } = std::mem::take(&mut *self.waiting());
        let mut texts = Vec::new();
        if is_written {
            texts.push(self.process.to_string());
        }
        match words {
            Words::Anything => texts.push(format!("{} *", self.process)),
            Words::These(words) => {
                let mut room = 0;
                for word in words {
                    match texts.last_mut() {
                        Some(text) if word.len() < room => {
                            text.push(' ');
                            text.push_str(&word);
                        }
                        _ => texts.push(format!("{} {word}", self.process)),
                    }
                    room = TEXT_BYTES_MAX.saturating_sub(texts.last().map_or(0, String::len));
                }
            }
        }
        texts
    }

    fn hear(&self, text: &str) {
        let mut parts = text.split(' ');
        let is_own = parts.next() == Some(self.process.to_string().as_str());
        let words: HashSet<String> = parts.map(str::to_owned).collect();
        if words.is_empty() {
            self.wake_subscribers();
        } else if !is_own {
            let words = if words.contains("*") { Words::Anything } else { Words::These(words) };
            // Nobody has to listen.
            let _ = self.heard.send(words);
        }
    }

    /// Something was committed by this process that loops look for.
    pub fn written(&self) {
        self.waiting().is_written = true;
        self.outgoing.wake();
        self.wake_subscribers();
    }

    /// A wake-up for one loop, given whenever any process wrote something. It lasts as long as the process: loops
    /// subscribe at their start, requests do not.
    #[must_use]
    pub fn subscribe(&self) -> Wake {
        let wake = Wake::new();
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner).push(wake.clone());
        wake
    }

    fn wake_subscribers(&self) {
        for wake in self.subscribers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            wake.wake();
        }
    }

    /// Sends hints to other processes until stopped. A hint that cannot be sent is dropped: others poll.
    pub async fn send(self, pool: Pool, stop: CancellationToken) {
        while stop.run_until_cancelled(self.outgoing.woken()).await.is_some() {
            let texts = self.texts();
            if !texts.is_empty()
                && let Ok(client) = pool.get().await
            {
                // Nothing durable is said, so nothing waits for the disk.
                let sent = client
                    .query_typed(
                        "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, text) FROM unnest($2::text[]) AS text",
                        &[(&CHANNEL, Type::TEXT), (&texts, Type::TEXT_ARRAY)],
                    )
                    .await;
                if let Err(error) = sent {
                    tracing::debug!(error = %error, "a hint was not sent");
                }
            }
            if stop.run_until_cancelled(tokio::time::sleep(COALESCE)).await.is_none() {
                return;
            }
        }
    }

    /// Receives the hints of other processes until stopped, on a session of its own. Reconnects by itself.
    pub async fn receive(self, session: PgPool, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if let Ok(mut listener) = PgListener::connect_with(&session).await
                && listener.listen(CHANNEL).await.is_ok()
            {
                // What was said before is lost.
                let _ = self.heard.send(Words::Anything);
                while let Some(Ok(said)) = stop.run_until_cancelled(listener.recv()).await {
                    self.hear(said.payload());
                }
            }
            // Without a listener everybody polls; try again at a pace that does no harm.
            stop.run_until_cancelled(tokio::time::sleep(Duration::from_secs(1))).await;
        }
    }
}
