//! One question for stored events and its whole answer, cut where it is too long or too slow.

use std::time::Duration;

use nostr_sdk::{ClientMessage, Filter, SubscriptionId};
use tokio::time::Instant;

use super::frame::Frame;
use super::{RelayError, RelaySession};
use crate::base::nostr_event::{EVENT_BYTES_MAX, OfferedEvent, Refusals};
use crate::net::error::words;

/// Most bytes of one page in memory. An answer that is longer is cut: what came so far is the page.
pub const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Longest time for one answer, below the length of a lease. A slow page is cut, too.
pub(super) const ANSWER_TIME_MAX: Duration = Duration::from_secs(40);

/// How many more events than asked for a relay may send before its answer is cut.
const PAGE_SLACK: usize = 10;

/// Most events of a page whose filter has no limit.
pub(super) const PAGE_EVENTS_MAX: usize = 10_000;

/// What a relay sent for one question, up to EOSE; or for the live subscription, up to now. Events are read as they come, so
/// that it is done when the relay is.
#[derive(Debug, Default)]
pub struct AnswerPage {
    /// Those that are well-formed, in the order in which they came.
    pub events: Vec<OfferedEvent>,
    /// What came as events and is none.
    pub refused: Refusals,
    /// The length of all that came as events and was read.
    bytes: usize,
    /// Frames that are no Nostr message at all; none of them was an event.
    pub odd_frames: usize,
    /// Only the beginning of the answer: the rest was too long or too slow.
    pub is_cut: bool,
    /// The last NOTICE, which often explains a short page.
    pub notice: Option<String>,
    /// Events that came for the question before, after its answer had ended. A relay that says EOSE too early has many.
    pub late: Vec<OfferedEvent>,
    /// What came as such an event and is none.
    pub late_refused: Refusals,
    /// How much came as events.
    sent: usize,
}

impl AnswerPage {
    /// Takes one event's JSON, or counts why it is none.
    pub(super) fn take(&mut self, json: &str) {
        self.count(json);
        match OfferedEvent::read(json) {
            Ok(event) => self.events.push(event),
            Err(reason) => self.refused.add(reason),
        }
    }

    fn take_late(&mut self, json: &str) {
        self.count(json);
        match OfferedEvent::read(json) {
            Ok(event) => self.late.push(event),
            Err(reason) => self.late_refused.add(reason),
        }
    }

    fn count(&mut self, json: &str) {
        // What is too large is read over.
        self.bytes += if json.len() <= EVENT_BYTES_MAX { json.len() } else { 0 };
        self.sent += 1;
    }

    /// Whether it has as much as may be held.
    pub(super) fn is_full(&self, events_max: usize) -> bool {
        self.bytes > PAGE_BYTES_MAX || self.sent > events_max
    }

    /// The length of all that came as events and was read.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing came as an event.
    pub(super) fn is_empty(&self) -> bool {
        self.sent == 0
    }
}

/// The question whose answer has ended, and that the relay was not yet told to forget.
#[derive(Debug, Default)]
pub(super) struct Slot(Option<SubscriptionId>);

impl RelaySession {
    /// Asks for stored events, newest first, and reads the whole answer.
    ///
    /// # Errors
    /// [`RelayError::Closed`] when the relay refuses, [`RelayError::Slow`] when no event came in time; the session can go on.
    /// Otherwise what ends a session.
    pub async fn page(&mut self, filter: &Filter) -> Result<AnswerPage, RelayError> {
        // An id of its own for every question tells what comes too late. CLOSE and REQ leave together, so that it costs no
        // round trip.
        let before = self.page.0.take();
        if let Some(before) = &before {
            self.feed(&ClientMessage::close(before.clone())).await?;
        }
        let id = SubscriptionId::new(format!("page{}", self.next_number()));
        self.send(&ClientMessage::req(id.clone(), vec![filter.clone()])).await?;
        let limit = filter.limit.unwrap_or(PAGE_EVENTS_MAX);
        let read = self.read_page(&id, before.as_ref(), limit).await;
        if matches!(read, Err(RelayError::Slow(_))) {
            self.send(&ClientMessage::close(id.clone())).await?;
        }
        let mut page = read?;
        if page.is_cut {
            // What still comes of it is wanted no more.
            self.send(&ClientMessage::close(id)).await?;
        } else {
            self.page.0 = Some(id);
        }
        self.hand_over(&mut page);
        Ok(page)
    }

    /// Ends the subscription that pages are asked under, if it is open: it would bring events twice beside a live one.
    pub(super) async fn end_pages(&mut self) -> Result<(), RelayError> {
        match self.page.0.take() {
            Some(id) => self.send(&ClientMessage::close(id)).await,
            None => Ok(()),
        }
    }

    /// Adds what was noted beside the events.
    pub(super) fn hand_over(&mut self, page: &mut AnswerPage) {
        page.odd_frames = std::mem::take(&mut self.odd_frames);
        page.notice = self.notice.take();
    }

    async fn read_page(
        &mut self,
        id: &SubscriptionId,
        before: Option<&SubscriptionId>,
        limit: usize,
    ) -> Result<AnswerPage, RelayError> {
        let mut page = AnswerPage::default();
        let until = Instant::now() + self.answer_max;
        loop {
            let Some(text) = self.next_text(until).await? else {
                if page.events.is_empty() {
                    return Err(RelayError::Slow(self.answer_max));
                }
                page.is_cut = true;
                return Ok(page);
            };
            match self.filed(&text)? {
                Some(Frame::Event { of, json }) if of == id.as_str() => {
                    self.wanted();
                    page.take(json);
                }
                Some(Frame::Eose { of }) if of == id.as_str() => {
                    self.wanted();
                    return Ok(page);
                }
                Some(Frame::Closed { of, reason }) if of == id.as_str() => {
                    self.wanted();
                    return Err(RelayError::Closed(words(&reason)));
                }
                Some(Frame::Event { of, json }) if before.is_some_and(|id| of == id.as_str()) => {
                    page.take_late(json);
                }
                _ => {}
            }
            if page.is_full(limit.saturating_add(PAGE_SLACK)) {
                page.is_cut = true;
                return Ok(page);
            }
        }
    }
}
