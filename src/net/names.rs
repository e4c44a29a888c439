//! DNS: addresses to dial, and facts for the monitor. Names of hidden networks never get this far.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use serde::Serialize;

use super::error::words;
use super::{DialError, Trust};
use crate::base::{Network, is_local_ip, is_local_name};

/// Answers kept, each for its own time to live.
const CACHE_ANSWERS: u64 = 4_096;
/// Longest an answer is kept, whatever its owner says.
const KEPT_MAX: Duration = Duration::from_hours(1);
/// Longest that a missing name is remembered.
const MISSING_KEPT_MAX: Duration = Duration::from_mins(5);
/// Time for one question to one name server.
const QUESTION_MAX: Duration = Duration::from_secs(3);
/// Questions until a name server counts as silent.
const ATTEMPTS: usize = 2;
/// Most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;
/// Most records kept of one kind.
const RECORDS_MAX: usize = 32;

/// What DNS says of a host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Names {
    /// Its IPv4 addresses.
    pub a: Vec<Ipv4Addr>,
    /// Its IPv6 addresses.
    pub aaaa: Vec<Ipv6Addr>,
    /// The name it is another name of.
    pub cname: Option<String>,
    /// Name servers of the host's own zone, if it is one.
    pub ns: Vec<String>,
    /// The name of its first address.
    pub ptr: Option<String>,
    /// Shortest time to live of its addresses, in seconds.
    pub ttl_s: Option<u32>,
}

/// Asks DNS. A clone shares the cache.
#[derive(Debug, Clone)]
pub(super) struct Resolver {
    dns: TokioResolver,
    /// `networks.clearnet.private_names`: public names that may resolve to a private address.
    private_names: Arc<[String]>,
}

impl Resolver {
    /// Uses the system's name servers and hosts file.
    pub(super) fn of_system() -> Result<Self, DialError> {
        match hickory_resolver::system_conf::read_system_conf() {
            Ok((servers, options)) => Self::new(servers, options),
            // A machine without DNS can still reach addresses, and names through a proxy.
            Err(error) => {
                tracing::warn!(%error, "no DNS: the system's configuration cannot be read");
                Self::new(ResolverConfig::from_parts(None, Vec::new(), Vec::new()), ResolverOpts::default())
            }
        }
    }

    /// Asking these name servers instead of the system's, with the hosts file.
    pub(super) fn asking(servers: &[SocketAddr]) -> Result<Self, DialError> {
        let servers = servers.iter().map(|server| {
            let with_port = |mut connection: ConnectionConfig| {
                connection.port = server.port();
                connection
            };
            let connections = vec![with_port(ConnectionConfig::udp()), with_port(ConnectionConfig::tcp())];
            NameServerConfig::new(server.ip(), true, connections)
        });
        Self::new(ResolverConfig::from_parts(None, Vec::new(), servers.collect()), ResolverOpts::default())
    }

    fn new(servers: ResolverConfig, mut options: ResolverOpts) -> Result<Self, DialError> {
        options.timeout = QUESTION_MAX;
        options.attempts = ATTEMPTS;
        options.cache_size = CACHE_ANSWERS;
        options.positive_max_ttl = Some(KEPT_MAX);
        options.negative_max_ttl = Some(MISSING_KEPT_MAX);
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.preserve_intermediates = true;
        TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
            .map(|dns| Self { dns, private_names: Arc::default() })
            .map_err(|e| DialError::Settings(format!("DNS: {e}")))
    }

    /// The same resolver, for which these public names may resolve to a private address.
    pub(super) fn with_private_names(self, names: &[String]) -> Self {
        Self { private_names: names.into(), ..self }
    }

    /// Addresses of `host` (a name or an address, in lower case) that may be dialled, best first. The caller connects to one of
    /// these and never resolves again, so that a second answer of DNS cannot lead elsewhere.
    pub(super) async fn addresses(&self, host: &str, trust: Trust) -> Result<Vec<IpAddr>, DialError> {
        let found = match address(host) {
            Some(ip) => vec![ip],
            None => self.resolve(host, trust).await?,
        };
        let may_be_private = trust == Trust::Named && self.may_be_private(host);
        let dialable = interleaved(found.iter().copied().filter(|ip| may_be_private || !is_local_ip(*ip)));
        if !dialable.is_empty() {
            return Ok(dialable);
        }
        Err(match trust {
            _ if found.is_empty() => DialError::Dns { host: words(host), why: "no address".to_owned() },
            Trust::Named => DialError::PrivateName(words(host)),
            Trust::Discovered => DialError::PrivateAddress(words(host)),
        })
    }

    /// Whether a host that the operator named may have a private address.
    fn may_be_private(&self, host: &str) -> bool {
        let bare = host.trim_end_matches('.');
        address(host).is_some() || is_local_name(host) || self.private_names.iter().any(|name| name == bare)
    }

