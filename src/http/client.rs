//! Who is at the other end of a request: the address of the connection, or what a trusted proxy says of it.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;

use crate::config::AddressPrefix;

/// Fields that a proxy adds. A request from loopback that has one of them was not sent by a program on this machine alone.
const FORWARDED: [&str; 6] =
    ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via"];

/// The client of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress {
    /// The connection's address; behind a trusted proxy, the rightmost address in `X-Forwarded-For` that is no trusted proxy.
    pub address: IpAddr,
    /// Whether the request came from a program on this machine, and through no proxy. Only then may a loopback address count
    /// as a credential.
    pub is_loopback_direct: bool,
}

/// The client of a request with these headers, on a connection from `peer`.
pub(super) fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[AddressPrefix]) -> ClientAddress {
    let peer = peer.to_canonical();
    let is_trusted = |address: IpAddr| trusted.iter().any(|prefix| prefix.contains(address));
    if !is_trusted(peer) {
        let is_forwarded = FORWARDED.iter().any(|name| headers.contains_key(*name));
        return ClientAddress { address: peer, is_loopback_direct: peer.is_loopback() && !is_forwarded };
    }
    let mut address = peer;
    let said = headers.get_all("x-forwarded-for").iter().rev();
    // A value that is no text ends the walk like one that is no address: what stands left of it was not checked by a proxy.
    for entry in said.flat_map(|value| value.to_str().unwrap_or("?").rsplit(',')) {
        let Some(entry) = parse(entry.trim()) else { break };
        address = entry;
        if !is_trusted(entry) {
            break;
        }
    }
    ClientAddress { address, is_loopback_direct: false }
}

/// An address, with or without a port.
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
        // What the client itself has written stands left of what the proxies added.
        assert_eq!(
            walk(&[("x-forwarded-for", "203.0.113.9, 192.0.2.7, 10.1.1.1")]),
            ("192.0.2.7".into(), false)
        );
        let twice = [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-for", "[2001:db8::1]:99")];
        assert_eq!(walk(&twice), ("2001:db8::1".into(), false));
        assert_eq!(walk(&[("x-forwarded-for", "192.0.2.7, nonsense, 10.1.1.1")]), ("10.1.1.1".into(), false));
    }
}
