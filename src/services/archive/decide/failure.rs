//! Why a check of a relay failed.

use super::storable::without_nul;

const MESSAGE_MAX: usize = 200;

/// Why a check failed: a stable reason to count by, and a message for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// A short constant such as `timeout`.
    pub reason: &'static str,
    /// What happened.
    pub message: String,
}

impl Failure {
    /// Cuts the message, and removes what cannot be stored and what differs at every check.
    #[must_use]
    pub fn new(reason: &'static str, message: &str) -> Self {
        Self { reason, message: without_nul(steady(message), MESSAGE_MAX) }
    }

    /// The relay refused with a message `prefix: …` (NIP-01). Only prefixes defined by NIP-01 and NIP-42
    /// become reasons; all others become `closed`.
    #[must_use]
    pub fn refused(said: &str) -> Self {
        const PREFIXES: [(&str, &str); 8] = [
            ("auth-required", "auth_required"),
            ("restricted", "restricted"),
            ("blocked", "blocked"),
            ("rate-limited", "rate_limited"),
            ("pow", "pow"),
            ("invalid", "invalid"),
            ("unsupported", "unsupported"),
            ("error", "error"),
        ];
        let prefix = said.split_once(':').map_or("", |(prefix, _)| prefix.trim());
        let reason =
            PREFIXES.iter().find(|(known, _)| *known == prefix).map_or("closed", |(_, reason)| reason);
        Self::new(reason, said)
    }

    /// True if the relay only demands authentication (NIP-42).
    #[must_use]
    pub fn wants_auth(&self) -> bool {
        self.reason == "auth_required"
    }
}

/// Outcome of one check.
pub type Checked<T> = Result<T, Failure>;

/// Cuts the time of verification off a certificate error, so that the same finding is the same text at every
/// check.
#[must_use]
pub fn steady(message: &str) -> &str {
    message.split(": verification time ").next().unwrap_or(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_certificate_is_the_same_finding_a_minute_later() {
        let after = |seconds: u32| format!("TLS: expired: verification time {seconds} (UNIX), 5 seconds ago");
        assert_eq!(Failure::new("tls", &after(1)), Failure::new("tls", &after(61)));
        assert_eq!(Failure::new("tls", &after(1)).message, "TLS: expired");
    }

    #[test]
    fn n_01_refusals_are_counted_by_the_words_that_the_protocol_defines() {
        assert_eq!(Failure::refused("restricted: members only").reason, "restricted");
        assert!(Failure::refused("auth-required: who are you").wants_auth());
        assert_eq!(Failure::refused("nonsense: \0").reason, "closed");
        assert_eq!(Failure::refused("nonsense: \0").message, "nonsense: \u{2400}");
    }
}
