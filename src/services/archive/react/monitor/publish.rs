//! The loop `monitor-publisher` of the monitor: publishes one report per snapshot (NIP-66), with a pause
//! between reports, and the monitor's announcement.

use std::collections::HashMap;
use std::time::Duration;

use nostr_sdk::{Event, EventBuilder, Keys, Kind, Metadata, Tag, Timestamp};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::check::Checker;
use super::{MonitorError, MonitorParts};
use crate::base::{Network, RelayUrl};
use crate::config;
use crate::lifecycle::{CycleOutcome, Service, guarded, set_aside};
use crate::net::Trust;
use crate::net::relay::{RelayError, RelaySession, Timeouts};
use crate::services::archive::decide::{MonitorProfile, announcement, report};
use crate::services::archive::read;

/// Interval of the monitor's announcement.
const ANNOUNCE_EVERY: Duration = Duration::from_hours(24);

/// Sessions are closed when no report arrives for this long.
const IDLE_MAX: Duration = Duration::from_mins(1);

/// Pause before a relay that could not be reached is tried again, so that it does not delay the other relays
/// each time.
const RETRY_PAUSE: Duration = Duration::from_mins(5);

/// A relay to publish to.
enum Target {
    Open(Box<RelaySession>),
    RetryAt(Instant),
}

type Targets = HashMap<RelayUrl, Target>;

/// The loop `monitor-publisher`. Its sessions stay open while there are reports.
#[derive(Debug)]
pub struct Publisher {
    parts: MonitorParts,
    settings: config::Monitor,
    networks: config::Networks,
    profile: MonitorProfile,
    keys: Keys,
    waiting: Mutex<mpsc::Receiver<RelayUrl>>,
    announced: Mutex<Option<Instant>>,
}

impl Publisher {
    pub(super) fn new(
        parts: &MonitorParts,
        checker: &Checker,
        keys: Keys,
        waiting: mpsc::Receiver<RelayUrl>,
    ) -> Self {
        Self {
            parts: parts.clone(),
            settings: checker.settings.clone(),
            networks: checker.networks.clone(),
            profile: profile(checker),
            keys,
            waiting: Mutex::new(waiting),
            announced: Mutex::default(),
        }
    }

    /// The monitor's announcement, and if it has a name also its profile and relay list.
    fn own_events(&self) -> Result<Vec<Event>, MonitorError> {
        let mut drafts = vec![announcement(&self.profile)];
        if let Some(name) = &self.settings.publish_name {
            let about = "A relay monitor (NIP-66).";
            drafts.push(EventBuilder::metadata(&Metadata::new().name(name).about(about)));
            let relays = self.settings.publish_relays.iter();
            let relays = relays.filter_map(|url| Tag::parse(["r", url, "write"]).ok());
            drafts.push(EventBuilder::new(Kind::RelayList, "").tags(relays));
        }
        let now = Timestamp::from_secs(self.parts.clock.now().timestamp().unsigned_abs());
        drafts.into_iter().map(|draft| self.sign(draft, now)).collect()
    }

    fn sign(&self, draft: EventBuilder, at: Timestamp) -> Result<Event, MonitorError> {
        let event = draft.custom_created_at(at).sign_with_keys(&self.keys);
        event.map_err(|error| MonitorError::Sign(error.to_string()))
    }

    /// The report of a relay's latest snapshot, dated like the snapshot; snapshots of a relay grow in time.
    async fn report_event(&self, url: &RelayUrl) -> Result<Option<Event>, MonitorError> {
        let newest = read::newest_snapshot(&self.parts.pools.session, url.as_str()).await?;
        let Some(snapshot) = newest else { return Ok(None) };
        let at = Timestamp::from_secs(snapshot.generated_at.unsigned_abs());
        self.sign(report(url, &snapshot), at).map(Some)
    }

    /// Publishes the report of one relay. A report that cannot be made is skipped until the relay's next
    /// check; only an outage of the database is returned as an error.
    async fn report(&self, url: &RelayUrl, targets: &mut Targets) -> Result<(), MonitorError> {
        let work = async {
            if let Some(event) = self.report_event(url).await? {
                self.publish(&[event], targets).await;
            }
            Ok(())
        };
        let reason = match guarded("monitor_report", url.as_str(), work).await {
            Ok(Err(error)) if !MonitorError::is_outage(&error) => error.to_string(),
            Ok(ended) => return ended,
            Err(panicked) => panicked.to_string(),
        };
        self.parts.metrics.reported("failed");
        set_aside("monitor_report", url.as_str(), Some(self.profile.interval), &reason);
        Ok(())
    }

