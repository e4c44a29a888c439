//! Section `http`: the listeners of this process, and the bounds that hold at each of them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Section `http`. Nothing listens beyond loopback until it is told to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Where the console listens.
    pub console_address: SocketAddr,
    /// Where `/healthz`, `/readyz` and `/metrics` are.
    pub ops_address: SocketAddr,
    /// Names under which the listeners may be reached, without scheme and port. IP addresses and `localhost` need not be
    /// listed; a request whose `Host` has any other name is refused.
    pub hosts: Vec<String>,
    /// Addresses or prefixes of proxies in front of the listeners. Only their `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<AddressPrefix>,
    /// Longest time until an answer begins, in seconds. A stream that has begun may last.
    pub request_timeout_s: NonZeroU32,
    /// Longest time until the head of a request is complete, in seconds, from the start of the connection or the end of the
    /// preceding answer: also the longest time that a connection is kept alive without a request.
    pub header_timeout_s: NonZeroU32,
    /// Longest time until the body of a request is complete, in seconds.
    pub body_timeout_s: NonZeroU32,
    /// Longest time that a client may leave what it was sent unread, in seconds.
    pub write_timeout_s: NonZeroU32,
    /// Most connections of one listener at the same time. `services.messages` adds its own `connections_max`.
    pub connections_max: NonZeroUsize,
    /// Most connections of one address at the same time; an IPv6 address counts by its first 64 bits, and trusted proxies
    /// are not counted. `services.messages` adds its own `connections_per_address_max`.
    pub connections_per_address_max: NonZeroUsize,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            console_address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4700),
            ops_address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4701),
            hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            request_timeout_s: nonzero!(NonZeroU32, 30),
            header_timeout_s: nonzero!(NonZeroU32, 10),
            body_timeout_s: nonzero!(NonZeroU32, 20),
            write_timeout_s: nonzero!(NonZeroU32, 20),
            connections_max: nonzero!(NonZeroUsize, 1_024),
            connections_per_address_max: nonzero!(NonZeroUsize, 256),
        }
    }
}

impl Http {
    /// What is wrong beyond the types: key and reason.
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        for host in &self.hosts {
            if host.is_empty() || host.contains(|c: char| "/:@ ".contains(c)) {
                let reason = format!("`{host}`: a name alone is expected, without scheme, port or path");
                problems.push(("http.hosts", reason));
            }
        }
        if self.console_address == self.ops_address && self.ops_address.port() != 0 {
            problems.push(("http.ops_address", "the same as `http.console_address`".to_owned()));
        }
        problems
    }
}

/// An IP address, or a prefix such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressPrefix(IpNet);

impl AddressPrefix {
    /// Whether `address`, in its canonical form, is within it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl TryFrom<String> for AddressPrefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let prefix = text.parse::<IpAddr>().map(IpNet::from).or_else(|_| text.parse::<IpNet>());
        prefix
            .map(Self)
            .map_err(|_| format!("`{text}`: an IP address or a prefix such as 10.0.0.0/8 is expected"))
    }
}

impl From<AddressPrefix> for String {
    fn from(prefix: AddressPrefix) -> Self {
        prefix.0.to_string()
    }
}
