//! Compares a window with a relay instead of downloading it (NIP-77). Events that both sides have cost next
//! to nothing.
//!
//! Our side of the comparison is every event of the archive, from any relay. Events that the relay claims to
//! hold as well are recorded as seen there without being sent, once the relay has sent a sample of them
//! (`claims.rs`).

use std::collections::HashSet;

use negentropy::{Id, NegentropyStorageVector};
use nostr_sdk::{Filter, Timestamp};
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

use super::super::error::SyncError;
use super::Visit;
use super::ask::IDS_MAX;
use super::claims::Claims;
use super::record::Tally;
use crate::base::nostr_event::EventId;
use crate::net::relay::{Difference, RelayError};
use crate::services::archive::decide::{compares_well, newest};
use crate::services::archive::event::{GapCause, Window, WindowOutcome};
use crate::services::archive::read::{self, Held, Holdings};

/// A window with fewer archived events is read page by page, because there is nothing to save.
const COMPARED_MIN: usize = 100;

/// Archived events in the first comparison with a relay that does not announce NIP-77. Most such relays do
/// not support it, and reading all ids of an archive to find that out would cost a fifth of reading their
/// pages.
const COMPARED_FIRST: usize = 1_000;

/// A gap found by comparing is narrowed to one day, or to one in `PARTS_MAX` of the compared window if that
/// is longer.
const DAY: i64 = 86_400;
const PARTS_MAX: i64 = 64;

/// Consecutive comparisons that the relay refused as too large, or that announced too much, after which the
/// relay is read page by page.
const TOO_MUCH_MAX: u32 = 8;

/// Result of one comparison.
enum Compared {
    /// The window is settled.
    Settled,
    /// The window was too large for the relay, or the relay announced more than it sends.
    TooMuch,
    /// The relay does not support comparisons, or is too slow in them; it is read page by page.
    Unfit,
}

