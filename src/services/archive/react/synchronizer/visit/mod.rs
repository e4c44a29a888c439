//! One session with one relay: reads the windows that are not proven yet, then listens, and repeats both at
//! intervals.
//!
//! | state | event | next state |
//! |---|---|---|
//! | waiting for a slot before connecting (`live: false`) | slot granted | connecting |
//! | connecting | connected | reading if it holds a slot; else waiting for one (normal mode: listening) |
//! | waiting for a slot | slot granted | reading |
//! | reading | relay below the minimum rate, or turn over | waiting for a slot (see `slots.rs`) |
//! | reading | all windows settled | idle if it may listen; else ended |
//! | idle, listening | `interval_s` passed | waiting for a slot |
//! | any, listening | relay closes the subscription | same if NIP-42 reopens it; if not, idle becomes ended |
//! | any | `stop` or an error | ended (see `outcome.rs`); events received so far are committed |
//!
//! In careful mode (`ReadMode`) the session listens only after reading, or not at all. An idle session, and
//! one of a slow relay that waits for a slot, may be stopped in favour of another relay.
//!
//! Reading goes through the open windows, newest first. Each window is read as follows:
//!
//! | state | event | next state |
//! |---|---|---|
//! | open | it may be compared (NIP-77) and holds enough archived events | comparing; else walking |
//! | comparing a part (`reconcile.rs`) | the differences are fetched | claimed; the next older part |
//! | comparing a part | too much for the relay, or announced | comparing its newer half; after 8 times walking |
//! | comparing a part | the relay cannot compare, or is too slow | walking, without comparing from now on |
//! | claimed (`claims.rs`) | the relay sends the sample of its claims | recorded as complete or as a gap |
//! | claimed | it does not, or is too slow in it | walking, without comparing from now on |
//! | walking (`pages.rs`) | an answer | by the table in `decide/walk/mod.rs`; verdicts are recorded |
//! | walking | one second fills a page | comparing that second, if it may be compared |
//! | walking | a message over the size limit, not listening | its part of the window is narrowed; ended |
//!
//! The files are layers, listed from the top; each calls only files below it: `pages.rs` (walking),
//! `reconcile.rs` (comparing), `claims.rs` (samples), `record.rs` (verdicts), `ask.rs` (one request),
//! `slot.rs` (the slot and the delivery rate), `live.rs` (the subscription), `authentication.rs` (NIP-42),
//! `delivery.rs` (commits).

mod ask;
mod authentication;
mod claims;
mod delivery;
mod live;
mod pages;
mod reconcile;
mod record;
mod slot;

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::agenda::ReadMode;
use super::crawl::{Assignment, Crawl};
use super::error::SyncError;
use super::slots::Slot;
use super::{Idle, IdleState};
use crate::net::relay::{RelayError, RelaySession};
use crate::services::archive::append::visits;
use crate::services::archive::decide::{Habits, Recheck, may_stay_open, open_windows, unsettled_since};
use crate::services::archive::event::Window;
use crate::services::archive::read;
use crate::store::Relay;
use authentication::Authentication;
use claims::Claims;
use delivery::Delivery;

/// A smaller announced limit is ignored; the answers themselves show the relay's limit. Some relays announce
/// 0 and mean "no limit".
const LIMIT_MIN: usize = 10;

struct Visit<'a> {
    crawl: &'a Crawl,
    assignment: Assignment,
    /// Cancelled when the session must end.
    stop: &'a CancellationToken,
    /// Set while the session may be ended in favour of another relay.
    idle_state: &'a IdleState,
    /// Held while stored events of the relay are read.
    slot: Option<Slot<'a>>,
    /// Events of answers since the delivery rate was last judged, each counted once.
    shown: u64,
    /// True if these events prove a window or were requested by id.
    has_proven: bool,
    session: RelaySession,
    delivery: Delivery,
    /// Limit on events per request.
    limit: usize,
    /// What its answers have shown about its behaviour.
    habits: Habits,
    /// Claims from comparisons that are not checked yet.
    claims: Claims,
    /// True while windows are compared (NIP-77) rather than downloaded.
    compares: bool,
    /// Earliest request time of the verdicts that are recorded next, unix seconds.
    asked_at: i64,
    /// Open windows that are recorded only if they hold events.
    recent: Vec<Window>,
    read_mode: ReadMode,
    /// True while the live subscription is open.
    listens: bool,
    /// Cancelled when the relay closes the live subscription; ends the wait for the next round.
    live_closed: CancellationToken,
    authentication: Authentication,
}

