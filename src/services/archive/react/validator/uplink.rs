//! Whether it is our own uplink that is away when a candidate gives no sign of life: then other relays give none either.
//!
//! Asked are the relays of that network that showed the newest events. One question serves everybody whose try had begun
//! before it.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{ValidatorParts, probe};
use crate::base::{Network, RelayUrl};
use crate::net::Trust;
use crate::net::relay::Patience;
use crate::services::archive::read;
use crate::store;

/// Relays that are asked.
const REFERENCE_RELAYS: i64 = 3;

/// What was found out about a network.
#[derive(Debug, Clone, Copy)]
struct Found {
    asked_at: Instant,
    is_down: bool,
}

/// What was found out last about each network.
#[derive(Debug)]
pub(super) struct Uplink([(Network, Mutex<Option<Found>>); 4]);

impl Uplink {
    pub(super) fn new() -> Self {
        let networks = [Network::Clearnet, Network::Tor, Network::I2p, Network::Loki];
        Self(networks.map(|network| (network, Mutex::default())))
    }

    /// Whether nobody is reached in a network although somebody should be, asked after `since`.
    pub(super) async fn is_down(
        &self,
        parts: &ValidatorParts,
        network: Network,
        since: Instant,
    ) -> Result<bool, store::Error> {
        let Some((_, last)) = self.0.iter().find(|(known, _)| *known == network) else { return Ok(false) };
        // Whoever comes meanwhile waits, and has the same answer.
        let mut last = last.lock().await;
        if let Some(found) = last.filter(|found| found.asked_at >= since) {
            return Ok(found.is_down);
        }
        let asked_at = Instant::now();
        let reference_relays =
            read::reference_relays(&parts.doors.session, network.as_str(), REFERENCE_RELAYS).await?;
        let timeouts = Patience::from(parts.networks.get(network));
        let mut answers: FuturesUnordered<_> = reference_relays
            .iter()
            .filter_map(|relay| {
                let trust = if relay.is_named { Trust::Named } else { Trust::Discovered };
                Some((RelayUrl::parse(&relay.url).ok()?, trust))
            })
            .map(|(url, trust)| async move { probe(&parts.outside, &url, trust, timeouts).await.is_ok() })
            .collect();
        // Without a relay nobody can tell.
        let mut is_down = !answers.is_empty();
        while let Some(is_there) = answers.next().await {
            if is_there {
                is_down = false;
                break;
            }
        }
        if is_down {
            tracing::warn!(network = network.as_str(), "no relay that is known to be there is reached");
        }
        *last = Some(Found { asked_at, is_down });
        Ok(is_down)
    }
}
