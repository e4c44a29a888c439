//! The process's limit of open descriptors: raised at the start, and divided between connections to relays,
//! connections to the database and connections that listeners accept.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::base::Network;
use crate::config::Settings;

/// Descriptors reserved for files, pipes and listeners.
const OWN: u64 = 256;

/// Connections that listeners may accept however low the limit is.
const CONNECTIONS_MIN: u64 = 64;

/// Services that connect to relays at the same time, each within `relays_at_once`: validator, monitor,
/// synchronizer.
const DIALLING_SERVICES: u64 = 3;

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

impl Descriptors {
    /// Raises the soft limit to the hard one and divides it.
    pub(super) fn raise(settings: &Settings) -> Self {
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
                tracing::warn!(error = %error, "the limit of open descriptors cannot be raised: {error}");
                getrlimit(Resource::RLIMIT_NOFILE).map_or(1_024, |(soft, _)| soft)
            }
        };
        Self::divided(limit, settings)
    }

    /// Logs the division, and a warning if the limit is too low. For processes that run services: a command
    /// of the command line listens nowhere.
    pub(super) fn log(self, settings: &Settings) {
        let (Self { limit, kept, connections_max }, allowed) = (self, allowed(settings));
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
    }

    fn divided(limit: u64, settings: &Settings) -> Self {
        let database = &settings.database;
        let pools =
            [database.write_connections_max, database.session_connections_max, database.read_connections_max];
        let networks = [Network::Clearnet, Network::Tor, Network::I2p, Network::Loki];
        let dialled: u64 = networks
            .map(|network| settings.networks.get(network))
            .iter()
            .filter(|network| network.enabled)
            .map(|network| number(network.relays_at_once.get()).saturating_mul(DIALLING_SERVICES))
            .fold(0, u64::saturating_add);
        let pooled: u64 = pools.iter().map(|pool| u64::from(pool.get())).sum();
        let kept = OWN.saturating_add(pooled).saturating_add(dialled);
        let left = limit.saturating_sub(kept).max(CONNECTIONS_MIN);
        Self { limit, kept, connections_max: usize::try_from(left).unwrap_or(usize::MAX) }
    }
}

/// Connections that the settings allow at one listener, plus those that the listeners of messages add.
fn allowed(settings: &Settings) -> u64 {
    let messages =
        settings.services.messages.enabled.then(|| settings.services.messages.connections_max.get());
    number(settings.http.connections_max.get()).saturating_add(messages.map_or(0, number))
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
        let large = Descriptors::divided(1_048_576, &settings);
        // 256 of our own, three pools of 8, and three services with 256 relays each.
        assert_eq!((large.kept, large.connections_max), (1_048, 1_047_528));
        assert_eq!(Descriptors::divided(1_024, &settings).connections_max, 64);
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let (_, limit) = raised().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (limit, limit));
    }
}
