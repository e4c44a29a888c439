//! Errors of parsing a relay's URL.

use thiserror::Error;

use super::{HOST_BYTES_MAX, LABEL_BYTES_MAX, ONION_CHARS, RELAY_URL_BYTES_MAX};

/// Why a text is not the URL of a relay.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RelayUrlError {
    /// The text is empty or white space.
    #[error("the address is empty")]
    Empty,
    /// Longer than [`RELAY_URL_BYTES_MAX`], as given or as normalized.
    #[error("the address has {bytes} bytes, at most {RELAY_URL_BYTES_MAX} are allowed")]
    TooLong {
        /// The length found, in bytes.
        bytes: usize,
    },
    /// White space or a control character within the URL: two URLs on one line, or a damaged copy.
    #[error("the address contains {found:?}")]
    Unprintable {
        /// The first such character.
        found: char,
    },
    /// Not a URL by the WHATWG rules.
    #[error("{0}")]
    Syntax(#[from] url::ParseError),
    /// The scheme is not `ws` or `wss`.
    #[error("the scheme is {0:?}, only ws and wss are relays")]
    Scheme(String),
    /// The URL contains a user name or password, which would end up in public tables.
    #[error("the address contains a user name or password")]
    Credentials,
    /// Port 0, on which nothing can listen.
    #[error("port 0 cannot be connected to")]
    PortZero,
    /// The path begins with two slashes: the text held two schemes (`wss://wss://…`).
    #[error("the path begins with //, the address seems to hold two schemes")]
    DoubleScheme,
    /// The host is not a valid DNS name.
    #[error(
        "the host {host:?} is not a DNS name: 1 to {LABEL_BYTES_MAX} bytes between dots, {HOST_BYTES_MAX} in all"
    )]
    HostName {
        /// The normalized host.
        host: String,
    },
    /// A name under `.onion` that is not a version 3 name.
    #[error("the host {host:?} is not an onion name of version 3: {ONION_CHARS} of a-z and 2-7, version 3")]
    Onion {
        /// The normalized host.
        host: String,
    },
}

impl RelayUrlError {
    /// Short constant name, for counting refusals by reason.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooLong { .. } => "too_long",
            Self::Unprintable { .. } => "unprintable",
            Self::Syntax(_) => "syntax",
            Self::Scheme(_) => "scheme",
            Self::Credentials => "credentials",
            Self::PortZero => "port_zero",
            Self::DoubleScheme => "double_scheme",
            Self::HostName { .. } => "host_name",
            Self::Onion { .. } => "onion",
        }
    }
}
