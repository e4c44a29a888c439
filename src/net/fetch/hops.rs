//! The URLs of one request: the first URL and its redirects, each checked before it is dialled.

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, LOCATION};
use url::Url;

use crate::base::{Network, is_local_ip, is_local_name};
use crate::config;
use crate::net::dns::ip_literal;
use crate::net::remote_text::sanitize;
use crate::net::{DialError, FetchError, Trust};

/// Redirects followed at most, whatever the caller asks for.
pub(super) const REDIRECTS_MAX: usize = 3;

/// A URL with the trust in its source.
#[derive(Debug)]
pub(super) struct Hop {
    pub(super) url: Url,
    pub(super) trust: Trust,
}

impl Hop {
    pub(super) fn first(url: &str, trust: Trust) -> Result<Self, FetchError> {
        let url = Url::parse(url).map_err(|e| FetchError::BadUrl(e.to_string()))?;
        Ok(Self { url, trust })
    }

    pub(super) fn host(&self) -> &str {
        self.url.host_str().unwrap_or("")
    }

    pub(super) fn network(&self) -> Network {
        Network::of_host(self.host())
    }

    /// Refuses a URL by its text alone, before DNS. The resolver then checks the addresses.
    pub(super) fn check(&self, networks: &config::Networks) -> Result<(), FetchError> {
        let bad = |why: &str| Err(FetchError::BadUrl(why.to_owned()));
        if !matches!(self.url.scheme(), "http" | "https") {
            return bad("only http and https are fetched");
        }
        if !self.url.username().is_empty() || self.url.password().is_some() {
            return bad("it contains a user name or password");
        }
        let host = self.host();
        if host.is_empty() {
            return bad("it has no host");
        }
        if !networks.get(self.network()).enabled {
            return Err(DialError::Disabled(self.network()).into());
        }
        let is_local = ip_literal(host).map_or_else(|| is_local_name(host), is_local_ip);
        if self.trust == Trust::Discovered && is_local {
            return Err(DialError::PrivateAddress(sanitize(host)).into());
        }
        Ok(())
    }
}

/// The target of a redirect, or `None` if the response is not a redirect.
pub(super) fn redirect_target(
    hop: &Hop,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<Option<Hop>, FetchError> {
    let redirects = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
    let Some(location) = headers.get(LOCATION).filter(|_| redirects) else { return Ok(None) };
    let bad = |why: &str| FetchError::BadRedirect(sanitize(why));
    let location = location.to_str().map_err(|_| bad("the Location header is not text"))?;
    let url = hop.url.join(location).map_err(|e| bad(&e.to_string()))?;
    let trust = if url.origin() == hop.url.origin() { hop.trust } else { Trust::Discovered };
    let next = Hop { url, trust };
    // A redirect from a hidden network to another network would show our address to a server that must not
    // learn it.
    if hop.network() != Network::Clearnet && next.network() != hop.network() {
        return Err(bad("it leaves the hidden network"));
    }
    Ok(Some(next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirected(from: &str, to: &str) -> Result<Option<(String, Trust)>, &'static str> {
        let hop = Hop::first(from, Trust::Named).unwrap();
        let headers = HeaderMap::from_iter([(LOCATION, to.parse().unwrap())]);
        redirect_target(&hop, StatusCode::FOUND, &headers)
            .map(|hop| hop.map(|hop| (hop.url.to_string(), hop.trust)))
            .map_err(|e| e.reason())
    }

    #[test]
    fn a_redirect_keeps_its_trust_for_the_same_origin_only() {
        let named = |url: &str| Ok(Some((url.to_owned(), Trust::Named)));
        assert_eq!(redirected("http://10.0.0.1/a", "/b"), named("http://10.0.0.1/b"));
        assert_eq!(
            redirected("https://nas.local/a", "https://NAS.local:443/b"),
            named("https://nas.local/b")
        );
        for (from, to) in [
            ("http://10.0.0.1/a", "http://10.0.0.2/"),
            ("http://10.0.0.1/a", "http://10.0.0.1:6379/"),
            ("https://nas.local/a", "http://nas.local/a"),
            ("https://nas.local/a", "http://nas.local:443/a"),
            ("http://nas.local/a", "https://nas.local/a"),
            ("http://[::1]/", "http://[::ffff:7f00:1]/"),
        ] {
            assert_eq!(redirected(from, to), Ok(Some((to.to_owned(), Trust::Discovered))), "{from} {to}");
        }
    }

    #[test]
    fn a_hidden_network_is_not_left_by_a_redirect() {
        assert_eq!(redirected("http://a.onion", "http://example.com"), Err("bad_redirect"));
        assert_eq!(redirected("http://a.onion", "http://a.i2p"), Err("bad_redirect"));
        assert!(redirected("http://a.onion", "http://b.onion").is_ok());
        assert!(redirected("http://example.com", "http://b.onion").is_ok());
    }
}
