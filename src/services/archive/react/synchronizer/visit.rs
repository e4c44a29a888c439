//! One session with one relay: reads the windows that are not proven yet, then listens, and repeats both at
//! intervals.
//!
//! | state | event | next state |
//! |---|---|---|
//! | waiting for a place before connecting (`live: false`) | place granted | connecting |
//! | connecting | connected | reading if it holds a place; else waiting for one (normal mode: listening) |
//! | waiting for a place | place granted | reading |
//! | reading | relay below the minimum rate, or turn over | waiting for a place (see `places.rs`) |
//! | reading | all windows walked | idle if it may listen; else ended |
//! | idle, listening | `interval_s` passed | waiting for a place |
//! | any, listening | relay closes the subscription | same if NIP-42 reopens it; if not, idle becomes ended |
//! | any | `stop` or an error | ended (see `outcome.rs`); events received so far are committed |
//!
//! In careful mode (`ReadMode`) the session listens only after reading, or not at all.

use std::future::Future;
use std::time::Duration;

use nostr_sdk::{Filter, Timestamp};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::agenda::ReadMode;
use super::claims::Claims;
use super::crawl::{Assignment, Crawl, SyncError};
use super::delivery::Delivery;
use super::places::Place;
use super::{Idle, IdleState};
use crate::base::nostr_event::Refusals;
use crate::net::relay::{AnswerPage, RelayError, RelaySession};
use crate::services::archive::append::visits;
use crate::services::archive::decide::{Habits, Recheck, may_stay_open, open_windows, unsettled_since};
use crate::services::archive::event::Window;
use crate::services::archive::read;
use crate::store::Relay;
use crate::store::ingest::PageOutcome;

/// A smaller announced limit is ignored; the answers themselves show the relay's limit. Some relays announce
/// 0 and mean "no limit".
const LIMIT_MIN: usize = 10;

/// Counts of a session since its last report.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) stored: u64,
    /// Events that were stored before.
    pub(super) known: u64,
    pub(super) refused: Refusals,
}

impl Report {
    pub(super) fn add(&mut self, outcome: &PageOutcome) {
        self.stored += u64::from(outcome.stored);
        self.known += u64::from(outcome.known);
        self.refused.merge(&outcome.refused);
    }
}

pub(super) struct Visit<'a> {
    pub(super) crawl: &'a Crawl,
    pub(super) assignment: Assignment,
    /// Cancelled when the session must end.
    pub(super) stop: &'a CancellationToken,
    /// Set while the session may be ended in favour of another relay.
    pub(super) idle_state: &'a IdleState,
    /// Held while stored events of the relay are read.
    pub(super) place: Option<Place<'a>>,
    /// Events of answers since the delivery rate was last judged, each counted once.
    pub(super) shown: u64,
    /// True if these events prove a window or were requested by id.
    pub(super) has_proven: bool,
    pub(super) session: RelaySession,
    pub(super) delivery: Delivery,
    /// Limit on events per request.
    pub(super) limit: usize,
    /// What its answers have shown about its behaviour.
    pub(super) habits: Habits,
    /// Claims from comparisons that are not checked yet.
    pub(super) claims: Claims,
    /// True while windows are compared (NIP-77) rather than downloaded.
    pub(super) compares: bool,
    /// Earliest request time of the verdicts that are recorded next, unix seconds.
    pub(super) asked_at: i64,
    /// Open windows that are recorded only if they hold events.
    pub(super) recent: Vec<Window>,
    pub(super) read_mode: ReadMode,
    /// True while the live subscription is open.
    pub(super) listens: bool,
    /// Cancelled when the relay closes the live subscription; ends the wait for the next round.
    live_closed: CancellationToken,
    authentication: Authentication,
}

/// Progress of authentication (NIP-42) within a session. It is done at most once, and reopens the live
/// subscription at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Authentication {
    NotDone,
    Done,
    DoneAndResubscribed,
}

/// Runs until the relay or `stop` ends the session. `idle_state` is set while the session is idle.
pub(super) async fn run(
    crawl: &Crawl,
    assignment: Assignment,
    stop: &CancellationToken,
    idle_state: &IdleState,
) -> Result<(), SyncError> {
    let (url, timeouts) = (assignment.url.clone(), crawl.timeouts(assignment.url.network()));
    // A session that does not listen connects only when it has its place: until then it would not read from
    // the connection.
    let place = if crawl.settings.live {
        None
    } else {
        let taken = stop.run_until_cancelled(crawl.places.take(crawl.is_slow(assignment.relay))).await;
        let Some(place) = taken else { return Ok(()) };
        Some(place)
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
        place,
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
    visit.place = None;
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
            if !self.take_place().await? {
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
            self.place = None;
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

    /// Reads every window that is not settled, newest first.
    async fn catch_up(&mut self) -> Result<(), SyncError> {
        let relay = self.assignment.relay;
        let (open, unsettled_since) = open(self.crawl, relay).await?;
        if let Some(since) = unsettled_since {
            visits::windows_left(&self.crawl.parts.pools, relay, since).await?;
        }
        self.recent =
            open.iter().filter(|(_, may_stay_open)| *may_stay_open).map(|(window, _)| *window).collect();
        for (window, _) in open {
            let left = if self.compares { self.compare(window).await? } else { vec![window] };
            for window in left {
                if self.stop.is_cancelled() {
                    return Ok(());
                }
                self.walk(window).await?;
            }
            if self.stop.is_cancelled() {
                return Ok(());
            }
        }
        // A relay that is caught up starts in the first pool next time.
        self.crawl.set_slow(relay, false);
        Ok(visits::caught_up(&self.crawl.parts.pools, relay).await?)
    }

    /// Subscribes to everything that the relay receives from now on, whatever its date, and to events too
    /// recent for a window.
    async fn listen(&mut self) -> Result<(), SyncError> {
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

    /// Authenticates if that is why the relay refused. Returns true if the request may be repeated.
    pub(super) async fn may_authenticate(&mut self, why: &str) -> Result<bool, SyncError> {
        let may = self.crawl.settings.authenticate
            && self.authentication == Authentication::NotDone
            && why.starts_with("auth-required:")
            && self.session.auth_challenge().is_some();
        if may {
            self.authentication = Authentication::Done;
            self.session.authenticate(&self.crawl.parts.keys).await?;
        }
        Ok(may)
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
