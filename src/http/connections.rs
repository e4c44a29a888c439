//! Limits on the number of connections: per listener, per client address, and per process.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::config::AddressPrefix;

/// Prefix of an IPv6 address that a client cannot choose freely: it usually controls a whole /64.
const IPV6_PREFIX: u128 = !0 << 64;

/// The key by which limits per address count a client: an IPv4 address (also in its IPv6-mapped form), or the
/// /64 network of an IPv6 address.
#[must_use]
pub fn client_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & IPV6_PREFIX).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// The connection limits of one listener.
#[derive(Debug)]
pub(super) struct ConnectionLimits {
    /// Connections of this listener.
    total: Arc<Semaphore>,
    /// Connections of all listeners of the process: what the limit on open descriptors leaves.
    descriptors: Arc<Semaphore>,
    per_address_max: usize,
    counts_loopback: bool,
    trusted_proxies: Vec<AddressPrefix>,
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// The limit that refused a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LimitReached {
    /// `http.connections_max`.
    Listener,
    /// `http.connections_per_address_max`.
    Address,
    /// The process's limit on open descriptors.
    Descriptors,
}

impl LimitReached {
    /// The label in metrics, and the error code in the response.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Listener => "connections_max",
            Self::Address => "connections_per_address_max",
            Self::Descriptors => "descriptors",
        }
    }
}

impl ConnectionLimits {
    pub(super) fn new(
        connections_max: usize,
        per_address_max: usize,
        counts_loopback: bool,
        trusted_proxies: Vec<AddressPrefix>,
        descriptors: Arc<Semaphore>,
    ) -> Self {
        let total = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
        Self { total, descriptors, per_address_max, counts_loopback, trusted_proxies, counts: Arc::default() }
    }

    /// Acquires a permit for a connection from `peer`.
    pub(super) fn admit(
        &self,
        peer: IpAddr,
        open: &TaskTracker,
        connections: Gauge,
    ) -> Result<ConnectionPermit, LimitReached> {
        let peer = peer.to_canonical();
        let all = Arc::clone(&self.total).try_acquire_owned().map_err(|_| LimitReached::Listener)?;
        let descriptor =
            Arc::clone(&self.descriptors).try_acquire_owned().map_err(|_| LimitReached::Descriptors)?;
        let is_counted = (self.counts_loopback || !peer.is_loopback())
            && !self.trusted_proxies.iter().any(|prefix| prefix.contains(peer));
        let address =
            if is_counted { Some(self.acquire_address(peer).ok_or(LimitReached::Address)?) } else { None };
        connections.inc();
        Ok(ConnectionPermit {
            _permits: [all, descriptor],
            _address: address,
            connections,
            _open: open.token(),
        })
    }

    fn acquire_address(&self, peer: IpAddr) -> Option<AddressPermit> {
        let address = client_key(peer);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= self.per_address_max {
            return None;
        }
        *count += 1;
        Some(AddressPermit { address, counts: Arc::clone(&self.counts) })
    }
}

/// The permit of one connection, held until it is closed, also after an upgrade.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    _permits: [OwnedSemaphorePermit; 2],
    _address: Option<AddressPermit>,
    connections: Gauge,
    _open: TaskTrackerToken,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.connections.dec();
    }
}

/// One counted connection of a client address.
#[derive(Debug)]
struct AddressPermit {
    address: IpAddr,
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(connections_max: usize, counts_loopback: bool) -> ConnectionLimits {
        let trusted = vec![AddressPrefix::try_from("10.0.0.0/8".to_owned()).unwrap()];
        ConnectionLimits::new(connections_max, 2, counts_loopback, trusted, Arc::new(Semaphore::new(6)))
    }

    fn admit(bounds: &ConnectionLimits, peer: &str) -> Result<ConnectionPermit, LimitReached> {
        bounds.admit(peer.parse().unwrap(), &TaskTracker::new(), Gauge::default())
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address_and_permits_are_returned() {
        let bounds = bounds(100, true);
        let held = [admit(&bounds, "2001:db8::1").unwrap(), admit(&bounds, "2001:db8::ffff:1").unwrap()];
        assert_eq!(admit(&bounds, "2001:db8::2").unwrap_err(), LimitReached::Address);
        let other = admit(&bounds, "2001:db8:0:1::1").unwrap();
        drop(held);
        let again = admit(&bounds, "2001:db8::2").unwrap();
        drop((other, again));
        assert!(bounds.counts.lock().unwrap().is_empty());
        assert_eq!((bounds.total.available_permits(), bounds.descriptors.available_permits()), (100, 6));
    }

    #[test]
    fn all_limits_hold_and_proxies_count_only_towards_the_total() {
        let few = bounds(3, true);
        let _held = ["10.0.0.1"; 3].map(|proxy| admit(&few, proxy).unwrap());
        assert_eq!(admit(&few, "10.0.0.1").unwrap_err(), LimitReached::Listener);
        let many = bounds(100, false);
        let _held = ["::ffff:127.0.0.1"; 6].map(|local| admit(&many, local).unwrap());
        assert_eq!(admit(&many, "192.0.2.1").unwrap_err(), LimitReached::Descriptors);
    }
}
