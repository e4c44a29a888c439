//! Verifies what a relay claims to hold in comparisons (NIP-77) before the claims are recorded.
//!
//! In a comparison a relay states, at no cost to itself, which of our events it also holds. So a random
//! sample of the claimed events is requested before any claim is recorded. If the relay does not send the
//! sample, the false claim is recorded in the journal, no claim of the batch is recorded, and the relay is
//! read page by page. A few missing events are excused if each may have been removed since the comparison
//! (see `removed_max`); those events are not recorded.

use std::collections::HashSet;

use serde_json::json;
use tokio::time::Instant;

use super::super::error::SyncError;
use super::Visit;
use super::ask::IDS_MAX;
use super::record::Tally;
use crate::base::nostr_event::EventId;
use crate::net::relay::RelayError;
use crate::services::archive::command::RelayCommand;
use crate::services::archive::decide::{SAMPLE_MAX, removed_max, sample_size};
use crate::services::archive::event::{Window, WindowOutcome};
use crate::services::archive::read;
use crate::store::ingest::{KnownEvent, KnownEvents};

/// Claims that are checked together. Each takes 16 bytes of memory until the check.
const CLAIMS_MAX: usize = 50_000;

/// Sightings per page handed to the intake.
const SIGHTINGS_MAX: usize = 4_000;

/// Claims of a relay that are not checked yet.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Claimed events that have no recorded sighting on this relay.
    events: Vec<KnownEvent>,
    /// As [`KnownEvents::as_of`].
    as_of: Option<i64>,
    /// Candidates for the sample, each with a random rank. Keeping the lowest ranks gives a uniform sample.
    ranked: Vec<(u64, (KnownEvent, EventId))>,
    /// Windows that are settled if the claims are true.
    windows: Vec<Claimed>,
}

#[derive(Debug)]
struct Claimed {
    window: Window,
    outcome: WindowOutcome,
    tally: Tally,
    asked_at: i64,
}

impl Claims {
    /// Adds an event that the relay claims to hold. `as_of` as in [`KnownEvents::as_of`].
    pub(super) fn add(&mut self, event: KnownEvent, id: EventId, as_of: i64) {
        self.as_of = Some(self.as_of.map_or(as_of, |before| before.min(as_of)));
        self.events.push(event);
        self.ranked.push((rand::random(), (event, id)));
        if self.ranked.len() >= 4 * SAMPLE_MAX {
            self.keep_lowest();
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.as_of = self.as_of.into_iter().chain(other.as_of).min();
        self.events.extend(other.events);
        self.windows.extend(other.windows);
        self.ranked.extend(other.ranked);
        self.keep_lowest();
    }

    fn keep_lowest(&mut self) {
        self.ranked.sort_unstable_by_key(|(rank, _)| *rank);
        self.ranked.truncate(SAMPLE_MAX);
    }

    /// True if the claims must be checked before more are added.
    pub(super) fn are_many(&self) -> bool {
        self.events.len() >= CLAIMS_MAX
    }

    /// The random sample to request from the relay.
    fn sample(&mut self) -> Vec<(KnownEvent, EventId)> {
        self.keep_lowest();
        self.ranked.iter().take(sample_size(self.events.len())).map(|(_, event)| *event).collect()
    }

    /// The compared windows.
    fn windows(self) -> Vec<Window> {
        self.windows.into_iter().map(|claimed| claimed.window).collect()
    }

    /// Removes `some` events from the claims.
    fn leave_out(&mut self, some: &[(KnownEvent, EventId)]) {
        self.events.retain(|event| some.iter().all(|(out, _)| out.number != event.number));
    }
}

impl Visit<'_> {
    /// Adds a compared window. Its outcome is recorded once its claims are checked.
    pub(super) fn claim(&mut self, window: Window, outcome: WindowOutcome, tally: Tally, claims: Claims) {
        let asked_at = self.asked_at;
        self.claims.merge(claims);
        self.claims.windows.push(Claimed { window, outcome, tally, asked_at });
    }

