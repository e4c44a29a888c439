//! Comparing a window with a relay instead of downloading it (NIP-77): what both have costs next to nothing.
//!
//! Our side of the comparison is everything the archive has, whoever showed it: what turns out to be on the relay, too, is
//! recorded as seen there without being sent.

use std::collections::HashSet;

use negentropy::{Id, NegentropyStorageVector};
use nostr_sdk::{Filter, Timestamp};
use tokio_util::sync::CancellationToken;

use super::crawl::SyncError;
use super::pages::Tally;
use super::visit::Visit;
use crate::base::nostr_event::{EventId, Refusal};
use crate::net::relay::{AnswerPage, Difference, RelayError};
use crate::services::archive::decide::{compares_well, newest};
use crate::services::archive::event::{Window, WindowOutcome};
use crate::services::archive::read::{self, Held, Holdings};
use crate::store::ingest::{KnownEvent, KnownEvents};

/// Comparisons at the same time in one process: each holds the ids of its window in memory.
pub(super) const AT_ONCE: usize = 4;

/// With fewer events of ours in a window it is read page by page: there is nothing to save.
const COMPARED_MIN: usize = 100;

/// Events of ours in the first comparison with a relay that does not say whether it compares (NIP-11): most do not, and
/// reading all ids of an archive to find that out would cost a fifth of what reading their pages does.
const COMPARED_FIRST: usize = 1_000;

/// A gap that is found by comparing is narrowed down to a day, or to this part of what was compared.
const DAY: i64 = 86_400;
const PARTS_MAX: i64 = 64;

/// Events asked for by id in one question.
const IDS_MAX: usize = 250;

/// Sightings in one page.
const SIGHTINGS_MAX: usize = 4_000;

/// What came of one comparison.
enum Compared {
    /// The window is settled.
    Settled,
    /// It was too much for the relay.
    TooMuch,
    /// This relay is better read page by page.
    Unfit,
}

