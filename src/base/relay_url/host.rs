//! Which hosts a relay's URL may have, and which hosts are local.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{HOST_BYTES_MAX, LABEL_BYTES_MAX, ONION_CHARS, RelayUrlError};

/// Refuses names that are invalid in DNS or Tor.
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

/// Checks the alphabet, the length, and the last byte, which encodes version 3. The checksum before it needs
/// SHA-3 and is left to Tor, which refuses a wrong one.
fn is_onion_v3(label: &str) -> bool {
    const ENDINGS_OF_VERSION_3: [&str; 4] = ["ad", "id", "qd", "yd"];
    let base32 = |byte: u8| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte);
    label.len() == ONION_CHARS
        && label.bytes().all(base32)
        && ENDINGS_OF_VERSION_3.iter().any(|ending| label.ends_with(ending))
}

/// Top-level labels that no public zone delegates. Only the machine or the local network can give such names
/// an address: RFC 6761 (`localhost`, `test`), RFC 6762 with its appendix G (`local` and the private names),
/// RFC 8375 (`home.arpa`; no relay lives under `arpa`).
const LOCAL_ENDINGS: [&str; 10] =
    ["localhost", "test", "local", "intranet", "internal", "private", "corp", "home", "lan", "arpa"];

/// Whether a name in lower case is local: it has a single label, or ends with a label that no public zone
/// delegates. A final dot is ignored.
#[must_use]
pub fn is_local_name(name: &str) -> bool {
    match name.trim_end_matches('.').rsplit_once('.') {
        Some((_, ending)) => LOCAL_ENDINGS.contains(&ending),
        None => true,
    }
}

/// Whether the public internet does not route this address: this machine, private networks, and reserved
/// ranges. This is the only list of them. An IPv4 address within an IPv6 address (mapped, NAT64, 6to4) is
/// judged as the IPv4 address.
#[must_use]
pub fn is_local_ip(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_local_ipv4(ip),
        IpAddr::V6(ip) => is_local_ipv6(ip),
    }
}

fn is_local_ipv4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let protocols = (a, b, c) == (192, 0, 0);
    let benchmark = a == 198 && (b == 18 || b == 19);
    let reserved = a == 0 || a >= 224;
    ip.is_loopback()
        || ip.is_private()
        || ip.is_link_local()
        || ip.is_documentation()
        || shared
        || protocols
        || benchmark
        || reserved
}

fn is_local_ipv6(ip: Ipv6Addr) -> bool {
    let octets = ip.octets();
    let ipv4_at = |place: usize| {
        let [a, b, c, d] = [octets[place], octets[place + 1], octets[place + 2], octets[place + 3]];
        is_local_ipv4(Ipv4Addr::new(a, b, c, d))
    };
    match ip.segments() {
        // Unspecified, loopback, IPv4-compatible and IPv4-mapped.
        [0, 0, ..] => ip.to_ipv4().is_none_or(is_local_ipv4),
        // NAT64 and 6to4.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => ipv4_at(12),
        [0x2002, ..] => ipv4_at(2),
        // Documentation and Teredo.
        [0x2001, 0x0db8 | 0, ..] | [0x3fff, 0..=0x0fff, ..] => true,
        // Global unicast is 2000::/3 without the ranges above.
        [first, ..] => first & 0xe000 != 0x2000,
    }
}