    async fn resolve(&self, host: &str, trust: Trust) -> Result<Vec<IpAddr>, DialError> {
        clearnet_only(host)?;
        // The machine's search list applies to a local name of the operator alone.
        let asked = match (trust, is_local_name(host)) {
            (Trust::Named, true) => host.to_owned(),
            (Trust::Discovered, true) => return Err(DialError::PrivateAddress(words(host))),
            (_, false) => absolute(host),
        };
        let found = self.dns.lookup_ip(asked).await.map_err(|e| dns(host, &e))?;
        Ok(found.iter().collect())
    }

    /// What DNS says of `host`.
    pub(super) async fn facts(&self, host: &str) -> Result<Names, DialError> {
        let host = host.to_ascii_lowercase();
        let mut names = Names::default();
        if let Some(ip) = address(&host) {
            match ip {
                IpAddr::V4(ip) => names.a.push(ip),
                IpAddr::V6(ip) => names.aaaa.push(ip),
            }
            names.ptr = self.name_of(ip).await;
            return Ok(names);
        }
        clearnet_only(&host)?;
        let asked = absolute(&host);
        let (found, servers) = tokio::join!(self.dns.lookup_ip(asked.clone()), self.dns.ns_lookup(asked));
        let found = found.map_err(|e| dns(&host, &e))?;
        for record in found.as_lookup().answers().iter().take(RECORDS_MAX) {
            match &record.data {
                RData::A(a) => names.a.push(a.0),
                RData::AAAA(aaaa) => names.aaaa.push(aaaa.0),
                RData::CNAME(cname) => names.cname = Some(name_text(&cname.0.to_utf8())),
                _ => continue,
            }
            names.ttl_s = Some(names.ttl_s.map_or(record.ttl, |ttl| ttl.min(record.ttl)));
        }
        if let Ok(servers) = servers {
            let text = |data: &RData| match data {
                RData::NS(ns) => Some(name_text(&ns.0.to_utf8())),
                _ => None,
            };
            names.ns = servers.answers().iter().filter_map(|r| text(&r.data)).take(RECORDS_MAX).collect();
        }
        // Servers rotate them; the same facts are to be the same text.
        names.a.sort_unstable();
        names.aaaa.sort_unstable();
        names.ns.sort_unstable();
        let first = names.a.first().copied().map(IpAddr::from);
        if let Some(ip) = first.or_else(|| names.aaaa.first().copied().map(IpAddr::from)) {
            names.ptr = self.name_of(ip).await;
        }
        Ok(names)
    }

    async fn name_of(&self, ip: IpAddr) -> Option<String> {
        // The private ones are nobody's business but this network's.
        if is_local_ip(ip) {
            return None;
        }
        let found = self.dns.reverse_lookup(ip).await.ok()?;
        found.answers().iter().find_map(|record| match &record.data {
            RData::PTR(ptr) => Some(name_text(&ptr.0.to_utf8())),
            _ => None,
        })
    }
}

/// The address that `host` is, if it is one; IPv6 with or without brackets.
pub(super) fn address(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

fn clearnet_only(host: &str) -> Result<(), DialError> {
    match Network::of_host(host) {
        Network::Clearnet => Ok(()),
        _ => Err(DialError::Hidden(words(host))),
    }
}

/// With the final dot, which keeps the machine's search list out of it.
fn absolute(host: &str) -> String {
    format!("{}.", host.trim_end_matches('.'))
}

fn name_text(name: &str) -> String {
    words(name.trim_end_matches('.'))
}

fn dns(host: &str, error: &NetError) -> DialError {
    let why = if error.is_nx_domain() {
        "there is no such name".to_owned()
    } else if error.is_no_records_found() {
        "the name has no address".to_owned()
    } else {
        words(&error.to_string())
    };
    DialError::Dns { host: words(host), why }
}

/// The first few, in turn of both families. IPv4 goes first: on a machine whose IPv6 leads nowhere without saying so, every
/// dial would wait for it.
fn interleaved(found: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let (v4, v6): (Vec<_>, Vec<_>) = found.partition(IpAddr::is_ipv4);
    let longest = v4.len().max(v6.len());
    let turns = (0..longest).flat_map(|turn| [v4.get(turn), v6.get(turn)]);
    turns.flatten().take(ADDRESSES_MAX).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_take_turns_within_a_bound() {
        let ips = ["::1", "::2", "1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"].map(|ip| ip.parse().unwrap());
        let order: Vec<_> = interleaved(ips.into_iter()).iter().map(ToString::to_string).collect();
        assert_eq!(order, ["1.1.1.1", "::1", "1.1.1.2", "::2"]);
    }
}
