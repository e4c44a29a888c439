//! Checks the name under which a listener is addressed.
//!
//! A foreign web page can reach a listener on loopback under its own name if that name resolves to our
//! address (DNS rebinding). The browser then sends that name in `Host`. A request is therefore served only
//! under an IP address, `localhost` (RFC 6761, 6.3) or a name that the operator has listed.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version};

use super::Rejection;

/// Characters of a refused name that the response repeats.
const SHOWN_MAX: usize = 64;

/// Whether `host`, the value of a `Host` field, is an IP address, `localhost`, or one of `hosts`. Any port is
/// accepted.
#[must_use]
pub fn is_own_host(host: &str, hosts: &[String]) -> bool {
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
    // `localhost.` is the same name, fully qualified.
    let name = name.strip_suffix('.').unwrap_or(&name);
    name.parse::<IpAddr>().is_ok()
        || name == "localhost"
        || name.ends_with(".localhost")
        || hosts.iter().any(|known| known.trim_end_matches('.').eq_ignore_ascii_case(name))
}

/// Whether a browser says that a page of another site caused the request (`Sec-Fetch-Site`). Browsers leave
/// out `Origin` in some requests, for images for example, but not this header.
#[must_use]
pub fn is_of_another_site(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    !matches!(site, None | Some(b"none" | b"same-origin"))
}

/// Whether a page of another origin sends the request. Browsers send `Origin` with every request that changes
/// something.
#[must_use]
pub fn is_of_another_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let own = headers.get(HOST).and_then(|host| host.to_str().ok());
    let named = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    named.is_none() || named != own
}

/// Refuses a request that is addressed to another name, or whose name is missing or ambiguous.
///
/// HTTP/1.0 without `Host` is served: load balancers use it for health checks, and no web page can send it.
/// If the request target is absolute, its authority must be ours as well.
pub(super) fn check(request: &Request, hosts: &[String]) -> Result<(), Rejection> {
    let malformed = |code, message| Rejection::bad_field("host", message).code(code);
    let mut named = request.headers().get_all(HOST).iter();
    let (first, second) = (named.next(), named.next());
    if second.is_some() {
        return Err(malformed("host_repeated", "more than one Host field"));
    }
    match first {
        Some(host) if host.to_str().is_ok_and(|host| is_own_host(host, hosts)) => {}
        Some(host) => return Err(foreign(&String::from_utf8_lossy(host.as_bytes()))),
        None if request.version() == Version::HTTP_10 => {}
        None => return Err(malformed("host_missing", "HTTP/1.1 needs a Host field")),
    }
    match request.uri().authority() {
        Some(target) if !is_own_host(target.as_str(), hosts) => Err(foreign(target.as_str())),
        _ => Ok(()),
    }
}

fn foreign(host: &str) -> Rejection {
    let shown: String = host.chars().take(SHOWN_MAX).collect();
    let message = "unknown host name: use the IP address of the listener, or add the name to `http.hosts`";
    Rejection::new(StatusCode::MISDIRECTED_REQUEST, message).code("host_unknown").field("host").value(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_listed_names_are_accepted_and_others_are_not() {
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
            assert!(is_own_host(host, &hosts), "{host}");
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
            assert!(!is_own_host(host, &hosts), "{host}");
        }
    }

    fn other(fields: &[(&'static str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(*name, value.parse().unwrap());
        }
        is_of_another_origin(&headers)
    }

    #[test]
    fn a_request_without_origin_or_with_the_own_one_is_no_page_of_others() {
        assert!(!other(&[("host", "127.0.0.1:4707")]));
        assert!(!other(&[("host", "127.0.0.1:4707"), ("origin", "http://127.0.0.1:4707")]));
        assert!(other(&[("host", "127.0.0.1:4707"), ("origin", "http://evil.example")]));
        assert!(other(&[("host", "127.0.0.1:4707"), ("origin", "http://127.0.0.1:4708")]));
        assert!(other(&[("host", "127.0.0.1:4707"), ("origin", "null")]));
    }
}
