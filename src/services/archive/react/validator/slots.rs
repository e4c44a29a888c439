//! How many candidates of each network are tried at once, and when it is worth the while to look for more.

use std::time::Duration;

use tokio::time::Instant;

use crate::base::Network;
use crate::config::Networks;

/// Those of each network that is reached.
#[derive(Debug)]
pub(super) struct Slots(Vec<NetworkSlots>);

#[derive(Debug)]
struct NetworkSlots {
    network: Network,
    limit: usize,
    taken: usize,
    /// When somebody looked last, and found less than there was room for.
    found_little_at: Option<Instant>,
}

impl Slots {
    pub(super) fn new(networks: &Networks) -> Self {
        let all = [Network::Clearnet, Network::Tor, Network::I2p, Network::Loki];
        let reached = all.into_iter().filter(|network| networks.get(*network).enabled);
        let slots = |network| NetworkSlots {
            network,
            limit: networks.get(network).relays_at_once.get(),
            taken: 0,
            found_little_at: None,
        };
        Self(reached.map(slots).collect())
    }

    /// Networks in which to look for more, and for how many. A look costs a query over all candidates: it waits until a
    /// quarter of the slots is free, and where the last one found little, for `pause`.
    pub(super) fn to_look(&self, now: Instant, pause: Duration) -> Vec<(Network, usize)> {
        let is_worth_it = |slots: &&NetworkSlots| {
            let free = slots.limit.saturating_sub(slots.taken);
            free > 0 && free * 4 >= slots.limit && slots.found_little_at.is_none_or(|at| at + pause <= now)
        };
        self.0.iter().filter(is_worth_it).map(|slots| (slots.network, slots.limit - slots.taken)).collect()
    }

    /// So many were found in a network and take their slots.
    pub(super) fn looked(&mut self, network: Network, found: usize, now: Instant) {
        for slots in self.0.iter_mut().filter(|slots| slots.network == network) {
            slots.taken += found;
            slots.found_little_at = (slots.taken < slots.limit).then_some(now);
        }
    }

    /// One has ended.
    pub(super) fn free(&mut self, network: Network) {
        for slots in self.0.iter_mut().filter(|slots| slots.network == network) {
            slots.taken = slots.taken.saturating_sub(1);
        }
    }

    /// Those taken in a network.
    pub(super) fn taken(&self, network: Network) -> usize {
        self.0.iter().find(|slots| slots.network == network).map_or(0, |slots| slots.taken)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    #[tokio::test]
    async fn a_look_waits_for_a_quarter_of_the_places_and_for_a_pause_where_little_was_found() {
        let mut networks = Networks::default();
        networks.clearnet.relays_at_once = NonZeroUsize::new(8).unwrap();
        let mut slots = Slots::new(&networks);
        let (start, pause) = (Instant::now(), Duration::from_secs(2));
        assert_eq!(slots.to_look(start, pause), [(Network::Clearnet, 8)]);
        slots.looked(Network::Clearnet, 8, start);
        assert_eq!((slots.to_look(start, pause), slots.taken(Network::Clearnet)), (vec![], 8));
        slots.free(Network::Clearnet);
        assert_eq!(slots.to_look(start, pause), []);
        slots.free(Network::Clearnet);
        assert_eq!(slots.to_look(start, pause), [(Network::Clearnet, 2)]);
        slots.looked(Network::Clearnet, 1, start);
        slots.free(Network::Clearnet);
        slots.free(Network::Clearnet);
        assert_eq!(slots.to_look(start + pause / 2, pause), []);
        assert_eq!(slots.to_look(start + pause, pause), [(Network::Clearnet, 3)]);
    }

    #[test]
    fn a_network_that_is_off_has_no_place() {
        let mut networks = Networks::default();
        networks.clearnet.enabled = false;
        assert_eq!(Slots::new(&networks).to_look(Instant::now(), Duration::ZERO), []);
    }
}
