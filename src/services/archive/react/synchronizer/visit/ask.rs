//! One request for stored events, by filter or by id.

use std::collections::HashSet;
use std::time::Duration;

use nostr_sdk::Filter;
use tokio::time::Instant;

use super::super::error::SyncError;
use super::super::slots::Slot;
use super::Visit;
use crate::base::nostr_event::{EventId, OfferedEvent, Refusal, Refusals};
use crate::net::relay::{AnswerPage, RelayError};

/// Ids in one request.
pub(super) const IDS_MAX: usize = 250;

impl Visit<'_> {
    /// Sends a request, and repeats it once after authenticating if the relay demands that (N-42.6).
    pub(super) async fn ask(&mut self, filter: &Filter) -> Result<AnswerPage, SyncError> {
        let page = match self.ask_once(filter).await {
            Err(RelayError::Closed(why)) if self.may_authenticate(&why).await? => self.ask_once(filter).await,
            page => page,
        };
        Ok(page?)
    }

    async fn ask_once(&mut self, filter: &Filter) -> Result<AnswerPage, RelayError> {
        self.limit_answer();
        let asked = Instant::now();
        let page = self.session.page(filter).await;
        self.waited_since(asked);
        page
    }

    /// Sets the timeout of the next answer.
    pub(super) fn limit_answer(&mut self) {
        let longest = self.slot.as_ref().map_or(Duration::MAX, Slot::answer_timeout);
        self.session.answer_within(longest);
    }

    /// Requests events by id. Returns those that were wanted, and removes them from `wanted`. An event whose
    /// id is not its own hash is refused and stays wanted.
    pub(super) async fn ask_for(
        &mut self,
        ids: &[EventId],
        wanted: &mut HashSet<EventId>,
    ) -> Result<(Vec<OfferedEvent>, Refusals), SyncError> {
        let filter = Filter::new().ids(ids.iter().copied()).limit(ids.len());
        let AnswerPage { mut events, mut refused, invalid_frames, .. } = self.ask(&filter).await?;
        refused.add_times(Refusal::Malformed, invalid_frames);
        events.retain(|event| {
            let refusal = if !event.id_matches {
                Refusal::BadId
            } else if !wanted.remove(&event.id) {
                Refusal::Foreign
            } else {
                return true;
            };
            refused.add(refusal);
            false
        });
        Ok((events, refused))
    }
}