/// Runs until the relay or `stop` ends the session. `idle_state` is set while the session is idle.
pub(super) async fn run(
    crawl: &Crawl,
    assignment: Assignment,
    stop: &CancellationToken,
    idle_state: &IdleState,
) -> Result<(), SyncError> {
    let (url, timeouts) = (assignment.url.clone(), crawl.timeouts(assignment.url.network()));
    // A session that does not listen connects only when it has its slot: until then it would not read from
    // the connection.
    let slot = if crawl.settings.live {
        None
    } else {
        let taken = stop.run_until_cancelled(crawl.slots.take(crawl.is_slow(assignment.relay))).await;
        let Some(slot) = taken else { return Ok(()) };
        Some(slot)
    };
    let compares = compares(crawl, &assignment).await?;
    let connecting = RelaySession::connect(&crawl.parts.outside, &url, assignment.trust, timeouts);
    // Connecting must not delay shutdown; nothing was requested yet, so nothing is lost.
    let Some(session) = stop.run_until_cancelled(connecting).await else { return Ok(()) };
    let settings = &crawl.settings;
    let max_limit = assignment.max_limit.filter(|limit| *limit >= LIMIT_MIN).unwrap_or(usize::MAX);
    let limit = settings.page_events.get().min(max_limit);
    let relay = assignment.relay;
    let read_mode = crawl.read_mode(relay);
    let mut visit = Visit {
        crawl,
        delivery: Delivery::new(&crawl.parts, &assignment),
        assignment,
        stop,
        idle_state,
        slot,
        shown: 0,
        has_proven: false,
        session: session?,
        limit,
        habits: Habits::default(),
        claims: Claims::default(),
        compares,
        asked_at: crawl.parts.clock.now().timestamp(),
        recent: Vec::new(),
        read_mode,
        listens: false,
        live_closed: CancellationToken::new(),
        authentication: Authentication::NotDone,
    };
    let mut ended = visit.run_session().await;
    match (&ended, read_mode) {
        // In careful mode, a session that listens has received the message through the live subscription.
        (Err(SyncError::Relay(RelayError::TooLarge { .. })), _) => {
            crawl.read_carefully(relay, read_mode != ReadMode::Normal && visit.listens);
        }
        (Ok(()), ReadMode::Careful | ReadMode::CarefulWithoutLive) => crawl.read_carefully(relay, false),
        _ => {}
    }
    // Events received before the end are kept, however the session ended.
    let received = visit.deliver_live().await;
    let delivered = received.and(visit.delivery.finish().await);
    if ended.is_ok() {
        ended = delivered;
    }
    visit.slot = None;
    let recorded = visit.record_report().await;
    visit.session.close().await;
    ended.and(recorded)
}

/// True if the relay is compared with at all: it does not deny NIP-77, no comparison with it has failed, and
/// it is not read in careful mode.
async fn compares(crawl: &Crawl, assignment: &Assignment) -> Result<bool, SyncError> {
    let (settings, relay) = (&crawl.settings, assignment.relay);
    if !settings.negentropy
        || assignment.negentropy == Some(false)
        || !crawl.may_compare(relay)
        || crawl.read_mode(relay) != ReadMode::Normal
    {
        return Ok(false);
    }
    let forgotten = i32::try_from(settings.recheck_all_days.get())?;
    Ok(!read::is_false_in_comparisons(&crawl.parts.pools.session, relay, forgotten).await?)
}

