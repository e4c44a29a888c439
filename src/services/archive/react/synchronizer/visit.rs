//! One session with one relay: read what is not proven yet, then listen, and compare again from time to time.

use std::future::Future;
use std::time::Duration;

use nostr_sdk::{Filter, Timestamp};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::claims::Claims;
use super::crawl::{Assignment, Crawl, SyncError};
use super::delivery::Delivery;
use super::places::Place;
use super::{Idle, Live};
use crate::base::nostr_event::Refusals;
use crate::net::relay::{AnswerPage, RelayError, RelaySession};
use crate::services::archive::append::visits;
use crate::services::archive::decide::{Habits, Look, open_windows};
use crate::services::archive::event::Window;
use crate::services::archive::read;
use crate::store::Relay;
use crate::store::ingest::PageOutcome;

/// A relay that says it gives fewer events at once is not believed: its own behaviour tells.
const LIMIT_MIN: usize = 10;

/// What a session brought.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Events that were new.
    pub(super) stored: u64,
    /// Events that were not.
    pub(super) known: u64,
    /// Events refused.
    pub(super) refused: Refusals,
}

impl Report {
    pub(super) fn add(&mut self, outcome: &PageOutcome) {
        self.stored += u64::from(outcome.stored);
        self.known += u64::from(outcome.known);
        self.refused.merge(&outcome.refused);
    }
}

/// A session under way.
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one connection")]
pub(super) struct Visit<'a> {
    pub(super) crawl: &'a Crawl,
    pub(super) assignment: Assignment,
    /// Ends the session.
    pub(super) stop: &'a CancellationToken,
    /// Where the session says whether it may give way.
    pub(super) live: &'a Live,
    /// Held while the past of the relay is read.
    pub(super) place: Option<Place<'a>>,
    /// Events of answers since the pace was last judged, each counted once.
    pub(super) shown: u64,
    /// Whether these events prove a window, or were asked for by their ids.
    pub(super) has_proven: bool,
    pub(super) session: RelaySession,
    pub(super) delivery: Delivery,
    /// Events asked for at a time.
    pub(super) limit: usize,
    /// What its answers told of its ways.
    pub(super) habits: Habits,
    /// What it claimed in comparisons and has not proven.
    pub(super) claims: Claims,
    /// Whether this relay is compared with rather than downloaded from.
    pub(super) compares: bool,
    /// When what is recorded next was asked for at the earliest, unix seconds.
    pub(super) asked_at: i64,
    /// Whether the relay is listened to after it was read with care; `None` when it needs none.
    pub(super) care: Option<bool>,
    pub(super) listens: bool,
    /// Ends the wait for the next comparison when nothing is sent in between.
    deaf: CancellationToken,
    has_authenticated: bool,
    has_listened_again: bool,
}

/// Runs until the relay ends it, or `stop` does. `live` is told while the session is idle.
pub(super) async fn run(
    crawl: &Crawl,
    assignment: Assignment,
    stop: &CancellationToken,
    live: &Live,
) -> Result<(), SyncError> {
    let (url, patience) = (assignment.url.clone(), crawl.patience(assignment.url.network()));
    // A session that does not listen connects when it has its place: until then it would not answer the relay.
    let place = if crawl.settings.live {
        None
    } else {
        let taken = stop.run_until_cancelled(crawl.places.take(crawl.is_slow(assignment.relay))).await;
        let Some(place) = taken else { return Ok(()) };
        Some(place)
    };
    let compares = compares(crawl, &assignment).await?;
    let connecting = RelaySession::connect(&crawl.parts.outside, &url, assignment.trust, patience);
    // Waiting for a relay must not hold up the end: nothing was asked for yet.
    let Some(session) = stop.run_until_cancelled(connecting).await else { return Ok(()) };
    let settings = &crawl.settings;
    // Some say 0 and mean that there is no limit.
    let max_limit = assignment.max_limit.filter(|limit| *limit >= LIMIT_MIN).unwrap_or(usize::MAX);
    let limit = settings.page_events.get().min(max_limit);
    let relay = assignment.relay;
    let care = crawl.care(relay);
    let mut visit = Visit {
        crawl,
        delivery: Delivery::new(crawl.parts.intake.clone(), assignment.relay),
        assignment,
        stop,
        live,
        place,
        shown: 0,
        has_proven: false,
        session: session?,
        limit,
        habits: Habits::default(),
        claims: Claims::default(),
        compares,
        asked_at: crawl.parts.clock.now().timestamp(),
        care,
        listens: false,
        deaf: CancellationToken::new(),
        has_authenticated: false,
        has_listened_again: false,
    };
    let mut ended = visit.stay().await;
    match (&ended, care) {
        (Err(SyncError::Relay(RelayError::TooLarge { .. })), _) => {
            crawl.take_care(relay, care.is_some() && visit.listens);
        }
        (Ok(()), Some(_)) => crawl.take_care(relay, false),
        _ => {}
    }
    // What was sent is kept, however the session ended.
    let heard = visit.deliver_live().await;
    let delivered = heard.and(visit.delivery.finish().await);
    if ended.is_ok() {
        ended = delivered;
    }
    visit.place = None;
    let told = visit.tell().await;
    visit.session.close().await;
    ended.and(told)
}

/// Whether the relay is compared with at all: it says that it speaks NIP-77 or says nothing, no comparison with it went wrong, and it
/// needs no care.
async fn compares(crawl: &Crawl, assignment: &Assignment) -> Result<bool, SyncError> {
    let (settings, relay) = (&crawl.settings, assignment.relay);
    if !settings.negentropy
        || assignment.negentropy == Some(false)
        || !crawl.may_compare(relay)
        || crawl.care(relay).is_some()
    {
        return Ok(false);
    }
    let forgotten = i32::try_from(settings.recheck_all_days.get())?;
    Ok(!read::is_false_in_comparisons(&crawl.parts.doors.session, relay, forgotten).await?)
}

