//! One request for stored events and its response, which is cut if it is too long or too slow.

use std::time::Duration;

use nostr_sdk::{ClientMessage, Filter, SubscriptionId};
use tokio::time::Instant;

use super::frame::Frame;
use super::{RelayError, RelaySession};
use crate::base::nostr_event::{EVENT_BYTES_MAX, OfferedEvent, Refusals};
use crate::net::remote_text::sanitize;

/// Bytes of one page in memory. A longer response is cut: the page holds what was received so far.
pub const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Longest time for one response, shorter than a lease. A slower page is cut.
pub(super) const ANSWER_TIME_MAX: Duration = Duration::from_secs(40);

/// Events beyond the requested limit after which a response is cut.
const PAGE_SLACK: usize = 10;

/// Events of a page whose filter has no limit.
pub(super) const PAGE_EVENTS_MAX: usize = 10_000;

/// The response to one request up to EOSE, or the events of the live subscription so far. Events are parsed
/// while they are received, so that parsing ends when the response does.
#[derive(Debug, Default)]
pub struct AnswerPage {
    /// Well-formed events, in the order received.
    pub events: Vec<OfferedEvent>,
    /// Events that were refused, by reason.
    pub refused: Refusals,
    /// Bytes of the events that were parsed.
    bytes: usize,
    /// Frames that were not Nostr messages.
    pub invalid_frames: usize,
    /// Whether the response was cut because it was too long or too slow.
    pub is_cut: bool,
    /// The last NOTICE. It often explains a short page.
    pub notice: Option<String>,
    /// Events of the previous request that arrived after its EOSE. A relay that sends EOSE too early has
    /// many.
    pub late: Vec<OfferedEvent>,
    /// Events of the previous request that were refused.
    pub late_refused: Refusals,
    /// EVENT messages received, valid or not.
    events_received: usize,
}

impl AnswerPage {
    /// Parses one event and adds it, or counts why it is refused.
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
        // An event that is too large is skipped unparsed.
        self.bytes += if json.len() <= EVENT_BYTES_MAX { json.len() } else { 0 };
        self.events_received += 1;
    }

    /// Whether the page has reached its limits.
    pub(super) fn is_full(&self, events_max: usize) -> bool {
        self.bytes > PAGE_BYTES_MAX || self.events_received > events_max
    }

    /// Bytes of the events that were parsed.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether no EVENT message was received.
    pub(super) fn is_empty(&self) -> bool {
        self.events_received == 0
    }
}

/// The subscription whose response has ended but which has not been closed at the relay.
#[derive(Debug, Default)]
pub(super) struct PendingClose(Option<SubscriptionId>);

impl RelaySession {
    /// Requests stored events, newest first, and reads the whole response.
    ///
    /// # Errors
    /// [`RelayError::Closed`] when the relay refuses, [`RelayError::Slow`] when no event arrived in time: the
    /// session can continue. Any other error ends the session.
    pub async fn page(&mut self, filter: &Filter) -> Result<AnswerPage, RelayError> {
        // Each request has its own subscription id, so that late events of the previous request can be told
        // apart. CLOSE of the previous one and REQ are flushed together, which saves a round trip.
        let previous = self.pending_close.0.take();
        if let Some(previous) = &previous {
            self.feed(&ClientMessage::close(previous.clone())).await?;
        }
        let id = SubscriptionId::new(format!("page{}", self.next_number()));
        self.send(&ClientMessage::req(id.clone(), vec![filter.clone()])).await?;
        let limit = filter.limit.unwrap_or(PAGE_EVENTS_MAX);
        let read = self.read_page(&id, previous.as_ref(), limit).await;
        if matches!(read, Err(RelayError::Slow(_))) {
            self.send(&ClientMessage::close(id.clone())).await?;
        }
        let mut page = read?;
        if page.is_cut {
            // The rest of the response is not needed.
            self.send(&ClientMessage::close(id)).await?;
        } else {
            self.pending_close.0 = Some(id);
        }
        self.attach_notes(&mut page);
        Ok(page)
    }

    /// Closes the subscription of the last page, if it is open: beside a live subscription it would deliver
    /// each new event twice.
    pub(super) async fn end_pages(&mut self) -> Result<(), RelayError> {
        match self.pending_close.0.take() {
            Some(id) => self.send(&ClientMessage::close(id)).await,
            None => Ok(()),
        }
    }

    /// Moves the notices and counts collected since the last page into `page`.
    pub(super) fn attach_notes(&mut self, page: &mut AnswerPage) {
        page.invalid_frames = std::mem::take(&mut self.invalid_frames);
        page.notice = self.notice.take();
    }

    async fn read_page(
        &mut self,
        id: &SubscriptionId,
        previous: Option<&SubscriptionId>,
        limit: usize,
    ) -> Result<AnswerPage, RelayError> {
        let mut page = AnswerPage::default();
        let until = Instant::now() + self.answer_timeout;
        loop {
            let Some(text) = self.next_text(until).await? else {
                if page.events.is_empty() {
                    return Err(RelayError::Slow(self.answer_timeout));
                }
                page.is_cut = true;
                return Ok(page);
            };
            match self.handle_session_frame(&text)? {
                Some(Frame::Event { subscription, json }) if subscription == id.as_str() => {
                    self.reset_unrequested();
                    page.take(json);
                }
                Some(Frame::Eose { subscription }) if subscription == id.as_str() => {
                    self.reset_unrequested();
                    return Ok(page);
                }
                Some(Frame::Closed { subscription, reason }) if subscription == id.as_str() => {
                    self.reset_unrequested();
                    return Err(RelayError::Closed(sanitize(&reason)));
                }
                Some(Frame::Event { subscription, json })
                    if previous.is_some_and(|id| subscription == id.as_str()) =>
                {
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
