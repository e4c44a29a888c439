//! Why an upstream did not do what was asked.

use std::time::Duration;

use crate::net::FetchError;
use crate::net::objects::ObjectError;
use crate::services::blossom::decide::breaker::Outcome;
use crate::services::blossom::metrics::CallOutcome;

/// Longest reason, characters: it stands in rows.
const REASON_CHARS_MAX: usize = 200;

/// The reason for bytes of another hash.
const OTHER_BYTES: &str = "it gave other bytes";

/// Why an upstream did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct UpstreamError {
    /// Status of its answer; `None` if there was none.
    pub status: Option<u16>,
    /// The reason in one line, for rows and logs: printable, at most 200 characters. May contain the header `X-Reason`
    /// of the upstream, never its body.
    pub reason: String,
    /// Whether it lies with the client, its token or its blob: another upstream answers the same.
    pub is_clients_fault: bool,
    /// Whether a later attempt may succeed.
    pub retry: bool,
    /// What it says about the upstream.
    pub(super) outcome: Outcome,
    is_slow: bool,
}

impl UpstreamError {
    /// No request was sent: the circuit of the upstream is open.
    pub(super) fn unavailable() -> Self {
        Self {
            status: None,
            reason: "not asked: it failed several times in a row".to_owned(),
            is_clients_fault: false,
            retry: true,
            outcome: Outcome::BrokenOff,
            is_slow: false,
        }
    }

    /// The upstream broke the protocol.
    pub(super) fn wrong(status: Option<u16>, why: &str) -> Self {
        Self {
            status,
            reason: line(why),
            is_clients_fault: false,
            retry: true,
            outcome: Outcome::Failure,
            is_slow: false,
        }
    }

    /// It was not done in time.
    pub(super) fn timeout(within: Duration) -> Self {
        Self::wrong(None, &format!("not done within {} s", within.as_secs()))
    }

    /// The upstream gave other bytes than the hash stands for.
    pub(super) fn other_bytes() -> Self {
        Self::wrong(None, OTHER_BYTES)
    }

    /// We broke off.
    pub(super) fn broken_off(why: &str) -> Self {
        Self {
            status: None,
            reason: line(why),
            is_clients_fault: true,
            retry: false,
            outcome: Outcome::BrokenOff,
            is_slow: false,
        }
    }

    /// The upstream reads so slowly that it is given up.
    pub(super) fn too_slow() -> Self {
        Self { is_slow: true, ..Self::wrong(None, "too slow") }
    }

    /// The upstream does not know how to do this.
    pub(super) fn unsupported(what: &str) -> Self {
        Self {
            status: None,
            reason: line(what),
            is_clients_fault: false,
            retry: false,
            outcome: Outcome::BrokenOff,
            is_slow: false,
        }
    }

    /// The upstream answered with a status that is no success.
    pub(super) fn answered(status: u16, x_reason: Option<&str>) -> Self {
        let reason = match x_reason.map(str::trim).filter(|text| !text.is_empty()) {
            Some(text) => line(&format!("answered {status}: {text}")),
            None => format!("answered {status}"),
        };
        let is_refusal = (400..500).contains(&status);
        // A time limit, a conflict with another request, a rate: these pass.
        let passes = matches!(status, 408 | 409 | 423 | 425 | 429) || status >= 500;
        Self {
            status: Some(status),
            reason,
            is_clients_fault: matches!(status, 400 | 401 | 402 | 403 | 411 | 413 | 415 | 422),
            retry: passes && status != 501,
            outcome: if is_refusal { Outcome::Refused } else { Outcome::Failure },
            is_slow: false,
        }
    }

    /// How it counts in the metrics.
    pub(super) fn call_outcome(&self) -> CallOutcome {
        match self.outcome {
            Outcome::Success => CallOutcome::Success,
            Outcome::Refused => CallOutcome::Refused,
            Outcome::Failure if self.is_slow => CallOutcome::TooSlow,
            Outcome::Failure => CallOutcome::Failed,
            Outcome::BrokenOff => CallOutcome::BrokenOff,
        }
    }

    /// Whether it gave bytes of another hash.
    #[must_use]
    pub fn is_other_bytes(&self) -> bool {
        self.reason == OTHER_BYTES
    }

    /// Whether our own end of the request broke off: the upstream did nothing wrong.
    #[must_use]
    pub fn is_broken_off(&self) -> bool {
        self.outcome == Outcome::BrokenOff
    }
}

impl From<FetchError> for UpstreamError {
    fn from(error: FetchError) -> Self {
        match &error {
            FetchError::Body(broken) => Self::broken_off(&broken.0),
            _ => Self::wrong(None, &error.to_string()),
        }
    }
}

impl From<ObjectError> for UpstreamError {
    fn from(error: ObjectError) -> Self {
        let status = matches!(error, ObjectError::NoSpace).then_some(507);
        let retry = !matches!(error, ObjectError::Settings(_));
        Self { retry, ..Self::wrong(status, &error.to_string()) }
    }
}

/// One printable line.
fn line(text: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(REASON_CHARS_MAX).map(shown).collect()
}