    /// Sends events to every relay of the settings. A refusal is counted and does not stop the others.
    async fn publish(&self, events: &[Event], targets: &mut Targets) {
        for url in self.settings.publish_relays.iter().filter_map(|url| RelayUrl::parse(url).ok()) {
            for event in events {
                let outcome = match self.offer(event, &url, targets).await {
                    Ok(Some(true)) => "accepted",
                    Ok(Some(false)) => "refused",
                    Ok(None) => "away",
                    Err(error) => {
                        tracing::warn!(relay.url = %url, "publishing to {url} failed: {error}");
                        targets.insert(url.clone(), Target::RetryAt(Instant::now() + RETRY_PAUSE));
                        error.reason()
                    }
                };
                self.parts.metrics.reported(outcome);
            }
        }
    }

    /// True if the relay accepted the event; `None` while the relay's retry pause lasts.
    async fn offer(
        &self,
        event: &Event,
        url: &RelayUrl,
        targets: &mut Targets,
    ) -> Result<Option<bool>, RelayError> {
        match targets.get_mut(url) {
            Some(Target::RetryAt(until)) if *until > Instant::now() => return Ok(None),
            Some(Target::Open(session)) => {
                // A session that the relay has closed while it was idle is replaced. After an error the event
                // is not sent again, because the relay may have it.
                if session.is_open() {
                    return self.send(event, session).await.map(Some);
                }
            }
            Some(Target::RetryAt(_)) | None => {}
        }
        let timeouts = Timeouts::from(self.networks.get(url.network()));
        let mut session = RelaySession::connect(&self.parts.outside, url, Trust::Named, timeouts).await?;
        let accepted = self.send(event, &mut session).await?;
        targets.insert(url.clone(), Target::Open(Box::new(session)));
        Ok(Some(accepted))
    }

    async fn send(&self, event: &Event, session: &mut RelaySession) -> Result<bool, RelayError> {
        let answer = session.publish(event).await?;
        if answer.accepted || !answer.message.starts_with("auth-required:") {
            return Ok(answer.accepted);
        }
        session.authenticate(&self.keys).await?;
        Ok(session.publish(event).await?.accepted)
    }

    async fn announce(&self, targets: &mut Targets) -> Result<(), MonitorError> {
        let mut announced = self.announced.lock().await;
        if announced.is_none_or(|at| at.elapsed() >= ANNOUNCE_EVERY) {
            self.publish(&self.own_events()?, targets).await;
            *announced = Some(Instant::now());
        }
        Ok(())
    }
}

fn profile(checker: &Checker) -> MonitorProfile {
    let clearnet = checker.networks.get(Network::Clearnet);
    let seconds = |s: std::num::NonZeroU32| Some(Duration::from_secs(s.get().into()));
    let mut checks = vec![
        ("open", seconds(clearnet.connect_timeout_s)),
        ("read", seconds(clearnet.idle_timeout_s)),
        ("auth", None),
        ("nip11", Some(checker.document_timeout(Network::Clearnet))),
        ("dns", None),
        ("ssl", None),
    ];
    if checker.settings.write_check {
        checks.push(("write", seconds(clearnet.idle_timeout_s)));
    }
    if checker.settings.geo_city_file.is_some() {
        checks.push(("geo", None));
    }
    MonitorProfile { interval: Duration::from_secs(checker.settings.interval_s.get().into()), checks }
}

impl Service for Publisher {
    type Error = MonitorError;

    fn name(&self) -> &'static str {
        "monitor-publisher"
    }

    async fn cycle(&self, drain: &CancellationToken) -> Result<CycleOutcome, MonitorError> {
        let mut waiting = self.waiting.lock().await;
        let mut targets = Targets::new();
        let work = async {
            self.announce(&mut targets).await?;
            while let Ok(Some(url)) = timeout(IDLE_MAX, waiting.recv()).await {
                self.report(&url, &mut targets).await?;
                sleep(Duration::from_millis(self.settings.publish_pause_ms.into())).await;
            }
            Ok(CycleOutcome::Idle)
        };
        // Reports that wait when the process ends are published after the next check.
        let ended = tokio::select! {
            ended = work => ended,
            () = drain.cancelled() => Ok(CycleOutcome::Done),
        };
        for (_, target) in targets {
            if let Target::Open(session) = target {
                session.close().await;
            }
        }
        ended
    }
}
