//! What the host of a relay's address may be, and which hosts are local.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::RelayUrlError;

/// Longest DNS name, in bytes (RFC 1035, without the final dot).
pub(super) const HOST_BYTES_MAX: usize = 253;
/// Longest part of a DNS name between two dots, in bytes (RFC 1035).
pub(super) const LABEL_BYTES_MAX: usize = 63;
/// Length of a version 3 onion name in base32 characters: 32 bytes key, 2 checksum, 1 version.
pub(super) const ONION_CHARS: usize = 56;

/// Refuses a name that DNS or Tor cannot hold.
pub(super) fn check_name(name: &str) -> Result<(), RelayUrlError> {
    let fits = |label: &str| (1..=LABEL_BYTES_MAX).contains(&label.len());
    if name.len() > HOST_BYTES_MAX || !name.split('.').all(fits) {
        return Err(RelayUrlError::HostName { host: name.to_owned() });
    }
    let mut labels = name.rsplit('.');
    if labels.next() == Some("onion") && !labels.next().is_some_and(is_onion_v3) {
        return Err(RelayUrlError::Onion { host: name.to_owned() });
    }
    Ok(())
}

/// The alphabet, the length, and the last byte, which is the version: 3. The checksum before it needs
/// SHA-3 and is left to Tor, which refuses a wrong one.
fn is_onion_v3(label: &str) -> bool {
    const ENDINGS_OF_VERSION_3: [&str; 4] = ["ad", "id", "qd", "yd"];
    let base32 = |byte: u8| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte);
    label.len() == ONION_CHARS
        && label.bytes().all(base32)
        && ENDINGS_OF_VERSION_3.iter().any(|ending| label.ends_with(ending))
}

/// A name that only this machine or the network around it knows.
pub(super) fn is_local_name(name: &str) -> bool {
    const LOCAL_ENDINGS: [&str; 6] = ["localhost", "local", "internal", "lan", "intranet", "arpa"];
    match name.rsplit_once('.') {
        Some((_, ending)) => LOCAL_ENDINGS.contains(&ending),
        None => true,
    }
}

/// An address that the public internet does not route.
pub(super) fn is_local_ipv4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let benchmark = a == 198 && (b == 18 || b == 19);
    let reserved = a == 0 || a >= 224;
    ip.is_loopback()
        || ip.is_private()
        || ip.is_link_local()
        || ip.is_documentation()
        || shared
        || benchmark
        || reserved
}

/// As [`is_local_ipv4`], which also judges IPv4 addresses inside IPv6 ones.
pub(super) fn is_local_ipv6(ip: Ipv6Addr) -> bool {
    let [first, second, ..] = ip.segments();
    let documentation = first == 0x2001 && second == 0x0db8;
    ip.to_ipv4().map_or_else(
        || ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_multicast() || documentation,
        is_local_ipv4,
    )
}