    /// Checks the claims. Records them if the sample proves them; otherwise returns their windows, to be read
    /// page by page.
    pub(super) async fn check_claims(&mut self) -> Result<Vec<Window>, SyncError> {
        let mut claims = std::mem::take(&mut self.claims);
        let sample = claims.sample();
        let stop = self.stop;
        let suspended = self.suspend_rate();
        let Some(shown) = stop.run_until_cancelled(self.show(&sample)).await else { return Ok(Vec::new()) };
        self.resume_rate(suspended);
        match shown {
            Ok(Some((shown, missing))) => {
                let lacking = sample.len() - shown;
                if self.is_excused(sample.len(), lacking, &missing).await? {
                    claims.leave_out(&missing);
                    self.record_claims(claims).await?;
                    return Ok(Vec::new());
                }
                self.note_false_claim(claims.events.len(), sample.len(), lacking).await?;
                self.give_up_comparing("false_claim");
            }
            Err(SyncError::Relay(RelayError::Closed(_))) => self.give_up_comparing("unproven"),
            Ok(None) => self.stop_slow_comparing(),
            Err(error) if self.mark_too_slow(&error) => self.stop_slow_comparing(),
            Err(error) => return Err(error),
        }
        Ok(claims.windows())
    }

    /// Stops comparing with a relay that is below the minimum rate in it, in this session and later ones. What
    /// it announces may be false, but its pages may be quick: it keeps its slot and is judged anew by them.
    pub(super) fn stop_slow_comparing(&mut self) {
        self.crawl.disable_comparing(self.assignment.relay);
        self.give_up_comparing("too_slow");
        if let Some(slot) = &mut self.slot {
            slot.is_lost = false;
            slot.rate.restart();
        }
    }

    /// Stops comparing for the rest of this session.
    pub(super) fn give_up_comparing(&mut self, reason: &'static str) {
        self.compares = false;
        self.crawl.parts.metrics.comparing_given_up(reason);
    }

    /// True if every missing event of a sample of `asked` events may have been removed since the relay
    /// claimed it. `missing` holds the events that did not arrive; `lacking` also counts events that arrived
    /// but were invalid.
    async fn is_excused(
        &mut self,
        asked: usize,
        lacking: usize,
        missing: &[(KnownEvent, EventId)],
    ) -> Result<bool, SyncError> {
        if lacking == 0 {
            return Ok(true);
        }
        if missing.len() < lacking || lacking > removed_max(asked) {
            return Ok(false);
        }
        // The events still being committed may include a deletion request for a missing event.
        self.delivery.finish().await?;
        let now = self.crawl.parts.clock.now().timestamp();
        Ok(read::removable(&self.crawl.parts.pools.session, missing, now).await? == lacking)
    }

    /// Requests the sampled events, repeating while a round returns any. Returns how many arrived with their
    /// own id and a valid signature, and which did not arrive; `None` when the relay is too slow.
    async fn show(
        &mut self,
        sample: &[(KnownEvent, EventId)],
    ) -> Result<Option<(usize, Vec<(KnownEvent, EventId)>)>, SyncError> {
        self.crawl.parts.metrics.sampled(sample.len());
        let mut wanted: HashSet<EventId> = sample.iter().map(|(_, id)| *id).collect();
        let (mut shown, mut at_once) = (0, IDS_MAX.min(self.limit));
        while !wanted.is_empty() {
            let left: Vec<EventId> = wanted.iter().copied().collect();
            let mut most = 0;
            for some in left.chunks(at_once) {
                let (events, refused) = self.ask_for(some, &mut wanted).await?;
                most = most.max(events.len());
                self.count_shown(events.len(), true);
                let outcome = self.delivery.offer_now(events, refused).await?;
                shown += usize::try_from(outcome.known + outcome.stored)?;
                self.deliver_live().await?;
                if !self.judge_rate().await? {
                    return Ok(None);
                }
            }
            if most == 0 {
                break;
            }
            at_once = most;
        }
        let missing = sample.iter().filter(|(_, id)| wanted.contains(id)).copied().collect();
        Ok(Some((shown, missing)))
    }