impl Visit<'_> {
    /// Compares a window, newest part first. Returns what is left to be read page by page.
    pub(super) async fn compare(
        &mut self,
        window: Window,
        stop: &CancellationToken,
    ) -> Result<Option<Window>, SyncError> {
        let crawl = self.crawl;
        let all = crawl.settings.negentropy_events_max.get();
        let mut most = if self.assignment.negentropy == Some(true) { all } else { all.min(COMPARED_FIRST) };
        let mut until = window.until;
        // How many seconds a relay that refused more is asked about.
        let mut span: Option<i64> = None;
        while let Some(rest) = Window::new(window.since, until) {
            let Some(_permit) = self.meanwhile(stop, crawl.comparing.acquire()).await? else {
                return Ok(None);
            };
            let wanted = span.map_or(rest, |seconds| newest(rest, seconds));
            let ours =
                read::holdings(&crawl.parts.doors.session, self.assignment.relay, wanted, most).await?;
            let Some(ours) = ours.filter(|ours| ours.held.len() >= COMPARED_MIN) else {
                return Ok(Some(rest));
            };
            let part = ours.window;
            let least = DAY.max((window.until - window.since) / PARTS_MAX);
            let Some(compared) = stop.run_until_cancelled(self.compare_part(&ours, least)).await else {
                return Ok(None);
            };
            match compared? {
                Compared::Settled => {
                    until = part.since.saturating_sub(1);
                    most = all;
                    if !self.compares {
                        return Ok(Window::new(window.since, until));
                    }
                    span = span.map(|seconds| seconds.saturating_mul(2));
                }
                Compared::TooMuch if part.since < part.until => span = Some((part.until - part.since) / 2),
                Compared::TooMuch => return Ok(Some(rest)),
                Compared::Unfit => {
                    self.compares = false;
                    return Ok(Some(rest));
                }
            }
        }
        Ok(None)
    }

    /// Compares one second that pages did not show whole. Returns whether it is settled by that.
    pub(super) async fn compare_second(&mut self, second: Window) -> Result<bool, SyncError> {
        let most = self.crawl.settings.negentropy_events_max.get();
        let ours =
            read::holdings(&self.crawl.parts.doors.session, self.assignment.relay, second, most).await?;
        let Some(ours) = ours.filter(|ours| ours.window == second) else { return Ok(false) };
        let still_compares = matches!(self.compare_part(&ours, DAY).await?, Compared::Settled);
        self.compares &= still_compares;
        Ok(still_compares)
    }

    /// What the relay announces and does not send makes a gap of at most `least` seconds.
    async fn compare_part(&mut self, ours: &Holdings, least: i64) -> Result<Compared, SyncError> {
        let (part, held) = (ours.window, &ours.held);
        self.asked_at = self.crawl.parts.clock.now().timestamp();
        let (since, until) = (u64::try_from(part.since)?, u64::try_from(part.until)?);
        let filter = Filter::new().since(Timestamp::from_secs(since)).until(Timestamp::from_secs(until));
        let difference = match self.session.reconcile(&filter, items(held)?).await {
            Ok(difference) => difference,
            Err(RelayError::NegRefused(why)) if self.may_authenticate(&why).await? => {
                self.session.reconcile(&filter, items(held)?).await?
            }
            Err(RelayError::NegRefused(why)) if why.starts_with("blocked:") => return Ok(Compared::TooMuch),
            Err(RelayError::Flooded | RelayError::Slow(_)) => return Ok(Compared::TooMuch),
            Err(RelayError::NegRefused(_) | RelayError::NegUnsupported) => return Ok(Compared::Unfit),
            Err(error) => {
                // The next session does not try again what ended this one.
                self.crawl.compares_badly(self.assignment.relay);
                return Err(error.into());
            }
        };
        self.crawl.parts.metrics.compared();
        let mut tally = Tally::default();
        tally.add(0, i32::try_from(difference.rounds).unwrap_or(i32::MAX));
        let shared = self.sight(ours, &difference).await?;
        let withheld = match self.fetch(difference.need, &mut tally).await {
            Ok(withheld) => withheld,
            Err(SyncError::Relay(RelayError::Closed(_))) => return Ok(Compared::Unfit),
            Err(error) => return Err(error),
        };
        if withheld > 0 && part.until - part.since > least {
            return Ok(Compared::TooMuch);
        }
        tally.add(shared, 0);
        self.delivery.finish().await?;
        let outcome = if withheld == 0 {
            WindowOutcome::Complete
        } else {
            let reason = format!("the relay announced {withheld} events that it does not send");
            WindowOutcome::Gap { reason }
        };
        self.record(vec![(part, outcome)], &mut tally).await?;
        self.compares = compares_well(held.len(), shared);
        Ok(Compared::Settled)
    }

    /// Records what both have. Returns how much that is.
    async fn sight(&mut self, ours: &Holdings, difference: &Difference) -> Result<usize, SyncError> {
        let lacking: HashSet<&[u8; 32]> = difference.have.iter().collect();
        let shared: Vec<&Held> = ours.held.iter().filter(|h| !lacking.contains(h.id.as_bytes())).collect();
        let unseen: Vec<KnownEvent> = shared.iter().filter(|h| !h.is_sighted).map(|h| h.event).collect();
        for page in unseen.chunks(SIGHTINGS_MAX) {
            self.delivery.sight(KnownEvents { events: page.to_vec(), as_of: ours.as_of }).await?;
        }
        Ok(shared.len())
    }

    /// Fetches what only the relay has, asking again as long as that brings anything. Returns how much of it does not come.
    async fn fetch(&mut self, ids: Vec<[u8; 32]>, tally: &mut Tally) -> Result<usize, SyncError> {
        let mut wanted: HashSet<EventId> = ids.into_iter().map(EventId::from_byte_array).collect();
        let mut at_once = IDS_MAX.min(self.limit);
        loop {
            let left: Vec<EventId> = wanted.iter().copied().collect();
            let mut most = 0;
            for some in left.chunks(at_once) {
                let filter = Filter::new().ids(some.iter().copied()).limit(some.len());
                let AnswerPage { mut events, mut refused, odd_frames, .. } = self.ask(&filter).await?;
                refused.add_times(Refusal::Malformed, odd_frames);
                events.retain(|event| {
                    let is_wanted = wanted.remove(&event.id);
                    if !is_wanted {
                        refused.add(Refusal::Foreign);
                    }
                    is_wanted
                });
                tally.add(events.len(), 1);
                most = most.max(events.len());
                self.delivery.offer(events, refused).await?;
                self.deliver_live().await?;
            }
            if wanted.is_empty() || most == 0 {
                return Ok(wanted.len());
            }
            at_once = most;
        }
    }
}

fn items(held: &[Held]) -> Result<NegentropyStorageVector, SyncError> {
    let mut items = NegentropyStorageVector::with_capacity(held.len());
    for item in held {
        let second = u64::try_from(item.event.created_at)?;
        items.insert(second, Id::from_byte_array(item.id.to_bytes())).map_err(comparison)?;
    }
    items.seal().map_err(comparison)?;
    Ok(items)
}

fn comparison(error: negentropy::Error) -> SyncError {
    SyncError::Comparison(error)
}
