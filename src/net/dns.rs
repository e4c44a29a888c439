//! DNS: resolves addresses to dial, and collects DNS records for the monitor. Names of hidden networks are
//! refused.

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

use super::remote_text::sanitize;
use super::{DialError, Trust};
use crate::base::{Network, is_local_ip, is_local_name};

/// Cached answers. Each is kept for its own TTL, within the bounds below.
const CACHE_ANSWERS: u64 = 4_096;
/// Longest time that an answer is cached, whatever its TTL.
const TTL_MAX: Duration = Duration::from_hours(1);
/// Longest time that a missing name is cached.
const NEGATIVE_TTL_MAX: Duration = Duration::from_mins(5);
/// Timeout of one query to one name server.
const QUERY_TIMEOUT: Duration = Duration::from_secs(3);
/// Queries sent to a name server before it counts as unreachable.
const ATTEMPTS: usize = 2;
/// Addresses of one name that are dialled.
const ADDRESSES_MAX: usize = 4;
/// Records kept of one type.
const RECORDS_MAX: usize = 32;

/// DNS records of a host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct DnsRecords {
    /// A records.
    pub a: Vec<Ipv4Addr>,
    /// AAAA records.
    pub aaaa: Vec<Ipv6Addr>,
    /// Target of the CNAME record, if the host is an alias.
    pub cname: Option<String>,
    /// NS records, if the host is the apex of a zone.
    pub ns: Vec<String>,
    /// PTR record of the first address.
    pub ptr: Option<String>,
    /// Lowest TTL of the records, in seconds.
    pub ttl_s: Option<u32>,
}

/// DNS resolver. Clones share the cache.
#[derive(Debug, Clone)]
pub(super) struct Resolver {
    dns: TokioResolver,
    /// `networks.clearnet.private_names`: public names that may resolve to a private address.
    private_names: Arc<[String]>,
}

impl Resolver {
    /// Uses the name servers and the hosts file of the system.
    pub(super) fn from_system() -> Result<Self, DialError> {
        match hickory_resolver::system_conf::read_system_conf() {
            Ok((servers, options)) => Self::new(servers, options),
            // Without DNS, address literals and names behind a proxy still work.
            Err(error) => {
                tracing::warn!(%error, "the system's DNS configuration cannot be read; only address literals and hidden networks can be reached");
                Self::new(ResolverConfig::from_parts(None, Vec::new(), Vec::new()), ResolverOpts::default())
            }
        }
    }

    /// Uses these name servers instead of the system's, and the hosts file.
    pub(super) fn with_servers(servers: &[SocketAddr]) -> Result<Self, DialError> {
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
        options.timeout = QUERY_TIMEOUT;
        options.attempts = ATTEMPTS;
        options.cache_size = CACHE_ANSWERS;
        options.positive_max_ttl = Some(TTL_MAX);
        options.negative_max_ttl = Some(NEGATIVE_TTL_MAX);
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.preserve_intermediates = true;
        TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
            .map(|dns| Self { dns, private_names: Arc::default() })
            .map_err(|e| DialError::Settings(format!("DNS: {e}")))
    }

    /// Sets the public names that may resolve to a private address.
    pub(super) fn with_private_names(self, names: &[String]) -> Self {
        Self { private_names: names.into(), ..self }
    }

    /// Addresses of `host` (a name or an IP literal, in lower case) that may be dialled, in the order to try.
    /// The caller must connect to one of these and must not resolve the name again: a second DNS answer could
    /// point elsewhere (DNS rebinding).
    pub(super) async fn addresses(&self, host: &str, trust: Trust) -> Result<Vec<IpAddr>, DialError> {
        let found = match ip_literal(host) {
            Some(ip) => vec![ip],
            None => self.resolve(host, trust).await?,
        };
        let may_be_private = trust == Trust::Named && self.may_be_private(host);
        let dialable = interleaved(found.iter().copied().filter(|ip| may_be_private || !is_local_ip(*ip)));
        if !dialable.is_empty() {
            return Ok(dialable);
        }
        Err(match trust {
            _ if found.is_empty() => DialError::Dns { host: sanitize(host), why: "no address".to_owned() },
            Trust::Named => DialError::PrivateName(sanitize(host)),
            Trust::Discovered => DialError::PrivateAddress(sanitize(host)),
        })
    }

    fn may_be_private(&self, host: &str) -> bool {
        let bare = host.trim_end_matches('.');
        ip_literal(host).is_some()
            || is_local_name(host)
            || self.private_names.iter().any(|name| name == bare)
    }

    async fn resolve(&self, host: &str, trust: Trust) -> Result<Vec<IpAddr>, DialError> {
        clearnet_only(host)?;
        // The system's search list is applied only to local names that the operator named.
        let asked = match (trust, is_local_name(host)) {
            (Trust::Named, true) => host.to_owned(),
            (Trust::Discovered, true) => return Err(DialError::PrivateAddress(sanitize(host))),
            (_, false) => fully_qualified(host),
        };
        let found = self.dns.lookup_ip(asked).await.map_err(|e| dns_error(host, &e))?;
        Ok(found.iter().collect())
    }

    /// Collects the DNS records of `host`.
    pub(super) async fn records(&self, host: &str) -> Result<DnsRecords, DialError> {
        let host = host.to_ascii_lowercase();
        let mut names = DnsRecords::default();
        if let Some(ip) = ip_literal(&host) {
            match ip {
                IpAddr::V4(ip) => names.a.push(ip),
                IpAddr::V6(ip) => names.aaaa.push(ip),
            }
            names.ptr = self.reverse_name(ip).await;
            return Ok(names);
        }
        clearnet_only(&host)?;
        let asked = fully_qualified(&host);
        let (found, servers) = tokio::join!(self.dns.lookup_ip(asked.clone()), self.dns.ns_lookup(asked));
        let found = found.map_err(|e| dns_error(&host, &e))?;
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
        // Sorted, because servers rotate the records, and equal records must give equal text.
        names.a.sort_unstable();
        names.aaaa.sort_unstable();
        names.ns.sort_unstable();
        let first = names.a.first().copied().map(IpAddr::from);
        if let Some(ip) = first.or_else(|| names.aaaa.first().copied().map(IpAddr::from)) {
            names.ptr = self.reverse_name(ip).await;
        }
        Ok(names)
    }

    async fn reverse_name(&self, ip: IpAddr) -> Option<String> {
        // A reverse lookup of a private address would tell the public DNS about the local network.
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

/// Parses `host` as an IP address; IPv6 with or without brackets.
pub(super) fn ip_literal(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

fn clearnet_only(host: &str) -> Result<(), DialError> {
    match Network::of_host(host) {
        Network::Clearnet => Ok(()),
        _ => Err(DialError::Hidden(sanitize(host))),
    }
}

/// Adds the final dot, so that the system's search list is not applied.
fn fully_qualified(host: &str) -> String {
    format!("{}.", host.trim_end_matches('.'))
}

fn name_text(name: &str) -> String {
    sanitize(name.trim_end_matches('.'))
}

fn dns_error(host: &str, error: &NetError) -> DialError {
    let why = if error.is_nx_domain() {
        "no such name (NXDOMAIN)".to_owned()
    } else if error.is_no_records_found() {
        "the name has no address".to_owned()
    } else {
        sanitize(&error.to_string())
    };
    DialError::Dns { host: sanitize(host), why }
}

/// The first [`ADDRESSES_MAX`] addresses, alternating between families. IPv4 comes first: on a host whose
/// IPv6 route drops packets silently, every dial would otherwise wait for a timeout.
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
