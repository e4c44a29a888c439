//! Limits how many candidates of each network are tried at once, and decides when polling for more is
//! worthwhile.

use std::time::Duration;

use tokio::time::Instant;

use crate::base::Network;
use crate::config::Networks;

/// The slots of each enabled network.
#[derive(Debug)]
pub(super) struct Slots(Vec<NetworkSlots>);

#[derive(Debug)]
struct NetworkSlots {
    network: Network,
    limit: usize,
    taken: usize,
    /// Time of the last poll, if it found fewer candidates than there were free slots.
    found_few_at: Option<Instant>,
}

impl Slots {
    pub(super) fn new(networks: &Networks) -> Self {
        let all = [Network::Clearnet, Network::Tor, Network::I2p, Network::Loki];
        let reached = all.into_iter().filter(|network| networks.get(*network).enabled);
        let slots = |network| NetworkSlots {
            network,
            limit: networks.get(network).relays_at_once.get(),
            taken: 0,
            found_few_at: None,
        };
        Self(reached.map(slots).collect())
    }

    /// Networks to poll, each with its number of free slots. A poll is a query over all candidates, so it
    /// waits until a quarter of the slots is free, and for `pause` after a poll that found few.
    pub(super) fn to_poll(&self, now: Instant, pause: Duration) -> Vec<(Network, usize)> {
        let is_worth_it = |slots: &&NetworkSlots| {
            let free = slots.limit.saturating_sub(slots.taken);
            free > 0 && free * 4 >= slots.limit && slots.found_few_at.is_none_or(|at| at + pause <= now)
        };
        self.0.iter().filter(is_worth_it).map(|slots| (slots.network, slots.limit - slots.taken)).collect()
    }

    /// Takes slots for the `found` candidates of a poll.
    pub(super) fn take(&mut self, network: Network, found: usize, now: Instant) {
        for slots in self.0.iter_mut().filter(|slots| slots.network == network) {
            slots.taken += found;
            slots.found_few_at = (slots.taken < slots.limit).then_some(now);
        }
    }

    /// Frees the slot of a finished try.
    pub(super) fn free(&mut self, network: Network) {
        for slots in self.0.iter_mut().filter(|slots| slots.network == network) {
            slots.taken = slots.taken.saturating_sub(1);
        }
    }

    /// Number of slots in use in a network.
    pub(super) fn taken(&self, network: Network) -> usize {
        self.0.iter().find(|slots| slots.network == network).map_or(0, |slots| slots.taken)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    #[tokio::test]
    async fn a_poll_waits_for_a_quarter_of_the_slots_and_for_a_pause_after_few_were_found() {
        let mut networks = Networks::default();
        networks.clearnet.relays_at_once = NonZeroUsize::new(8).unwrap();
        let mut slots = Slots::new(&networks);
        let (start, pause) = (Instant::now(), Duration::from_secs(2));
        assert_eq!(slots.to_poll(start, pause), [(Network::Clearnet, 8)]);
        slots.take(Network::Clearnet, 8, start);
        assert_eq!((slots.to_poll(start, pause), slots.taken(Network::Clearnet)), (vec![], 8));
        slots.free(Network::Clearnet);
        assert_eq!(slots.to_poll(start, pause), []);
        slots.free(Network::Clearnet);
        assert_eq!(slots.to_poll(start, pause), [(Network::Clearnet, 2)]);
        slots.take(Network::Clearnet, 1, start);
        slots.free(Network::Clearnet);
        slots.free(Network::Clearnet);
        assert_eq!(slots.to_poll(start + pause / 2, pause), []);
        assert_eq!(slots.to_poll(start + pause, pause), [(Network::Clearnet, 3)]);
    }

    #[test]
    fn a_network_that_is_off_has_no_slot() {
        let mut networks = Networks::default();
        networks.clearnet.enabled = false;
        assert_eq!(Slots::new(&networks).to_poll(Instant::now(), Duration::ZERO), []);
    }
}
