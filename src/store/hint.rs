//! Hints: "something was written", for speed only. Polling is the truth.
//!
//! NOTIFY is never sent inside a transaction that writes (its cluster-wide lock would be held through the
//! fsync). One notifier a process sends a coalesced hint after commits.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool_postgres::Pool;
use sqlx::postgres::{PgListener, PgPool};
use tokio_util::sync::CancellationToken;

use crate::lifecycle::Wake;

/// The channel that all Quipu processes of one database share.
const CHANNEL: &str = "quipu";

/// Hints leave at most this often; what is written in between shares one.
const COALESCE: Duration = Duration::from_millis(25);

/// Marks writes and wakes whoever subscribed. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Hints {
    outgoing: Wake,
    subscribers: Arc<Mutex<Vec<Wake>>>,
}

impl Hints {
    /// Something was committed by this process.
    pub fn written(&self) {
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
            if let Ok(client) = pool.get().await {
                // Nothing durable is said, so nothing waits for the disk.
                let sent = client
                    .query_typed(
                        "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, '')",
                        &[(&CHANNEL, tokio_postgres::types::Type::TEXT)],
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
                while let Some(Ok(_)) = stop.run_until_cancelled(listener.recv()).await {
                    self.wake_subscribers();
                }
            }
            // Without a listener everybody polls; try again at a pace that does no harm.
            stop.run_until_cancelled(tokio::time::sleep(Duration::from_secs(1))).await;
        }
    }
}
