//! Results of a relay's checks, and the snapshot that is recorded from them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::document::Document;
use super::failure::{Checked, Failure};
use super::storable::storable;
use crate::services::archive::event::Snapshot;

/// Whether a relay demands authentication for reading (NIP-42).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// It answers without authentication.
    NotRequired,
    /// It demands authentication, and accepts our key.
    Accepted,
    /// It demands authentication, and refuses our key.
    Refused,
}

impl Auth {
    fn as_str(self) -> &'static str {
        match self {
            Self::NotRequired => "not_required",
            Self::Accepted => "accepted",
            Self::Refused => "refused",
        }
    }
}

/// Results of all checks of one relay. `None` means that the check was not made.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// The information document.
    pub document: Option<Checked<Document>>,
    /// Time for the connection and all handshakes.
    pub open: Option<Checked<Duration>>,
    /// Time until a REQ was answered. `None` as well when the relay only demands authentication, which is not
    /// a failure.
    pub read: Option<Checked<Duration>>,
    /// Whether reading requires authentication.
    pub auth: Option<Auth>,
    /// Time until the OK to a test event, provided the event could be read back.
    pub write: Option<Checked<Duration>>,
    /// DNS records, with the remaining TTL in seconds.
    pub dns: Option<Checked<(Value, Option<u32>)>>,
    /// The TLS certificate, valid or not.
    pub tls: Option<Value>,
    /// HTTP headers that identify the server software.
    pub http: BTreeMap<String, String>,
    /// Location of its address by the user's MaxMind city file.
    pub geo: Option<Value>,
    /// Autonomous system of its address by the user's MaxMind ASN file.
    pub net: Option<Value>,
}

/// Milliseconds, rounded up to at least 1.
fn millis(took: Duration) -> i32 {
    i32::try_from(took.as_micros().div_ceil(1_000).max(1)).unwrap_or(i32::MAX)
}

fn rtt(finding: Option<&Checked<Duration>>) -> Option<i32> {
    finding?.as_ref().ok().copied().map(millis)
}

impl Findings {
    /// The outcome for metrics: `ok`, `auth`, `unchecked`, or the reason why the relay cannot be read.
    #[must_use]
    pub fn outcome(&self) -> &'static str {
        match (&self.open, &self.read, self.auth) {
            (Some(Err(failure)), ..) | (_, Some(Err(failure)), _) => failure.reason,
            (_, Some(Ok(_)), _) => "ok",
            (.., Some(Auth::Refused)) => "auth",
            _ => "unchecked",
        }
    }

    /// Converts the findings into the snapshot to record.
    #[must_use]
    pub fn snapshot(self, generated_at: i64) -> Snapshot {
        let mut snapshot = Snapshot {
            generated_at,
            rtt_open: rtt(self.open.as_ref()),
            rtt_read: rtt(self.read.as_ref()),
            rtt_write: rtt(self.write.as_ref()),
            ..Snapshot::default()
        };
        snapshot.is_openable = snapshot.rtt_open.is_some();
        snapshot.is_readable = snapshot.rtt_read.is_some();
        snapshot.is_writable = self.write.as_ref().map(Result::is_ok);
        let mut detail = Map::new();
        let mut failures = Map::new();
        let mut failed = |check: &str, failure: &Failure| {
            let failure = json!({ "reason": failure.reason, "message": failure.message });
            failures.insert(check.to_owned(), failure);
        };
        for (check, finding) in [("open", &self.open), ("read", &self.read), ("write", &self.write)] {
            if let Some(Err(failure)) = finding {
                failed(check, failure);
            }
        }
        match self.document {
            Some(Ok(document)) => {
                if !document.oddities.is_empty() {
                    detail.insert("nip11".to_owned(), Value::Object(document.oddities));
                }
                snapshot.nip11 = Some(document.fields);
            }
            Some(Err(failure)) => failed("nip11", &failure),
            None => {}
        }
        match self.dns {
            Some(Ok((names, ttl))) => {
                detail.insert("dns".to_owned(), names);
                snapshot.dns_ttl = ttl.map(|ttl| i32::try_from(ttl).unwrap_or(i32::MAX));
            }
            Some(Err(failure)) => failed("dns", &failure),
            None => {}
        }
        if let Some(auth) = self.auth {
            detail.insert("auth".to_owned(), auth.as_str().into());
        }
        if !self.http.is_empty() {
            detail.insert("http".to_owned(), json!(self.http));
        }
        for (check, found) in [("tls", self.tls), ("geo", self.geo), ("net", self.net)] {
            detail.extend(found.map(|found| (check.to_owned(), found)));
        }
        if !failures.is_empty() {
            detail.insert("failures".to_owned(), Value::Object(failures));
        }
        // Certificates, DNS names and headers are chosen by the relay as well.
        snapshot.detail = storable(detail);
        snapshot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_succeeded_has_a_time_and_what_failed_a_reason() {
        let found = Findings {
            open: Some(Ok(MS * 12)),
            read: Some(Err(Failure::new("silent", "nothing for 30 s"))),
            document: Some(Err(Failure::new("not_json", "HTML"))),
            ..Findings::default()
        };
        assert_eq!(found.outcome(), "silent");
        let snapshot = found.snapshot(1_000);
        assert!(snapshot.is_openable && !snapshot.is_readable);
        assert_eq!(snapshot.is_writable, None, "it was not tested");
        assert_eq!((snapshot.rtt_open, snapshot.rtt_read, snapshot.nip11.as_ref()), (Some(12), None, None));
        assert_eq!(snapshot.failure("read"), Some("silent"));
        assert_eq!(snapshot.failure("nip11"), Some("not_json"));
        assert_eq!(snapshot.failure("open"), None);
        assert_eq!(snapshot.generated_at, 1_000);
    }

    #[test]
    fn n_42_9_a_relay_that_wants_a_key_is_a_finding_and_no_failure() {
        let found = Findings { open: Some(Ok(MS)), auth: Some(Auth::Refused), ..Findings::default() };
        assert_eq!(found.outcome(), "auth");
        let snapshot = found.snapshot(0);
        assert!(snapshot.is_openable && !snapshot.is_readable);
        assert_eq!(Value::Object(snapshot.detail), json!({ "auth": "refused" }));
    }

    #[test]
    fn nul_in_what_a_relay_says_of_itself_can_be_stored() {
        let http = BTreeMap::from([("server".to_owned(), "a\0".to_owned())]);
        let found = Findings { tls: Some(json!({ "subject": ["\0b"] })), http, ..Findings::default() };
        let expected = json!({ "tls": { "subject": ["\u{2400}b"] }, "http": { "server": "a\u{2400}" } });
        assert_eq!(Value::Object(found.snapshot(0).detail), expected);
    }

    #[test]
    fn what_differs_every_time_is_apart_from_the_result() {
        let of = |rtt: u32, ttl: u32| {
            let dns = Some(Ok((json!({ "a": ["192.0.2.1"] }), Some(ttl))));
            Findings { open: Some(Ok(MS * rtt)), dns, ..Findings::default() }.snapshot(7)
        };
        let (one, other) = (of(3, 60), of(80, 7));
        assert_eq!(one.detail, other.detail);
        assert_ne!(one.nip66()["dns_ttl"], other.nip66()["dns_ttl"]);
        assert_eq!(other.nip66()["rtt_open"], 80);
    }

    #[test]
    fn a_success_takes_at_least_a_millisecond() {
        assert_eq!(millis(Duration::ZERO), 1);
        assert_eq!(millis(Duration::from_micros(1_001)), 2);
        assert_eq!(millis(Duration::MAX), i32::MAX);
    }
}
