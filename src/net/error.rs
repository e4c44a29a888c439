//! Why a dial or a request failed, each with a short word for metrics and journals.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use super::Certificate;
use crate::base::Network;

/// Most characters kept of what somebody outside says in words.
pub(super) const WORDS_MAX: usize = 500;

/// What is said outside, fit to be kept: bounded, and without NUL, which the journal cannot hold.
pub(super) fn words(text: &str) -> String {
    text.chars().take(WORDS_MAX).map(|c| if c == '\0' { '\u{2400}' } else { c }).collect()
}

/// Why there is no connection.
#[derive(Debug, Clone, Error)]
pub enum DialError {
    /// The settings do not allow this network.
    #[error("the network {0} is switched off")]
    Disabled(Network),
    /// A name of Tor, I2P or Lokinet was to be looked up in DNS.
    #[error("{0} is no name of DNS")]
    Hidden(String),
    /// The name has no address, or DNS does not answer.
    #[error("no address of {host}: {why}")]
    Dns {
        /// The name asked for.
        host: String,
        /// What the resolver says.
        why: String,
    },
    /// The host is or resolves to a private address, and this operator did not add it.
    #[error("{0} is a private address, and was not added by this operator")]
    PrivateAddress(String),
    /// A public name of the operator's resolves to a private address, and the settings do not list it.
    #[error(
        "{0} is a public name that resolves to a private address; networks.clearnet.private_names can allow it"
    )]
    PrivateName(String),
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// No way there.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// It took too long.
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    /// The SOCKS proxy cannot be reached or does not speak SOCKS5.
    #[error("the SOCKS proxy: {0}")]
    Proxy(String),
    /// The SOCKS proxy says why it has no connection.
    #[error("the SOCKS proxy: {0}")]
    Socks(SocksReply),
    /// No TLS session. The certificate is kept even so: a monitor wants to know since when it has expired.
    #[error("TLS: {why}")]
    Tls {
        /// What was wrong.
        why: String,
        /// The certificate shown, if it came to that.
        certificate: Option<Box<Certificate>>,
    },
    /// The settings cannot be used.
    #[error("settings: {0}")]
    Settings(String),
}

impl DialError {
    /// A short constant word.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Disabled(_) => "network_off",
            Self::Hidden(_) => "hidden_name",
            Self::Dns { .. } => "dns",
            Self::PrivateAddress(_) => "private_address",
            Self::PrivateName(_) => "private_name",
            Self::Refused => "refused",
            Self::Unreachable(_) => "unreachable",
            Self::Timeout(_) => "timeout",
            Self::Proxy(_) => "proxy",
            Self::Socks(reply) => reply.reason(),
            Self::Tls { .. } => "tls",
            Self::Settings(_) => "settings",
        }
    }
}

/// The code of a SOCKS5 proxy's refusal: RFC 1928, and Tor's own from 0xF0 on (its `ExtendedErrors`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocksReply(pub u8);

impl SocksReply {
    /// A short constant word.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self.0 {
            0x02 => "socks_not_allowed",
            // "General failure" is what proxies answer when they cannot reach the destination and no other code fits.
            0x01 | 0x03 | 0x04 => "unreachable",
            0x05 => "refused",
            0x06 => "timeout",
            0xf0 => "onion_not_found",
            0xf1 => "onion_bad_descriptor",
            0xf2 => "onion_introduction_failed",
            0xf3 => "onion_rendezvous_failed",
            0xf4 => "onion_needs_authorization",
            0xf5 => "onion_wrong_authorization",
            0xf6 => "onion_bad_address",
            0xf7 => "onion_introduction_timeout",
            _ => "proxy",
        }
    }
}

impl fmt::Display for SocksReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meaning = match self.0 {
            0x01 => "general failure",
            0x02 => "not allowed by its rules",
            0x03 => "network unreachable",
            0x04 => "host unreachable",
            0x05 => "connection refused",
            0x06 => "it took too long",
            0x07 => "command not supported",
            0x08 => "address type not supported",
            0xf0 => "the onion service's descriptor cannot be found",
            0xf1 => "the onion service's descriptor is invalid",
            0xf2 => "introduction to the onion service failed",
            0xf3 => "rendezvous with the onion service failed",
            0xf4 => "the onion service wants client authorization",
            0xf5 => "the onion service refuses the client authorization",
            0xf6 => "the onion address is invalid",
            0xf7 => "introduction to the onion service timed out",
            _ => "unknown failure",
        };
        write!(f, "{meaning} (0x{:02X})", self.0)
    }
}

/// Why a request brought nothing.
#[derive(Debug, Clone, Error)]
pub enum FetchError {
    /// Not the address of a web page: another scheme, credentials, no host.
    #[error("not an address to fetch: {0}")]
    BadUrl(String),
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The whole exchange took too long.
    #[error("not finished within {0:?}")]
    Timeout(Duration),
    /// The body is longer than it may be, after decompression.
    #[error("longer than {bytes_max} bytes")]
    TooLarge {
        /// The bound.
        bytes_max: usize,
    },
    /// Still a redirect after as many as are followed.
    #[error("more than {0} redirects")]
    TooManyRedirects(usize),
    /// A redirect that is not followed: no address, or out of a hidden network.
    #[error("a redirect that is not followed: {0}")]
    BadRedirect(String),
    /// What came is not HTTP, or broke off.
    #[error("HTTP: {0}")]
    Http(String),
}

impl FetchError {
    /// A short constant word.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::BadUrl(_) => "bad_url",
            Self::Dial(error) => error.reason(),
            Self::Timeout(_) => "timeout",
            Self::TooLarge { .. } => "too_large",
            Self::TooManyRedirects(_) => "too_many_redirects",
            Self::BadRedirect(_) => "bad_redirect",
            Self::Http(_) => "http",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_outside_is_bounded_and_can_be_stored() {
        assert_eq!(words("a\0b"), "a\u{2400}b");
        assert_eq!(words(&"x".repeat(10_000)).len(), WORDS_MAX);
    }

    #[test]
    fn a_tor_2_reply_codes_have_reasons_of_their_own() {
        let all: std::collections::BTreeSet<_> =
            (0xf0..=0xf7).map(|code| SocksReply(code).reason()).collect();
        assert_eq!(all.len(), 8);
        assert_eq!(SocksReply(4).reason(), "unreachable");
        assert_eq!(SocksReply(5).reason(), "refused");
        assert_eq!(SocksReply(0x99).to_string(), "unknown failure (0x99)");
    }
}