    async fn record_claims(&mut self, claims: Claims) -> Result<(), SyncError> {
        let count = u64::try_from(claims.events.len())?;
        let as_of = claims.as_of.unwrap_or_default();
        for page in claims.events.chunks(SIGHTINGS_MAX) {
            self.delivery.sight(KnownEvents { events: page.to_vec(), as_of }).await?;
        }
        self.crawl.agenda().compared(self.assignment.relay.0, count, Instant::now());
        self.delivery.finish().await?;
        self.count_proven(count);
        for Claimed { window, outcome, mut tally, asked_at } in claims.windows {
            self.asked_at = asked_at;
            self.record(vec![(window, outcome)], &mut tally).await?;
        }
        Ok(())
    }

    /// Records the false claim in the journal, so that later processes know it too.
    async fn note_false_claim(
        &mut self,
        claimed: usize,
        asked: usize,
        lacking: usize,
    ) -> Result<(), SyncError> {
        let (relay, url) = (self.assignment.relay, &self.assignment.url);
        tracing::warn!(relay.url = %url, claimed, asked, lacking, "{url} claimed events that it does not hold; it is read page by page from now on");
        self.crawl.disable_comparing(relay);
        let detail =
            json!({ "what": "false_comparison", "claimed": claimed, "asked": asked, "lacking": lacking });
        self.crawl.parts.relays.append(RelayCommand::Observe { relay, detail }).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimed(number: u32) -> (KnownEvent, EventId) {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        (KnownEvent { number: number.into(), created_at: 0 }, EventId::from_byte_array(id))
    }

    /// Counts how often each tenth of the claims, in their order, was drawn.
    #[test]
    fn early_and_late_claims_are_drawn_alike_and_none_twice() {
        let mut tenths = [0_u32; 10];
        for _ in 0..40 {
            let [mut claims, mut more] = [Claims::default(), Claims::default()];
            for number in 0..5_000 {
                let (event, id) = claimed(number);
                let part = if number < 4_000 { &mut claims } else { &mut more };
                part.add(event, id, 7);
            }
            claims.merge(more);
            let drawn = claims.sample();
            assert_eq!(drawn.len(), sample_size(5_000));
            assert_eq!(drawn.iter().map(|(_, id)| id).collect::<HashSet<_>>().len(), drawn.len());
            for (_, id) in drawn {
                let number = u32::from_be_bytes(id.to_bytes()[..4].try_into().unwrap());
                tenths[usize::try_from(number / 500).unwrap()] += 1;
            }
        }
        let mean = tenths.iter().sum::<u32>() / 10;
        // 15 % is six standard deviations.
        assert!(tenths.iter().all(|n| n.abs_diff(mean) < mean * 15 / 100), "{tenths:?}");
    }

    #[test]
    fn what_was_removed_is_left_out_of_the_claims() {
        let mut claims = Claims::default();
        for number in 0..5 {
            let (event, id) = claimed(number);
            claims.add(event, id, 7);
        }
        claims.leave_out(&[claimed(1), claimed(4)]);
        let left: Vec<i64> = claims.events.iter().map(|event| event.number).collect();
        assert_eq!(left, [0, 2, 3]);
    }

    #[test]
    fn few_claims_are_all_drawn() {
        let mut claims = Claims::default();
        for number in 0..60 {
            let (event, id) = claimed(number);
            claims.add(event, id, 60 - i64::from(number));
        }
        assert_eq!(claims.sample().len(), 60);
        assert_eq!(claims.as_of, Some(1));
        assert!(Claims::default().sample().is_empty());
    }
}