impl Visit<'_> {
    async fn run_session(&mut self) -> Result<(), SyncError> {
        if !self.crawl.settings.live {
            self.catch_up().await?;
            return self.record_report().await;
        }
        if self.read_mode == ReadMode::Normal {
            self.listen().await?;
        }
        loop {
            if !self.take_slot().await? {
                return Ok(());
            }
            self.catch_up().await?;
            self.record_report().await?;
            if self.read_mode == ReadMode::Careful && !self.listens {
                self.listen().await?;
            }
            if !self.listens || self.stop.is_cancelled() {
                return Ok(());
            }
            self.slot = None;
            self.crawl.went_well(self.assignment.relay);
            self.idle_state.set(Some(Idle { since: Instant::now(), is_up_to_date: true }));
            let interval = Duration::from_secs(self.crawl.settings.interval_s.get().into());
            let live_closed = self.live_closed.clone();
            let pause = async move { live_closed.run_until_cancelled(sleep(interval)).await };
            if self.while_storing_live(pause).await?.flatten().is_none() {
                return Ok(());
            }
        }
    }

    /// Reads every window that is not settled, newest first. What waited for the end of a search for an
    /// oversized message is read after it.
    async fn catch_up(&mut self) -> Result<(), SyncError> {
        if !self.read_open_windows().await? {
            // All of the search was read without failure.
            self.crawl.agenda().resume_search(self.assignment.relay.0, i64::MAX);
            self.read_open_windows().await?;
        }
        Ok(())
    }

    /// Reads the windows that are open. Returns false if the search for an oversized message has kept some of
    /// them from being read.
    async fn read_open_windows(&mut self) -> Result<bool, SyncError> {
        let relay = self.assignment.relay;
        let (open, unsettled_since) = open(self.crawl, relay).await?;
        if let Some(oldest) = open.iter().map(|(window, _)| window.since).min() {
            self.crawl.agenda().resume_search(relay.0, oldest);
        }
        if let Some(since) = unsettled_since {
            visits::windows_left(&self.crawl.parts.pools, relay, since).await?;
        }
        self.recent =
            open.iter().filter(|(_, may_stay_open)| *may_stay_open).map(|(window, _)| *window).collect();
        let mut is_whole = true;
        for (window, _) in open {
            let left = if self.compares { self.compare(window).await? } else { vec![window] };
            for window in left {
                if self.stop.is_cancelled() {
                    return Ok(true);
                }
                is_whole &= self.walk(window).await?;
            }
            if self.stop.is_cancelled() {
                return Ok(true);
            }
        }
        if is_whole {
            // A relay that is caught up starts in the first pool next time.
            self.crawl.set_slow(relay, false);
            visits::caught_up(&self.crawl.parts.pools, relay).await?;
        }
        Ok(is_whole)
    }

    async fn record_report(&mut self) -> Result<(), SyncError> {
        let report = self.delivery.take_report();
        Ok(self.crawl.record_report(self.assignment.relay, &self.assignment.url, report).await?)
    }
}

/// Windows of a relay that must be read now, newest first, and whether each may stay open while it holds no
/// events; and the oldest second that was never settled, as [`unsettled_since`].
async fn open(crawl: &Crawl, relay: Relay) -> Result<(Vec<(Window, bool)>, Option<i64>), SyncError> {
    let settings = &crawl.settings;
    let now = crawl.parts.clock.now().timestamp();
    let mut ages = vec![i64::from(settings.end_lag_s)];
    ages.extend(settings.recheck_after_s.iter().map(|age| i64::from(*age)));
    let forgotten = i32::try_from(settings.recheck_all_days.get())?;
    let session = &crawl.parts.pools.session;
    let settled = read::settled_windows(session, relay, &ages, forgotten).await?;
    let rechecks: Vec<Recheck> = ages
        .iter()
        .map(|age| Recheck {
            age_s: *age,
            settled: settled.iter().filter(|s| s.0 == *age).map(|s| s.1).collect(),
        })
        .collect();
    let since = i64::try_from(settings.since_unix_s)?;
    let open = open_windows(since, now, &rechecks);
    let open = open.into_iter().map(|window| (window, may_stay_open(window, now, &rechecks))).collect();
    Ok((open, unsettled_since(since, now, &rechecks)))
}
