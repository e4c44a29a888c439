//! The live subscription of a session. Its events are stored while the session waits for something else.

use std::future::Future;

use nostr_sdk::{Filter, Timestamp};

use super::super::error::SyncError;
use super::Visit;
use super::authentication::Authentication;
use crate::net::relay::RelayError;

impl Visit<'_> {
    /// Subscribes to everything that the relay receives from now on, whatever its date, and to events too
    /// recent for a window.
    pub(super) async fn listen(&mut self) -> Result<(), SyncError> {
        let now = self.crawl.parts.clock.now().timestamp();
        let young = now - i64::from(self.crawl.settings.end_lag_s);
        let recent = Filter::new().since(Timestamp::from_secs(u64::try_from(young)?)).limit(self.limit);
        // A limit applies to stored events only (N-01.8).
        self.session.listen(&[recent, Filter::new().limit(1)]).await?;
        self.listens = true;
        Ok(())
    }

    /// Waits for `what` and stores live events meanwhile. `None` when stopped.
    pub(super) async fn while_storing_live<T>(
        &mut self,
        what: impl Future<Output = T> + Send,
    ) -> Result<Option<T>, SyncError> {
        let stop = self.stop;
        let mut what = std::pin::pin!(what);
        loop {
            let received = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(None),
                value = &mut what => return Ok(Some(value)),
                delivered = self.delivery.next(), if !self.delivery.is_empty() => {
                    delivered?;
                    continue;
                }
                received = self.session.wait_live(), if self.listens && !self.delivery.is_full() => received,
            };
            match received {
                Ok(()) => self.deliver_live().await?,
                Err(RelayError::Closed(why)) => self.handle_live_closed(&why).await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Handles the end of the live subscription by the relay.
    async fn handle_live_closed(&mut self, why: &str) -> Result<(), SyncError> {
        self.listens = false;
        let wants_key = why.starts_with("auth-required:");
        // The relay may have closed the subscription before it processed our authentication, so subscribe
        // once more.
        let is_now_known = wants_key && self.authentication == Authentication::Done;
        if is_now_known || self.may_authenticate(why).await? {
            self.authentication = Authentication::DoneAndResubscribed;
            self.listen().await?;
        } else {
            self.live_closed.cancel();
            tracing::debug!(relay.url = %self.assignment.url, why, "the relay refuses the live subscription: {why}");
        }
        Ok(())
    }

    /// Passes live events that arrived during another request to the intake.
    pub(super) async fn deliver_live(&mut self) -> Result<(), SyncError> {
        let received = self.session.take_live();
        self.delivery.offer_live(received).await
    }
}
