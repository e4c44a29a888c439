//! Section `networks`: how relays and web servers are reached, per network.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::problems::{Problems, Section};
use crate::base::{Network, RelayUrl};

/// Upper limit of a network's timeouts, in seconds. Leases on relays and candidates last as long as one
/// attempt can take.
const TIMEOUT_S_MAX: u32 = 600;

/// Section `networks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Networks {
    /// The public internet, dialled directly; it has no proxy.
    #[serde(deserialize_with = "clearnet")]
    pub clearnet: NetworkSettings,
    /// Onion services, through Tor's SOCKS port.
    #[serde(deserialize_with = "tor")]
    pub tor: NetworkSettings,
    /// Names under `.i2p`, through an I2P router's SOCKS port.
    #[serde(deserialize_with = "i2p")]
    pub i2p: NetworkSettings,
    /// Names under `.loki`, through a SOCKS port on Lokinet.
    #[serde(deserialize_with = "loki")]
    pub loki: NetworkSettings,
    /// A PEM file of root certificates that are trusted in addition to Mozilla's: for private networks.
    #[schemars(extend("format" = "path"))]
    pub ca_file: Option<PathBuf>,
}

impl Default for Networks {
    fn default() -> Self {
        Self {
            clearnet: NetworkSettings::of(Network::Clearnet),
            tor: NetworkSettings::of(Network::Tor),
            i2p: NetworkSettings::of(Network::I2p),
            loki: NetworkSettings::of(Network::Loki),
            ca_file: None,
        }
    }
}

impl Networks {
    /// The settings of one network.
    #[must_use]
    pub const fn get(&self, network: Network) -> &NetworkSettings {
        match network {
            Network::Clearnet => &self.clearnet,
            Network::Tor => &self.tor,
            Network::I2p => &self.i2p,
            Network::Loki => &self.loki,
        }
    }
}

impl Section for Networks {
    fn problems(&self, problems: &mut Problems<'_>) {
        if self.clearnet.proxy_address.is_some() {
            // Behind a proxy the address of a name is unknown, so a private address could not be refused.
            problems.refuse("clearnet.proxy_address", "clearnet is dialled directly");
        }
        for name in self.clearnet.private_names.iter().filter(|name| !is_public_name(name)) {
            let reason = format!("`{name}`: expected a public DNS name in lower case, without port");
            problems.refuse("clearnet.private_names", reason);
        }
        for network in [Network::Tor, Network::I2p, Network::Loki] {
            if !self.get(network).private_names.is_empty() {
                problems.refuse(&format!("{network}.private_names"), "only clearnet names are resolved");
            }
            let key = format!("{network}.proxy_address");
            match &self.get(network).proxy_address {
                Some(address) if is_host_and_port(address) => {}
                Some(address) => problems.refuse(&key, format!("`{address}`: expected host:port")),
                None => problems.refuse(&key, "missing: set host:port of the SOCKS proxy"),
            }
        }
        for network in [Network::Clearnet, Network::Tor, Network::I2p, Network::Loki] {
            let settings = self.get(network);
            for (name, seconds) in [
                ("connect_timeout_s", settings.connect_timeout_s),
                ("idle_timeout_s", settings.idle_timeout_s),
            ] {
                if seconds.get() > TIMEOUT_S_MAX {
                    let reason = format!("{seconds}: at most {TIMEOUT_S_MAX} seconds");
                    problems.refuse(&format!("{network}.{name}"), reason);
                }
            }
        }
    }
}

/// Whether `networks.clearnet.private_names` may list `text`: a public DNS name in canonical spelling.
fn is_public_name(text: &str) -> bool {
    RelayUrl::parse(&format!("ws://{text}"))
        .is_ok_and(|url| url.host() == text && url.network() == Network::Clearnet && !url.is_local_address())
}

fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let plain = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "/:@[]".contains(c));
        (bracketed || plain) && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}

