//! Whether what is sent to a server can be read on the way.

use url::{Host, Url};

use crate::base::{Network, is_local_ip, is_local_name};

/// Whether a token sent to this URL crosses a network unencrypted.
pub(super) fn is_exposed(url: &Url) -> bool {
    let is_local = match url.host() {
        Some(Host::Domain(name)) => is_local_name(name) || Network::of_host(name) != Network::Clearnet,
        Some(Host::Ipv4(ip)) => is_local_ip(ip.into()),
        Some(Host::Ipv6(ip)) => is_local_ip(ip.into()),
        None => true,
    };
    matches!(url.scheme(), "ws" | "http") && !is_local
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_exposed_on_the_way_to_a_public_host_without_tls() {
        let exposed = |url: &str| is_exposed(&Url::parse(url).unwrap());
        assert!(exposed("ws://relay.example.com/ws") && exposed("http://93.184.215.14:8080/"));
        for url in
            ["wss://relay.example.com/ws", "https://93.184.215.14/", "http://127.0.0.1:8080", "ws://[::1]/ws"]
        {
            assert!(!exposed(url), "{url}");
        }
    }
}
