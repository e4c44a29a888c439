//! Determines the client of a request: the peer of the connection, or the address that a trusted proxy
//! reports.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;

use crate::config::AddressPrefix;

/// Headers that proxies add. A request from loopback with one of them passed through a proxy, so it may come
/// from another machine.
const FORWARDED: [&str; 6] =
    ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via"];

/// The client of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress {
    /// The peer of the connection; behind a trusted proxy, the rightmost address in `X-Forwarded-For` that is
    /// not a trusted proxy.
    pub address: IpAddr,
    /// Whether the request came from a program on this machine without a proxy in between. Only then may a
    /// loopback address serve as a credential.
    pub is_loopback_direct: bool,
}

/// Determines the client of a request with these headers, on a connection from `peer`.
pub(super) fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[AddressPrefix]) -> ClientAddress {
    let peer = peer.to_canonical();
    let is_trusted = |address: IpAddr| trusted.iter().any(|prefix| prefix.contains(address));
    if !is_trusted(peer) {
        let is_forwarded = FORWARDED.iter().any(|name| headers.contains_key(*name));
        return ClientAddress { address: peer, is_loopback_direct: peer.is_loopback() && !is_forwarded };
    }
    let mut address = peer;
    let forwarded = headers.get_all("x-forwarded-for").iter().rev();
    // Stop at a value that is not text or not an address: values to its left were not checked by a trusted
    // proxy.
    for entry in forwarded.flat_map(|value| value.to_str().unwrap_or("?").rsplit(',')) {
        let Some(entry) = parse(entry.trim()) else { break };
        address = entry;
        if !is_trusted(entry) {
            break;
        }
    }
    ClientAddress { address, is_loopback_direct: false }
}

/// Parses an IP address, with or without a port.
fn parse(entry: &str) -> Option<IpAddr> {
    let plain = entry.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let address = plain.or_else(|_| entry.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &str, fields: &[(&'static str, &str)], trusted: &[&str]) -> (String, bool) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let trusted: Vec<AddressPrefix> =
            trusted.iter().map(|prefix| AddressPrefix::try_from((*prefix).to_owned()).unwrap()).collect();
        let client = client(peer.parse().unwrap(), &headers, &trusted);
        (client.address.to_string(), client.is_loopback_direct)
    }

    #[test]
    fn a_forwarded_field_from_loopback_ends_the_trust_in_loopback() {
        assert_eq!(seen("127.0.0.1", &[], &[]), ("127.0.0.1".into(), true));
        assert_eq!(seen("::ffff:127.0.0.1", &[], &[]), ("127.0.0.1".into(), true));
        for name in FORWARDED {
            assert_eq!(seen("127.0.0.1", &[(name, "127.0.0.1")], &[]), ("127.0.0.1".into(), false), "{name}");
        }
        assert_eq!(seen("192.0.2.1", &[("x-forwarded-for", "127.0.0.1")], &[]), ("192.0.2.1".into(), false));
    }

    #[test]
    fn a_trusted_proxy_says_who_its_client_is_and_is_never_direct() {
        let trusted = ["127.0.0.1", "10.0.0.0/8"];
        let walk = |fields: &[(&'static str, &str)]| seen("127.0.0.1", fields, &trusted);
        assert_eq!(walk(&[]), ("127.0.0.1".into(), false));
        assert_eq!(walk(&[("x-forwarded-for", "192.0.2.7")]), ("192.0.2.7".into(), false));
        assert_eq!(walk(&[("x-forwarded-for", "127.0.0.1")]), ("127.0.0.1".into(), false));
        // Values written by the client stand to the left of those that the proxies added.
        assert_eq!(
            walk(&[("x-forwarded-for", "203.0.113.9, 192.0.2.7, 10.1.1.1")]),
            ("192.0.2.7".into(), false)
        );
        let twice = [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-for", "[2001:db8::1]:99")];
        assert_eq!(walk(&twice), ("2001:db8::1".into(), false));
        assert_eq!(walk(&[("x-forwarded-for", "192.0.2.7, nonsense, 10.1.1.1")]), ("10.1.1.1".into(), false));
    }
}