/// Settings of one network; all networks have the same keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct NetworkSettings {
    /// Whether the network is used.
    pub enabled: bool,
    /// The SOCKS5 proxy of the network; not for clearnet. Names are resolved there, never here. Each relay
    /// has credentials of its own, which makes Tor build a separate circuit for it.
    #[schemars(extend("format" = "host:port"))]
    pub proxy_address: Option<String>,
    /// Relays of this network to which one service of a process is connected at the same time. If more relays
    /// wait, those that are archived and only followed for new events give way.
    pub relays_at_once: NonZeroUsize,
    /// Time until a connection must be established, handshakes included.
    #[schemars(range(max = TIMEOUT_S_MAX))]
    pub connect_timeout_s: NonZeroU32,
    /// Time without received data after which a pending response is given up.
    #[schemars(range(max = TIMEOUT_S_MAX))]
    pub idle_timeout_s: NonZeroU32,
    /// Public names, in lower case, that may resolve to a private address if you name the relay; other names
    /// that do are refused. Clearnet only.
    pub private_names: Vec<String>,
}

impl NetworkSettings {
    /// The defaults. Hidden networks have longer timeouts, because building a circuit takes longer.
    fn of(network: Network) -> Self {
        let slow = |relays_at_once, proxy: &str| Self {
            enabled: false,
            proxy_address: Some(proxy.to_owned()),
            relays_at_once,
            connect_timeout_s: nonzero!(NonZeroU32, 60),
            idle_timeout_s: nonzero!(NonZeroU32, 60),
            private_names: Vec::new(),
        };
        match network {
            Network::Clearnet => Self {
                enabled: true,
                proxy_address: None,
                relays_at_once: nonzero!(NonZeroUsize, 256),
                connect_timeout_s: nonzero!(NonZeroU32, 10),
                idle_timeout_s: nonzero!(NonZeroU32, 30),
                private_names: Vec::new(),
            },
            Network::Tor => slow(nonzero!(NonZeroUsize, 32), "127.0.0.1:9050"),
            Network::I2p => slow(nonzero!(NonZeroUsize, 16), "127.0.0.1:4447"),
            Network::Loki => slow(nonzero!(NonZeroUsize, 16), "127.0.0.1:1080"),
        }
    }
}

/// The keys of one network that a source sets; the others keep that network's defaults.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartialSettings {
    enabled: Option<bool>,
    proxy_address: Option<String>,
    relays_at_once: Option<NonZeroUsize>,
    connect_timeout_s: Option<NonZeroU32>,
    idle_timeout_s: Option<NonZeroU32>,
    private_names: Option<Vec<String>>,
}

fn read<'de, D: Deserializer<'de>>(source: D, network: Network) -> Result<NetworkSettings, D::Error> {
    let partial = PartialSettings::deserialize(source)?;
    let default = NetworkSettings::of(network);
    Ok(NetworkSettings {
        enabled: partial.enabled.unwrap_or(default.enabled),
        proxy_address: partial.proxy_address.or(default.proxy_address),
        relays_at_once: partial.relays_at_once.unwrap_or(default.relays_at_once),
        connect_timeout_s: partial.connect_timeout_s.unwrap_or(default.connect_timeout_s),
        idle_timeout_s: partial.idle_timeout_s.unwrap_or(default.idle_timeout_s),
        private_names: partial.private_names.unwrap_or(default.private_names),
    })
}

fn clearnet<'de, D: Deserializer<'de>>(source: D) -> Result<NetworkSettings, D::Error> {
    read(source, Network::Clearnet)
}

fn tor<'de, D: Deserializer<'de>>(source: D) -> Result<NetworkSettings, D::Error> {
    read(source, Network::Tor)
}

fn i2p<'de, D: Deserializer<'de>>(source: D) -> Result<NetworkSettings, D::Error> {
    read(source, Network::I2p)
}

fn loki<'de, D: Deserializer<'de>>(source: D) -> Result<NetworkSettings, D::Error> {
    read(source, Network::Loki)
}
