//! The process's limit of open descriptors: raised at the start, and divided between connections to relays,
//! connections to the database and connections that listeners accept.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::base::Network;
use crate::config::Settings;

/// Descriptors reserved for files, pipes and listeners.
const OWN: u64 = 256;

/// Connections that listeners may accept however low the limit is.
const CONNECTIONS_MIN: u64 = 64;

/// The division of the descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Descriptors {
    /// The process's limit.
    pub(super) limit: u64,
    /// Descriptors reserved for the database, connections to relays and files.
    pub(super) kept: u64,
    /// Most connections that all listeners together accept.
    pub(super) connections_max: usize,
}

/// What the services of a process need descriptors for.
#[derive(Debug, Clone, Copy)]
pub struct DescriptorNeeds {
    /// Services that connect to relays at the same time.
    pub dialling: usize,
    /// Connections that the settings of the services allow at their listeners beyond `http.connections_max`.
    pub sockets: usize,
}

impl Descriptors {
    /// Raises the soft limit to the hard one, divides it for services with these `needs` and logs the result.
    pub(super) fn raise(settings: &Settings, needs: Option<DescriptorNeeds>) -> Self {
        let limit = match raised() {
            Ok((before, limit)) => {
                tracing::debug!(
                    before,
                    limit,
                    "the limit of open descriptors is raised from {before} to {limit}"
                );
                limit
            }
            Err(error) => {
                tracing::warn!("the limit of open descriptors cannot be raised: {error}");
                getrlimit(Resource::RLIMIT_NOFILE).map_or(1_024, |(soft, _)| soft)
            }
        };
        // A command runs no service and listens nowhere.
        let Some(DescriptorNeeds { dialling, sockets }) = needs else {
            return Self::divided(limit, settings, 0);
        };
        let divided = Self::divided(limit, settings, number(dialling));
        let Self { limit, kept, connections_max } = divided;
        let allowed = number(settings.http.connections_max.get()).saturating_add(number(sockets));
        tracing::info!(
            limit,
            kept,
            connections_max,
            "{limit} descriptors: {kept} kept for the database and the crawl, {connections_max} for connections at \
             listeners, whose settings allow {allowed}"
        );
        if kept + CONNECTIONS_MIN > limit {
            tracing::warn!(
                "the limit of {limit} descriptors is too low for these settings: raise it (ulimit -n)"
            );
        }
        divided
    }

    /// Divides `limit`. `dialling` is the number of services that connect to relays at the same time.
    fn divided(limit: u64, settings: &Settings, dialling: u64) -> Self {
        let database = &settings.database;
        let pools =
            [database.write_connections_max, database.session_connections_max, database.read_connections_max];
        let networks = [Network::Clearnet, Network::Tor, Network::I2p, Network::Loki];
        let dialled: u64 = networks
            .map(|network| settings.networks.get(network))
            .iter()
            .filter(|network| network.enabled)
            .map(|network| number(network.relays_at_once.get()).saturating_mul(dialling))
            .fold(0, u64::saturating_add);
        let pooled: u64 = pools.iter().map(|pool| u64::from(pool.get())).sum();
        let kept = OWN.saturating_add(pooled).saturating_add(dialled);
        let left = limit.saturating_sub(kept).max(CONNECTIONS_MIN);
        Self { limit, kept, connections_max: usize::try_from(left).unwrap_or(usize::MAX) }
    }
}

fn number(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

/// Raises the soft limit to the hard one; returns the soft limit before and after.
fn raised() -> nix::Result<(u64, u64)> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok((soft, hard))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_crawl_and_the_database_need_is_kept() {
        let settings = Settings::default();
        let large = Descriptors::divided(1_048_576, &settings, 3);
        // 256 of our own, three pools of 8, and three services with 256 relays each.
        assert_eq!((large.kept, large.connections_max), (1_048, 1_047_528));
        assert_eq!(Descriptors::divided(1_024, &settings, 3).connections_max, 64);
        assert_eq!(Descriptors::divided(1_024, &settings, 0).connections_max, 744);
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let (_, limit) = raised().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (limit, limit));
    }
}
