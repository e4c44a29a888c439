//! Under which names we are reached.

use std::net::IpAddr;

use axum::http::uri::Authority;

/// Whether a request's `Host` names us: an address, `localhost`, or one of `hosts`, which the operator knows.
///
/// A stranger's page reaches us under the stranger's *name*, made to resolve to our address. So an address is ours, and a name
/// only when the operator or the resolver's standard (RFC 6761, 6.3) says so.
#[must_use]
pub fn is_ours(host: &str, hosts: &[String]) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    name.parse::<IpAddr>().is_ok()
        || name == "localhost"
        || name.ends_with(".localhost")
        || hosts.iter().any(|known| known.eq_ignore_ascii_case(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_known_names_are_ours_and_nothing_else() {
        let hosts = ["Quipu.example".to_owned()];
        for host in
            ["127.0.0.1:4700", "[::1]:4700", "localhost", "LocalHost:1", "a.localhost", "quipu.example:443"]
        {
            assert!(is_ours(host, &hosts), "{host}");
        }
        for host in
            ["rebind.example", "127.0.0.1.rebind.example:4700", "localhost.rebind.example", "", "?", "a b"]
        {
            assert!(!is_ours(host, &hosts), "{host}");
        }
    }
}
