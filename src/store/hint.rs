//! Hints: "something was written", for speed only. Polling is the truth.
//!
//! NOTIFY is never sent inside a transaction that writes (its cluster-wide lock would be held through the
//! fsync). One notifier a process sends a coalesced hint after commits.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Pool;
use sqlx::postgres::{PgListener, PgPool};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// The channel that all Quipu processes of one database share.
const CHANNEL: &str = "quipu";

/// Hints leave at most this often; what is written in between shares one.
const COALESCE: Duration = Duration::from_millis(25);

/// Marks writes and wakes whoever waits. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Hints {
    outgoing: Arc<Notify>,
    incoming: Arc<watch::Sender<u64>>,
}

/// One waiter's end. A hint that comes between two waits is not slept over.
#[derive(Debug)]
pub struct HintReceiver(watch::Receiver<u64>);

impl HintReceiver {
    /// Waits until something was written by any process since the last wait, or `poll` has passed.
    pub async fn wait(&mut self, poll: Duration) {
        let _ = tokio::time::timeout(poll, self.0.changed()).await;
    }
}

impl Hints {
    /// Something was committed by this process.
    pub fn written(&self) {
        self.outgoing.notify_one();
        self.incoming.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// A new waiter.
    #[must_use]
    pub fn receiver(&self) -> HintReceiver {
        HintReceiver(self.incoming.subscribe())
    }

    /// Sends hints to other processes until stopped. A hint that cannot be sent is dropped: others poll.
    pub async fn send(self, pool: Pool, stop: CancellationToken) {
        while stop.run_until_cancelled(self.outgoing.notified()).await.is_some() {
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
                    self.incoming.send_modify(|n| *n = n.wrapping_add(1));
                }
            }
            // Without a listener everybody polls; try again at a pace that does no harm.
            stop.run_until_cancelled(tokio::time::sleep(Duration::from_secs(1))).await;
        }
    }
}