impl Visit<'_> {
    async fn stay(&mut self) -> Result<(), SyncError> {
        if !self.crawl.settings.live {
            self.catch_up().await?;
            return self.tell().await;
        }
        if self.care.is_none() {
            self.listen().await?;
        }
        loop {
            if !self.take_place().await? {
                return Ok(());
            }
            self.catch_up().await?;
            self.tell().await?;
            if self.care == Some(true) && !self.listens {
                self.listen().await?;
            }
            if !self.listens || self.stop.is_cancelled() {
                return Ok(());
            }
            self.place = None;
            self.crawl.went_well(self.assignment.relay);
            self.live.set(Some(Idle { since: Instant::now(), is_up_to_date: true }));
            let interval = Duration::from_secs(self.crawl.settings.interval_s.get().into());
            let deaf = self.deaf.clone();
            let pause = async move { deaf.run_until_cancelled(sleep(interval)).await };
            if self.meanwhile(pause).await?.flatten().is_none() {
                return Ok(());
            }
        }
    }

    /// Reads every window that is not proven, newest first.
    async fn catch_up(&mut self) -> Result<(), SyncError> {
        for window in open(self.crawl, self.assignment.relay).await? {
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
        // A relay that was read to its end needs no place among the slow ones next time.
        self.crawl.set_slow(self.assignment.relay, false);
        Ok(visits::caught_up(&self.crawl.parts.doors, self.assignment.relay).await?)
    }

    /// Asks for everything that the relay gets from now on, whatever its date, and for what is too young to be in a window.
    async fn listen(&mut self) -> Result<(), SyncError> {
        let now = self.crawl.parts.clock.now().timestamp();
        let young = now - i64::from(self.crawl.settings.end_lag_s);
        let recent = Filter::new().since(Timestamp::from_secs(u64::try_from(young)?)).limit(self.limit);
        // A limit binds only what is stored already (N-01.8).
        self.session.listen(&[recent, Filter::new().limit(1)]).await?;
        self.listens = true;
        Ok(())
    }

    /// Waits for something and stores what the relay sends meanwhile. `None` when stopped.
    pub(super) async fn meanwhile<T>(
        &mut self,
        what: impl Future<Output = T> + Send,
    ) -> Result<Option<T>, SyncError> {
        let stop = self.stop;
        let mut what = std::pin::pin!(what);
        loop {
            let heard = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(None),
                value = &mut what => return Ok(Some(value)),
                delivered = self.delivery.next(), if !self.delivery.is_empty() => {
                    delivered?;
                    continue;
                }
                heard = self.session.wait_live(), if self.listens && !self.delivery.is_full() => heard,
            };
            match heard {
                Ok(()) => self.deliver_live().await?,
                Err(RelayError::Closed(why)) => self.not_listened_to(&why).await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The relay ended the live subscription.
    async fn not_listened_to(&mut self, why: &str) -> Result<(), SyncError> {
        self.listens = false;
        let wants_key = why.starts_with("auth-required:");
        let knows_us_now = wants_key && self.has_authenticated && !self.has_listened_again;
        if knows_us_now || self.may_authenticate(why).await? {
            self.has_listened_again = true;
            self.listen().await?;
        } else {
            self.deaf.cancel();
            tracing::debug!(relay.url = %self.assignment.url, why, "it does not send what it gets");
        }
        Ok(())
    }

    /// Hands over what came for the live subscription while something else was read.
    pub(super) async fn deliver_live(&mut self) -> Result<(), SyncError> {
        let heard = self.session.take_live();
        self.delivery.offer_live(heard).await
    }

    /// Asks, and once more after saying who we are if the relay wants to know (N-42.6).
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

    /// Says who we are, when that is why the relay refused.
    pub(super) async fn may_authenticate(&mut self, why: &str) -> Result<bool, SyncError> {
        let may = self.crawl.settings.authenticate
            && !self.has_authenticated
            && why.starts_with("auth-required:")
            && self.session.auth_challenge().is_some();
        if may {
            self.has_authenticated = true;
            self.session.authenticate(&self.crawl.parts.keys).await?;
        }
        Ok(may)
    }

    async fn tell(&mut self) -> Result<(), SyncError> {
        let report = self.delivery.take_report();
        Ok(self.crawl.tell(self.assignment.relay, &self.assignment.url, report).await?)
    }
}

/// Windows of a relay that are to be read now, newest first.
async fn open(crawl: &Crawl, relay: Relay) -> Result<Vec<Window>, SyncError> {
    let settings = &crawl.settings;
    let now = crawl.parts.clock.now().timestamp();
    let mut ages = vec![i64::from(settings.end_lag_s)];
    ages.extend(settings.recheck_after_s.iter().map(|age| i64::from(*age)));
    let forgotten = i32::try_from(settings.recheck_all_days.get())?;
    let session = &crawl.parts.doors.session;
    let settled = read::settled_windows(session, relay, &ages, forgotten).await?;
    let looks: Vec<Look> = ages
        .iter()
        .map(|age| Look {
            age_s: *age,
            settled: settled.iter().filter(|s| s.0 == *age).map(|s| s.1).collect(),
        })
        .collect();
    Ok(open_windows(i64::try_from(settings.since_unix_s)?, now, &looks))
}
