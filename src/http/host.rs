//! Under which names a listener is reached.
//!
//! A foreign web page can reach a listener on loopback under a name of its own that is made to resolve to our address (DNS
//! rebinding). The browser then sends that name in `Host`, so a request is served only under an IP address, `localhost`
//! (RFC 6761, 6.3) or a name that the operator has listed.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{StatusCode, Version};

use super::Rejection;

/// Most characters of a refused name that the answer repeats.
const SHOWN_MAX: usize = 64;

/// Whether `host`, the value of a `Host` field, is an address, `localhost`, or one of `hosts`. The port is not looked at.
#[must_use]
pub fn is_ours(host: &str, hosts: &[String]) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    // A field value with user information is malformed (RFC 9110, 7.2).
    if host.contains('@') {
        return false;
    }
    let port = host.strip_prefix(authority.host()).unwrap_or("?");
    if !matches!(port, "" | ":") && authority.port_u16().is_none() {
        return false;
    }
    let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    // `localhost.` is the same name, written in full.
    let name = name.strip_suffix('.').unwrap_or(&name);
    name.parse::<IpAddr>().is_ok()
        || name == "localhost"
        || name.ends_with(".localhost")
        || hosts.iter().any(|known| known.trim_end_matches('.').eq_ignore_ascii_case(name))
}

/// Refuses a request that was sent to another name, or whose name is missing or ambiguous.
///
/// HTTP/1.0 without `Host` is served: load balancers check health with it, and no web page can send it. Where the request
/// target is absolute, its authority has to be ours as well.
pub(super) fn check(request: &Request, hosts: &[String]) -> Result<(), Rejection> {
    let malformed = |code, message| Rejection::bad_field("host", message).code(code);
    let mut named = request.headers().get_all(HOST).iter();
    let (first, second) = (named.next(), named.next());
    if second.is_some() {
        return Err(malformed("host_repeated", "more than one Host field"));
    }
    match first {
        Some(host) if host.to_str().is_ok_and(|host| is_ours(host, hosts)) => {}
        Some(host) => return Err(foreign(&String::from_utf8_lossy(host.as_bytes()))),
        None if request.version() == Version::HTTP_10 => {}
        None => return Err(malformed("host_missing", "HTTP/1.1 needs a Host field")),
    }
    match request.uri().authority() {
        Some(target) if !is_ours(target.as_str(), hosts) => Err(foreign(target.as_str())),
        _ => Ok(()),
    }
}

fn foreign(host: &str) -> Rejection {
    let shown: String = host.chars().take(SHOWN_MAX).collect();
    let message =
        "this name is not one of this listener's: use its address, or list the name in `http.hosts`";
    Rejection::new(StatusCode::MISDIRECTED_REQUEST, message).code("host_unknown").field("host").value(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_known_names_are_ours_and_no_others() {
        let hosts = ["Quipu.example".to_owned()];
        for host in [
            "127.0.0.1:4700",
            "[::1]:4700",
            "[::1]",
            "localhost",
            "LocalHost:1",
            "LOCALHOST.:80",
            "a.localhost",
            "quipu.example:443",
            "QUIPU.EXAMPLE.",
            "localhost:",
        ] {
            assert!(is_ours(host, &hosts), "{host}");
        }
        for host in [
            "rebind.example",
            "127.0.0.1.rebind.example:4700",
            "localhost.rebind.example",
            "",
            "?",
            "a b",
            "user@127.0.0.1",
            "127.0.0.1@evil.example",
            "evil.example.",
            "127.0.0.1:port",
            "127.0.0.1:99999",
            "2130706433",
            "0x7f.1",
            "127.0.0.1,evil.example",
            "http://127.0.0.1",
            "127.0.0.1/",
            "xlocalhost",
        ] {
            assert!(!is_ours(host, &hosts), "{host}");
        }
    }
}
