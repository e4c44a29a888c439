//! Section `http`: the listeners of this process and the limits of each.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problems::{Problems, Section};

/// Section `http`. By default nothing listens beyond loopback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Address of the console.
    #[schemars(extend("format" = "address:port"))]
    pub console_address: SocketAddr,
    /// Address of `/healthz`, `/readyz` and `/metrics`.
    #[schemars(extend("format" = "address:port"))]
    pub ops_address: SocketAddr,
    /// Host names by which clients reach the listeners, without scheme and port. IP addresses, `localhost`
    /// and names below it need not be listed, nor at the messages listeners the host of
    /// `services.messages.relay_id`. A request with any other `Host` is refused with 421.
    pub hosts: Vec<String>,
    /// Addresses or prefixes of proxies in front of the listeners. `X-Forwarded-For` is believed only from
    /// these; from any other address it only means that the request does not count as local.
    pub trusted_proxies: Vec<AddressPrefix>,
    /// Time until a response must begin. A streaming response may then last.
    pub request_timeout_s: NonZeroU32,
    /// Time until the head of a request must be complete, measured from the start of the connection or the
    /// end of the previous response. So it also limits how long an idle connection is kept alive.
    pub header_timeout_s: NonZeroU32,
    /// Time until the body of a request must be complete.
    pub body_timeout_s: NonZeroU32,
    /// Time that a client may leave sent data unread.
    pub write_timeout_s: NonZeroU32,
    /// Connections of one listener at the same time. `services.messages` adds its own `connections_max`. At
    /// the start the process raises its limit of open descriptors, and keeps a share of them for the database
    /// and the crawl.
    pub connections_max: NonZeroUsize,
    /// Connections of one address at the same time. An IPv6 address counts by its first 64 bits, and trusted
    /// proxies are not counted. `services.messages` adds its own `connections_per_address_max`.
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

impl Section for Http {
    fn problems(&self, problems: &mut Problems<'_>) {
        for host in &self.hosts {
            if host.is_empty() || host.contains(|c: char| "/:@ ".contains(c)) {
                let reason = format!("`{host}`: expected a host name without scheme, port or path");
                problems.refuse("hosts", reason);
            }
        }
        if self.console_address == self.ops_address && self.ops_address.port() != 0 {
            problems.refuse("ops_address", "the same as `http.console_address`");
        }
    }
}

/// An IP address, or a prefix such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct AddressPrefix(IpNet);

impl AddressPrefix {
    /// Whether it contains `address`, which must be in canonical form.
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
            .map_err(|_| format!("`{text}`: expected an IP address or a prefix such as 10.0.0.0/8"))
    }
}

impl From<AddressPrefix> for String {
    fn from(prefix: AddressPrefix) -> Self {
        prefix.0.to_string()
    }
}
