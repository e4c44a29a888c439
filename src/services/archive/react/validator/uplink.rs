//! Checks whether our own uplink is down when a candidate does not respond at all: then reference relays do
//! not respond either.
//!
//! The reference relays are the relays of that network that sent the newest events. One check serves all
//! tries that had begun before it.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{ValidatorParts, probe};
use crate::base::{Network, RelayUrl};
use crate::net::Trust;
use crate::net::relay::Timeouts;
use crate::services::archive::read;
use crate::store;

/// Number of reference relays that are tried.
const REFERENCE_RELAYS: i64 = 3;

/// Result of the latest check of one network.
#[derive(Debug, Clone, Copy)]
struct Found {
    asked_at: Instant,
    is_down: bool,
}

/// Latest check of each network.
#[derive(Debug)]
pub(super) struct Uplink([(Network, Mutex<Option<Found>>); 4]);

impl Uplink {
    pub(super) fn new() -> Self {
        let networks = [Network::Clearnet, Network::Tor, Network::I2p, Network::Loki];
        Self(networks.map(|network| (network, Mutex::default())))
    }

    /// True when every reference relay of a network is unreachable, which means our own uplink is down. The
    /// check began at or after `since`.
    pub(super) async fn is_down(
        &self,
        parts: &ValidatorParts,
        network: Network,
        since: Instant,
    ) -> Result<bool, store::Error> {
        let Some((_, last)) = self.0.iter().find(|(known, _)| *known == network) else { return Ok(false) };
        // Concurrent callers wait for the lock and reuse the result.
        let mut last = last.lock().await;
        if let Some(found) = last.filter(|found| found.asked_at >= since) {
            return Ok(found.is_down);
        }
        let asked_at = Instant::now();
        let reference_relays =
            read::reference_relays(&parts.pools.session, network.as_str(), REFERENCE_RELAYS).await?;
        let timeouts = Timeouts::from(parts.networks.get(network));
        let mut answers: FuturesUnordered<_> = reference_relays
            .iter()
            .filter_map(|relay| {
                let trust = if relay.is_named { Trust::Named } else { Trust::Discovered };
                Some((RelayUrl::parse(&relay.url).ok()?, trust))
            })
            .map(|(url, trust)| async move { probe(&parts.outside, &url, trust, timeouts).await.is_ok() })
            .collect();
        // Without a reference relay the state of the uplink is unknown, and counts as up.
        let mut is_down = !answers.is_empty();
        while let Some(is_there) = answers.next().await {
            if is_there {
                is_down = false;
                break;
            }
        }
        if is_down {
            tracing::warn!(
                network = network.as_str(),
                "no reference relay is reachable: our own uplink is down, and failures do not count against candidates"
            );
        }
        *last = Some(Found { asked_at, is_down });
        Ok(is_down)
    }
}
