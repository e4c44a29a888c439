//! Hints tell other processes that something was written. They only save time: every loop also polls, so a
//! lost hint delays work but loses none.
//!
//! NOTIFY is never sent inside a transaction that writes, because its cluster-wide lock would be held during
//! the fsync. Instead, one notifier task per process sends one hint for all recent commits.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_postgres::{Object, Pool};
use sqlx::postgres::{PgListener, PgPool};
use tokio::sync::broadcast;
use tokio::time::timeout;
use tokio_postgres::types::Type;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::lifecycle::Wake;

/// The LISTEN/NOTIFY channel that all Quipu processes of one database share.
const CHANNEL: &str = "quipu";

/// Minimum interval between hints. Writes within the interval share a hint.
const COALESCE: Duration = Duration::from_millis(10);

/// Longest time in which the database takes a hint. A later one has no use: loops look by themselves.
const SEND_MAX: Duration = Duration::from_secs(2);

/// Maximum length of one NOTIFY payload, in bytes. PostgreSQL accepts less than 8,000.
const TEXT_BYTES_MAX: usize = 7_900;

/// Maximum number of topics that wait to be sent. Beyond it the next hint says [`Topics::Anything`].
const TOPICS_MAX: usize = 10_000;

/// Capacity of the channel to receivers of topics. A receiver that lags behind further gets an error
/// that says how many it missed.
const WAITING_MAX: usize = 256;

/// Announces writes and wakes subscribers. Clones share it.
#[derive(Debug, Clone)]
pub struct Hints {
    process: Uuid,
    outgoing: Wake,
    subscribers: Arc<Mutex<Vec<Wake>>>,
    waiting: Arc<Mutex<Waiting>>,
    heard: broadcast::Sender<Topics>,
}

/// Contents of the next hint.
#[derive(Debug, Default)]
struct Waiting {
    /// Whether loops should look for new entries.
    is_written: bool,
    topics: Topics,
}

/// The subjects that a hint is about, as short topics (such as the prefix of a hash).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topics {
    /// One or more of these subjects.
    These(HashSet<String>),
    /// Any subject.
    Anything,
}

impl Default for Topics {
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
    /// Announces to other processes that commits concerned these subjects. Each topic is short and has no
    /// blanks. Only receivers of [`Hints::topics`] get them; loops are not woken.
    pub fn announce(&self, topics: impl Iterator<Item = String>) {
        let mut waiting = self.waiting();
        if let Topics::These(these) = &mut waiting.topics {
            these.extend(topics);
            if these.is_empty() {
                return;
            }
            if these.len() > TOPICS_MAX {
                waiting.topics = Topics::Anything;
            }
        }
        drop(waiting);
        self.outgoing.wake();
    }

    /// The subjects that other processes announce. A receiver that lags behind has missed some and must check
    /// everything.
    #[must_use]
    pub fn topics(&self) -> broadcast::Receiver<Topics> {
        self.heard.subscribe()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The payloads to send. Each begins with this process's id. A payload without topics wakes loops;
    /// the topics are split over as many payloads as they need.
    fn texts(&self) -> Vec<String> {
        let Waiting { is_written, topics } = std::mem::take(&mut *self.waiting());
        let mut texts = Vec::new();
        if is_written {
            texts.push(self.process.to_string());
        }
        match topics {
            Topics::Anything => texts.push(format!("{} *", self.process)),
            Topics::These(topics) => {
                let mut room = 0;
                for topic in topics {
                    match texts.last_mut() {
                        Some(text) if topic.len() < room => {
                            text.push(' ');
                            text.push_str(&topic);
                        }
                        _ => texts.push(format!("{} {topic}", self.process)),
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
        let topics: HashSet<String> = parts.map(str::to_owned).collect();
        if topics.is_empty() {
            self.wake_subscribers();
        } else if !is_own {
            let topics = if topics.contains("*") { Topics::Anything } else { Topics::These(topics) };
            // Without receivers `send` fails, which is fine.
            let _ = self.heard.send(topics);
        }
    }

    /// Announces that this process committed something that loops wait for.
    pub fn written(&self) {
        self.waiting().is_written = true;
        self.outgoing.wake();
        self.wake_subscribers();
    }

    /// A wake-up for one loop, triggered whenever any process writes something. It is never removed, so only
    /// loops subscribe, at their start; requests do not.
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

    /// Sends hints to other processes until stopped. A hint that cannot be sent is dropped, because every
    /// process polls.
    pub async fn send(self, pool: Pool, stop: CancellationToken) {
        while stop.run_until_cancelled(self.outgoing.woken()).await.is_some() {
            let texts = self.texts();
            // Neither a full pool nor a database that hangs may hold up the end of the process.
            if !texts.is_empty()
                && let Some(Ok(client)) = stop.run_until_cancelled(pool.get()).await
            {
                notify(client, &texts).await;
            }
            if stop.run_until_cancelled(tokio::time::sleep(COALESCE)).await.is_none() {
                return;
            }
        }
    }

    /// Receives the hints of other processes until stopped, on its own session. Reconnects after errors.
    pub async fn receive(self, session: PgPool, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if let Some(Ok(mut listener)) = stop.run_until_cancelled(listen(&session)).await {
                // Hints from before the LISTEN were missed, so receivers have to check everything.
                let _ = self.heard.send(Topics::Anything);
                while let Some(Ok(said)) = stop.run_until_cancelled(listener.recv()).await {
                    self.hear(said.payload());
                }
            }
            // Without a listener every loop polls. Reconnect at most once a second.
            stop.run_until_cancelled(tokio::time::sleep(Duration::from_secs(1))).await;
        }
    }
}

async fn notify(client: Object, texts: &[String]) {
    let sent = async {
        // A hint is not durable, so its commit does not wait for the disk.
        let sql = "-- send_hints\nSELECT set_config('synchronous_commit', 'off', true), pg_notify($1, text) FROM unnest($2::text[]) AS text";
        client.query_typed(sql, &[(&CHANNEL, Type::TEXT), (&texts, Type::TEXT_ARRAY)]).await
    };
    match timeout(SEND_MAX, sent).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            tracing::debug!(error = %error, "a hint could not be sent; other processes will poll");
        }
        // The connection may hang, so it does not go back to the pool.
        Err(_) => drop(Object::take(client)),
    }
}

async fn listen(session: &PgPool) -> Result<PgListener, sqlx::Error> {
    let mut listener = PgListener::connect_with(session).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}
