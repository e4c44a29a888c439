//! Links to what other programs and listeners show of this instance.

use std::net::SocketAddr;

use axum::http::header::{HOST, HeaderMap};
use axum::http::uri::Authority;
use maud::{Markup, html};

/// The name of the listener with metrics and health.
const OPS: &str = "ops";

/// The name of the listener with the pages of jobs.
const JOBS: &str = "jobs";

/// Pages of the ops listener.
const OPS_PAGES: [&str; 3] = ["/metrics", "/readyz", "/healthz"];

/// The links. `programs` are (title, URL); `listeners` are (name, address) and have the ops listener, to
/// which a browser goes by `host`, the name in its own request, if that listener is on all addresses.
pub(super) fn links(
    programs: &[(&'static str, String)],
    listeners: &[(String, String)],
    headers: &HeaderMap,
) -> Markup {
    let of = |listener| {
        listeners.iter().find(|(name, _)| name == listener).map(|(_, address)| base(address, headers))
    };
    let (ops, jobs) = (of(OPS), of(JOBS));
    html! {
        nav.links aria-label="More" {
            @if let Some(base) = jobs { a href=(format!("{base}/jobs")) rel="noreferrer" { "Jobs" } }
            @for (title, url) in programs { a href=(url) rel="noreferrer" { (title) } }
            @if let Some(base) = ops { @for page in OPS_PAGES { a href=(format!("{base}{page}")) rel="noreferrer" { (page) } } }
            a href="/status.json" { "/status.json" }
            a href="/alerts.md" { "alerts: what to do" }
        }
    }
}

/// The URL of a listener.
fn base(address: &str, headers: &HeaderMap) -> String {
    let listens_everywhere = address.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_unspecified());
    let authority = headers.get(HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let port = address.rsplit(':').next().unwrap_or_default();
    match authority {
        Some(authority) if listens_everywhere => format!("http://{}:{port}", authority.host()),
        _ => format!("http://{address}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(host: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(HOST, host.parse().unwrap())])
    }

    #[test]
    fn the_ops_listener_is_linked_by_a_name_that_the_browser_reaches() {
        let host = from("quipu.example:4700");
        assert_eq!(base("127.0.0.1:4701", &host), "http://127.0.0.1:4701");
        assert_eq!(base("[::1]:4701", &host), "http://[::1]:4701");
        assert_eq!(base("0.0.0.0:4701", &host), "http://quipu.example:4701");
        assert_eq!(base("[::]:4701", &from("[::1]:4700")), "http://[::1]:4701");
        assert_eq!(base("0.0.0.0:4701", &HeaderMap::new()), "http://0.0.0.0:4701");
    }

    #[test]
    fn programs_are_linked_when_their_address_is_set() {
        let listener = |name: &str, port| (name.to_owned(), format!("127.0.0.1:{port}"));
        let listeners = [listener("jobs", 4707), listener("ops", 4701)];
        let shown = links(
            &[("Grafana", "https://grafana.example/?a=\"b".to_owned())],
            &listeners,
            &from("localhost"),
        );
        let shown = shown.into_string();
        assert!(shown.contains(r#"href="https://grafana.example/?a=&quot;b""#), "{shown}");
        assert!(shown.contains(r#"href="http://127.0.0.1:4701/readyz""#), "{shown}");
        assert!(shown.contains(r#"href="http://127.0.0.1:4707/jobs""#), "{shown}");
        assert!(!shown.contains("Prometheus"), "{shown}");
    }
}
