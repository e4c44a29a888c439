//! Checks of a relay over its WebSocket: open, read and, if enabled, write (NIP-66).

use std::collections::BTreeMap;
use std::time::Duration;

use nostr_sdk::{Event, EventBuilder, Filter, Keys, Kind, Tag, Timestamp};
use tokio::time::{Instant, timeout_at};

use crate::base::RelayUrl;
use crate::net::relay::{Published, RelayError, RelaySession, Timeouts};
use crate::net::{Certificate, DialError, Egress, Trust};
use crate::services::archive::decide::{Auth, Checked, Failure};

/// Kind of the write check's test event. It is ephemeral, so no relay stores it, and it is never a report,
/// which would replace the real one (N-66.10).
const PROBE: Kind = Kind::Custom(22_456);

/// Seconds until the test event expires.
const PROBE_S: u64 = 60;

/// Results of the session's checks.
pub(super) struct SessionFindings {
    pub(super) open: Checked<Duration>,
    pub(super) read: Option<Checked<Duration>>,
    pub(super) auth: Option<Auth>,
    pub(super) write: Option<Checked<Duration>>,
    pub(super) certificate: Option<Certificate>,
    pub(super) headers: BTreeMap<String, String>,
}

/// Parameters of the session.
pub(super) struct SessionCheck<'a> {
    pub(super) outside: &'a Egress,
    pub(super) url: &'a RelayUrl,
    pub(super) trust: Trust,
    pub(super) timeouts: Timeouts,
    /// When all checks must have ended.
    pub(super) deadline: Instant,
    /// The time limit behind `deadline`, for messages.
    pub(super) limit: Duration,
    pub(super) keys: &'a Keys,
    pub(super) writes: bool,
    pub(super) now: Timestamp,
}

fn failure(error: &RelayError) -> Failure {
    match error {
        RelayError::Closed(said) | RelayError::AuthRefused(said) => Failure::refused(said),
        other => Failure::new(other.reason(), &other.to_string()),
    }
}

impl SessionCheck<'_> {
    async fn within<T>(&self, work: impl Future<Output = Result<T, RelayError>>) -> Result<T, RelayError> {
        timeout_at(self.deadline, work).await.unwrap_or(Err(RelayError::Slow(self.limit)))
    }

    /// Connects, reads, writes if enabled, and closes the session.
    pub(super) async fn run(&self) -> SessionFindings {
        let connecting = RelaySession::connect(self.outside, self.url, self.trust, self.timeouts);
        let mut session = match Box::pin(self.within(connecting)).await {
            Ok(session) => session,
            Err(error) => return not_connected(error),
        };
        let handshake = session.handshake();
        let (open, certificate) = (handshake.elapsed, handshake.certificate.clone());
        let headers = handshake.headers.clone();
        let (read, auth) = self.read(&mut session).await;
        let write = if self.writes { Some(self.write(&mut session, auth).await) } else { None };
        let _ = timeout_at(self.deadline, session.close()).await;
        SessionFindings { open: Ok(open), read, auth, write, certificate, headers }
    }

    /// Requests one event, and repeats the request after authenticating if the relay demands that. A refused
    /// authentication is not an outage (N-42.9).
    async fn read(&self, session: &mut RelaySession) -> (Option<Checked<Duration>>, Option<Auth>) {
        match self.ask(session).await {
            Ok(took) => return (Some(Ok(took)), Some(Auth::NotRequired)),
            Err(failure) if failure.wants_auth() => {}
            Err(failure) => return (Some(Err(failure)), None),
        }
        if self.within(session.authenticate(self.keys)).await.is_err() {
            return (None, Some(Auth::Refused));
        }
        match self.ask(session).await {
            Ok(took) => (Some(Ok(took)), Some(Auth::Accepted)),
            Err(_) => (None, Some(Auth::Refused)),
        }
    }

    async fn ask(&self, session: &mut RelaySession) -> Checked<Duration> {
        let begun = Instant::now();
        let answer = self.within(session.page(&Filter::new().limit(1))).await;
        answer.map(|_| begun.elapsed()).map_err(|error| failure(&error))
    }

    /// Publishes the test event and waits until the relay sends it back: an OK alone proves nothing.
    async fn write(&self, session: &mut RelaySession, auth: Option<Auth>) -> Checked<Duration> {
        let probe = self.probe()?;
        let (mut took, mut answer) = self.offer(session, &probe).await?;
        let refused = |answer: &Published| Failure::refused(&answer.message);
        if !answer.accepted && refused(&answer).wants_auth() && auth != Some(Auth::Accepted) {
            self.within(session.authenticate(self.keys)).await.map_err(|error| failure(&error))?;
            (took, answer) = self.offer(session, &probe).await?;
        }
        if !answer.accepted {
            return Err(refused(&answer));
        }
        let until = self.deadline.min(Instant::now() + self.timeouts.idle);
        while let Ok(Ok(())) = timeout_at(until, session.wait_live()).await {
            if session.take_live().events.iter().any(|event| event.id_matches && event.id == probe.id) {
                return Ok(took);
            }
        }
        Err(Failure::new(
            "not_read_back",
            "the relay accepted the event, but did not send it to a subscriber",
        ))
    }

    /// Subscribes to the test event and publishes it.
    async fn offer(&self, session: &mut RelaySession, probe: &Event) -> Checked<(Duration, Published)> {
        let filter = Filter::new().kind(PROBE).author(probe.pubkey).since(probe.created_at);
        self.within(session.listen(&[filter])).await.map_err(|error| failure(&error))?;
        let begun = Instant::now();
        let answer = self.within(session.publish(probe)).await.map_err(|error| failure(&error))?;
        Ok((begun.elapsed(), answer))
    }

    fn probe(&self) -> Checked<Event> {
        let tags = [
            Tag::expiration(self.now + PROBE_S),
            Tag::parse(["relay", self.url.as_str()]).expect("a tag has a name"),
        ];
        let probe = EventBuilder::new(PROBE, "").tags(tags).custom_created_at(self.now);
        probe.sign_with_keys(self.keys).map_err(|error| Failure::new("unsigned", &error.to_string()))
    }
}

/// The findings without a session. A failed handshake may still have shown the certificate.
fn not_connected(error: RelayError) -> SessionFindings {
    let open = Err(failure(&error));
    let certificate = match error {
        RelayError::Connect(DialError::Tls { certificate, .. }) => {
            certificate.map(|certificate| *certificate)
        }
        _ => None,
    };
    SessionFindings { open, read: None, auth: None, write: None, certificate, headers: BTreeMap::new() }
}