impl Visit<'_> {
    /// Compares a window and checks the relay's claims. Returns the windows that must be read page by page.
    pub(super) async fn compare(&mut self, window: Window) -> Result<Vec<Window>, SyncError> {
        let mut left = Vec::new();
        let rest = self.compare_parts(window, &mut left).await?;
        left.extend(rest);
        left.extend(self.check_claims().await?);
        Ok(left)
    }

    /// Compares a window, newest part first. Returns the rest that cannot be compared; parts whose claims
    /// were not proven are added to `doubted`.
    async fn compare_parts(
        &mut self,
        window: Window,
        doubted: &mut Vec<Window>,
    ) -> Result<Option<Window>, SyncError> {
        let crawl = self.crawl;
        let all = crawl.settings.negentropy_events_max.get();
        let mut most = if self.assignment.negentropy == Some(true) { all } else { all.min(COMPARED_FIRST) };
        let mut until = window.until;
        // Length in seconds of the next comparison, once a longer one was refused.
        let mut span: Option<i64> = None;
        let mut too_much = 0;
        while let Some(rest) = Window::new(window.since, until) {
            if self.claims.are_many() || self.is_rate_due() {
                doubted.extend(self.check_claims().await?);
            }
            if !self.judge_rate().await? {
                self.stop_slow_comparing();
            }
            if !self.keep_slot().await? {
                return Ok(None);
            }
            if !self.compares || !self.may_claim() {
                return Ok(Some(rest));
            }
            let Some(permit) = self.take_comparing().await? else { return Ok(None) };
            let wanted = span.map_or(rest, |seconds| newest(rest, seconds));
            let ours =
                read::holdings(&crawl.parts.pools.session, self.assignment.relay, wanted, most).await?;
            let Some(ours) = ours.filter(|ours| ours.held.len() >= COMPARED_MIN) else {
                return Ok(Some(rest));
            };
            let part = ours.window;
            let least = DAY.max((window.until - window.since) / PARTS_MAX);
            let stop = self.stop;
            let Some(compared) = stop.run_until_cancelled(self.compare_part(ours, least, permit)).await
            else {
                return Ok(None);
            };
            match compared? {
                Compared::Settled => {
                    too_much = 0;
                    until = part.since.saturating_sub(1);
                    most = all;
                    span = span.map(|seconds| seconds.saturating_mul(2));
                }
                Compared::TooMuch if part.since == part.until => return Ok(Some(rest)),
                Compared::TooMuch if too_much < TOO_MUCH_MAX => {
                    too_much += 1;
                    span = Some((part.until - part.since) / 2);
                }
                Compared::TooMuch | Compared::Unfit => {
                    self.compares = false;
                    return Ok(Some(rest));
                }
            }
        }
        Ok(None)
    }

    /// Compares one second that pages could not show completely. Returns true if this settled it.
    pub(super) async fn compare_second(&mut self, second: Window) -> Result<bool, SyncError> {
        let most = self.crawl.settings.negentropy_events_max.get();
        let Some(permit) = self.take_comparing().await? else { return Ok(false) };
        let ours =
            read::holdings(&self.crawl.parts.pools.session, self.assignment.relay, second, most).await?;
        let Some(ours) = ours.filter(|ours| ours.window == second) else { return Ok(false) };
        // The pages recorded next were requested before this comparison, so their time of request is
        // restored.
        let asked_at = self.asked_at;
        let still_compares = matches!(self.compare_part(ours, DAY, permit).await?, Compared::Settled);
        self.compares &= still_compares;
        let is_proven = self.check_claims().await?.is_empty();
        self.asked_at = asked_at;
        Ok(still_compares && is_proven)
    }

    /// Compares one part. If the relay announces events and does not send them, the part becomes a gap if it
    /// is at most `least` seconds long, and `TooMuch` otherwise. `permit` is held while the ids are in
    /// memory.
    async fn compare_part(
        &mut self,
        ours: Holdings,
        least: i64,
        permit: SemaphorePermit<'_>,
    ) -> Result<Compared, SyncError> {
        let (part, held) = (ours.window, ours.held.len());
        self.asked_at = self.crawl.parts.clock.now().timestamp();
        let (since, until) = (u64::try_from(part.since)?, u64::try_from(part.until)?);
        let filter = Filter::new().since(Timestamp::from_secs(since)).until(Timestamp::from_secs(until));
        let mut reconciled = self.reconcile(&filter, &ours.held).await?;
        if let Err(RelayError::NegRefused(why)) = &reconciled
            && self.may_authenticate(why).await?
        {
            reconciled = self.reconcile(&filter, &ours.held).await?;
        }
        let difference = match reconciled {
            Ok(difference) => difference,
            Err(RelayError::NegRefused(why)) if why.starts_with("blocked:") => return Ok(Compared::TooMuch),
            Err(RelayError::Flooded | RelayError::Slow(_)) => return Ok(Compared::TooMuch),
            Err(RelayError::NegRefused(_) | RelayError::NegUnsupported) => {
                // Many relays do not answer messages that they do not know; the delivery rate ignores that
                // wait.
                self.restart_rate();
                return Ok(Compared::Unfit);
            }
            Err(error) => {
                // The comparison ended the session, so the next session does not compare.
                self.crawl.disable_comparing(self.assignment.relay);
                return Err(error.into());
            }
        };
        let mut tally = Tally::default();
        tally.add(0, i32::try_from(difference.rounds).unwrap_or(i32::MAX));
        let (claims, shared) = claimed(&ours, &difference);
        self.crawl.parts.metrics.compared(self.assignment.url.network(), shared, difference.need.len());
        // Frees the ids before the relay's events are fetched, which may take long.
        drop((ours, permit));
        let suspended = self.suspend_rate();
        let fetched = self.fetch(difference.need, &mut tally).await;
        self.resume_rate(suspended);
        let withheld = match fetched {
            Ok(Some(withheld)) => withheld,
            Ok(None) => {
                self.stop_slow_comparing();
                return Ok(Compared::Unfit);
            }
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
            WindowOutcome::Gap { cause: GapCause::Withheld, reason }
        };
        self.claim(part, outcome, tally, claims);
        self.compares = compares_well(held, shared);
        Ok(Compared::Settled)
    }

    async fn reconcile(
        &mut self,
        filter: &Filter,
        held: &[Held],
    ) -> Result<Result<Difference, RelayError>, SyncError> {
        let items = items(held)?;
        self.limit_answer();
        let asked = Instant::now();
        let difference = self.session.reconcile(filter, items).await;
        self.waited_since(asked);
        Ok(difference)
    }

    /// True if the relay's daily limit of sightings by comparison is not reached. Otherwise stops comparing
    /// for this session.
    fn may_claim(&mut self) -> bool {
        let (relay, most) = (self.assignment.relay.0, self.crawl.settings.compared_sightings_per_day_max);
        let today = self.crawl.agenda().compared(relay, 0, Instant::now());
        let may = today < u64::from(most.get());
        if !may {
            self.give_up_comparing("day_full");
        }
        may
    }

    /// Fetches the events that only the relay has, repeating while a round returns any. Returns how many
    /// never arrived; `None` when the relay is too slow.
    async fn fetch(&mut self, ids: Vec<[u8; 32]>, tally: &mut Tally) -> Result<Option<usize>, SyncError> {
        let mut wanted: HashSet<EventId> = ids.into_iter().map(EventId::from_byte_array).collect();
        let mut at_once = IDS_MAX.min(self.limit);
        loop {
            let left: Vec<EventId> = wanted.iter().copied().collect();
            let mut most = 0;
            for some in left.chunks(at_once) {
                let (events, refused) = match self.ask_for(some, &mut wanted).await {
                    Err(error) if self.mark_too_slow(&error) => return Ok(None),
                    answer => answer?,
                };
                tally.add(events.len(), 1);
                most = most.max(events.len());
                self.count_shown(events.len(), true);
                self.delivery.offer(events, refused).await?;
                self.deliver_live().await?;
                if !self.judge_rate().await? {
                    return Ok(None);
                }
            }
            if wanted.is_empty() || most == 0 {
                return Ok(Some(wanted.len()));
            }
            at_once = most;
        }
    }
}

/// The events that both sides have according to the relay: the claims without a recorded sighting, and the
/// total number.
fn claimed(ours: &Holdings, difference: &Difference) -> (Claims, usize) {
    let lacking: HashSet<&[u8; 32]> = difference.have.iter().collect();
    let (mut claims, mut shared) = (Claims::default(), 0);
    for held in ours.held.iter().filter(|held| !lacking.contains(held.id.as_bytes())) {
        shared += 1;
        if !held.is_sighted {
            claims.add(held.event, held.id, ours.as_of);
        }
    }
    (claims, shared)
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
