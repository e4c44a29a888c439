//! The URL of a Nostr relay in one canonical spelling, so that each relay has one row.
//!
//! Two texts that lead a WebSocket client to the same place give the same [`RelayUrl`]: scheme and host in
//! lower case, international names in punycode, no default port, no final dot of the host, no fragment (it is
//! never sent), no empty query, no slash at the end of the path. `wss://relay.damus.io` is canonical,
//! `WSS://Relay.Damus.io.:443/` is not. Path and query are otherwise kept, because a relay may serve
//! different data by them.
//!
//! **Architecture Invariant:** parsing a canonical text gives the same text.

mod error;
mod host;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

pub use self::error::RelayUrlError;
use self::host::check_name;
pub use self::host::{is_local_ip, is_local_name};
use super::Network;

/// Longest URL, in bytes, before and after normalization. The longest of 8,859 known relays has 97 bytes. 512
/// leaves room for a DNS name of full length and keeps an index row far below its limit.
pub const RELAY_URL_BYTES_MAX: usize = 512;

/// Longest DNS name, in bytes (RFC 1035, without the final dot).
const HOST_BYTES_MAX: usize = 253;

/// Longest part of a DNS name between two dots, in bytes (RFC 1035).
const LABEL_BYTES_MAX: usize = 63;

/// Length of a version 3 onion name in base32 characters: 32 bytes key, 2 checksum, 1 version.
const ONION_CHARS: usize = 56;

/// The URL of a relay: always canonical, at most [`RELAY_URL_BYTES_MAX`] bytes, without credentials.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelayUrl(String);

impl RelayUrl {
    /// Parses a URL and normalizes it.
    ///
    /// # Errors
    ///
    /// The first rule that the text violates, as [`RelayUrlError`].
    pub fn parse(text: &str) -> Result<Self, RelayUrlError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(RelayUrlError::Empty);
        }
        check_length(text)?;
        if let Some(found) = text.chars().find(|c| c.is_whitespace() || c.is_control()) {
            return Err(RelayUrlError::Unprintable { found });
        }
        let url = Url::parse(text)?;
        if !matches!(url.scheme(), "ws" | "wss") {
            return Err(RelayUrlError::Scheme(url.scheme().to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(RelayUrlError::Credentials);
        }
        if url.path().starts_with("//") {
            return Err(RelayUrlError::DoubleScheme);
        }
        let host = match url.host().ok_or(url::ParseError::EmptyHost)? {
            Host::Domain(name) => {
                let name = name.strip_suffix('.').unwrap_or(name);
                check_name(name)?;
                name.to_owned()
            }
            Host::Ipv4(ip) => ip.to_string(),
            Host::Ipv6(ip) => format!("[{ip}]"),
        };
        let port = match url.port() {
            Some(0) => return Err(RelayUrlError::PortZero),
            Some(port) => format!(":{port}"),
            None => String::new(),
        };
        let path = url.path().trim_end_matches('/');
        let mut canonical = format!("{}://{host}{port}{path}", url.scheme());
        if let Some(query) = url.query().filter(|query| !query.is_empty()) {
            canonical.push('?');
            canonical.push_str(query);
        }
        check_length(&canonical)?;
        Ok(Self(canonical))
    }

    /// The canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host: a name in lower case, an IPv4 address, or an IPv6 address in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        let rest = self.0.split_once("://").map_or("", |(_, rest)| rest);
        let end = if rest.starts_with('[') {
            rest.find(']').map_or(rest.len(), |end| end + 1)
        } else {
            rest.find([':', '/', '?']).unwrap_or(rest.len())
        };
        &rest[..end]
    }

    /// The network through which the relay is reached.
    #[must_use]
    pub fn network(&self) -> Network {
        Network::of_host(self.host())
    }

    /// True if the host is this machine or in a private network. An operator may add such a relay; a
    /// discovered one must not be dialled. A public name may still resolve to a private address, which only
    /// the resolver can see.
    #[must_use]
    pub fn is_local_address(&self) -> bool {
        let host = self.host();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        bare.parse().map_or_else(|_no_ip| is_local_name(host), is_local_ip)
    }
}

fn check_length(text: &str) -> Result<(), RelayUrlError> {
    if text.len() > RELAY_URL_BYTES_MAX {
        return Err(RelayUrlError::TooLong { bytes: text.len() });
    }
    Ok(())
}

impl FromStr for RelayUrl {
    type Err = RelayUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for RelayUrl {
    type Error = RelayUrlError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<RelayUrl> for String {
    fn from(url: RelayUrl) -> Self {
        url.0
    }
}

impl AsRef<str> for RelayUrl {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelayUrl({})", self.0)
    }
}
