//! The networks through which relays are reached.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The network through which a relay is reached; determined by the last label of its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// The public internet: every host that belongs to none of the other networks.
    Clearnet,
    /// A version 3 onion service.
    Tor,
    /// A name under `.i2p`.
    I2p,
    /// A name under `.loki`.
    Loki,
}

impl Network {
    /// All networks.
    pub const ALL: [Self; 4] = [Self::Clearnet, Self::Tor, Self::I2p, Self::Loki];

    /// Their names, in the same order.
    pub const NAMES: [&'static str; 4] =
        [Self::Clearnet.as_str(), Self::Tor.as_str(), Self::I2p.as_str(), Self::Loki.as_str()];

    /// The network of a host in lower case, by its last label. A final dot is ignored.
    #[must_use]
    pub fn of_host(host: &str) -> Self {
        match host.trim_end_matches('.').rsplit('.').next() {
            Some("onion") => Self::Tor,
            Some("i2p") => Self::I2p,
            Some("loki") => Self::Loki,
            _ => Self::Clearnet,
        }
    }

    /// The name as stored in the database and written in settings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clearnet => "clearnet",
            Self::Tor => "tor",
            Self::I2p => "i2p",
            Self::Loki => "loki",
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
