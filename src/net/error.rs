//! Errors of connections and HTTP requests. Each has a short constant name for metrics and journals.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use super::Certificate;
use crate::base::Network;

/// Why a connection could not be opened.
#[derive(Debug, Clone, Error)]
pub enum DialError {
    /// The network is disabled in the settings.
    #[error("the network {0} is disabled (`networks.{0}.enabled`)")]
    Disabled(Network),
    /// A name of Tor, I2P or Lokinet reached the DNS resolver, which never looks these up.
    #[error("{0} belongs to a hidden network and is never looked up in DNS")]
    Hidden(String),
    /// The name has no address, or the DNS server did not answer.
    #[error("cannot resolve {host}: {why}")]
    Dns {
        /// The name that was looked up.
        host: String,
        /// The resolver's reason.
        why: String,
    },
    /// The host is, or resolves to, a private address, and the relay was not added by this operator.
    #[error("{0} is a private address; only relays that this operator added may have one")]
    PrivateAddress(String),
    /// A relay that this operator added has a public name that resolves to a private address, and the
    /// settings do not allow that name.
    #[error(
        "{0} is a public name that resolves to a private address; networks.clearnet.private_names can allow it"
    )]
    PrivateName(String),
    /// The host refused the connection: nothing listens on the port.
    #[error("connection refused")]
    Refused,
    /// The host cannot be reached.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The connection and its handshakes were not complete in time.
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    /// The SOCKS proxy cannot be reached or does not speak SOCKS5.
    #[error("SOCKS proxy: {0}")]
    Proxy(String),
    /// The SOCKS proxy could not connect to the destination.
    #[error("SOCKS proxy: {0}")]
    Socks(SocksReply),
    /// The TLS handshake failed. The certificate is kept, because the monitor records since when it has been
    /// invalid.
    #[error("TLS: {why}")]
    Tls {
        /// The reason.
        why: String,
        /// The server's certificate, if the handshake got that far.
        certificate: Option<Box<Certificate>>,
    },
    /// A setting cannot be used.
    #[error("settings: {0}")]
    Settings(String),
}

impl DialError {
    /// Short constant name, for metrics and journals.
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

/// Reply code of a SOCKS5 proxy that refused: RFC 1928, and Tor's own codes from 0xF0 (`ExtendedErrors`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocksReply(pub u8);

impl SocksReply {
    /// Short constant name, for metrics and journals.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self.0 {
            0x02 => "socks_not_allowed",
            // Proxies reply 0x01, "general failure", when they cannot reach the destination and no other code
            // fits.
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
            0x06 => "TTL expired",
            0x07 => "command not supported",
            0x08 => "address type not supported",
            0xf0 => "the onion service's descriptor cannot be found",
            0xf1 => "the onion service's descriptor is invalid",
            0xf2 => "introduction to the onion service failed",
            0xf3 => "rendezvous with the onion service failed",
            0xf4 => "the onion service requires client authorization",
            0xf5 => "the onion service refused the client authorization",
            0xf6 => "the onion address is invalid",
            0xf7 => "introduction to the onion service timed out",
            _ => "unknown failure",
        };
        write!(f, "{meaning} (0x{:02X})", self.0)
    }
}

/// The sender of a body gave it up. The request is broken off, so that the receiver knows that the body is not whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the body was given up: {0}")]
pub struct BodyBroken(pub String);

/// Why an HTTP request failed.
#[derive(Debug, Clone, Error)]
pub enum FetchError {
    /// The URL cannot be fetched: another scheme than HTTP, credentials, or no host.
    #[error("the URL cannot be fetched: {0}")]
    BadUrl(String),
    /// The connection could not be opened.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The exchange as a whole, with redirects and body, was not complete in time.
    #[error("the response was not complete within {0:?}")]
    Timeout(Duration),
    /// The body, after decompression, is longer than allowed.
    #[error("the body is longer than {bytes_max} bytes")]
    TooLarge {
        /// The limit, in bytes.
        bytes_max: usize,
    },
    /// The server redirected more often than allowed.
    #[error("more than {0} redirects")]
    TooManyRedirects(usize),
    /// A redirect that is not followed: its URL is invalid, or it leaves a hidden network.
    #[error("redirect refused: {0}")]
    BadRedirect(String),
    /// The sender of the body gave it up. Says nothing about the server.
    #[error(transparent)]
    Body(#[from] BodyBroken),
    /// The response is not HTTP, or the connection broke off.
    #[error("HTTP: {0}")]
    Http(String),
}

impl FetchError {
    /// Short constant name, for metrics and journals.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::BadUrl(_) => "bad_url",
            Self::Dial(error) => error.reason(),
            Self::Timeout(_) => "timeout",
            Self::TooLarge { .. } => "too_large",
            Self::TooManyRedirects(_) => "too_many_redirects",
            Self::BadRedirect(_) => "bad_redirect",
            Self::Body(_) => "body",
            Self::Http(_) => "http",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
