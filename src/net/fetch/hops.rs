//! One address of a request after the other, each judged before it is dialled.

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, LOCATION};
use url::Url;

use super::super::names::address;
use super::super::outside::Parts;
use super::super::{DialError, FetchError, Trust};
use crate::base::{Network, is_local_ip, is_local_name};
use crate::net::error::words;

/// Most redirects followed, whatever the caller says.
pub(super) const REDIRECTS_MAX: usize = 3;

/// One address, and who gave it.
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
}

/// Where an answer sends us, if it does.
pub(super) fn next(hop: &Hop, status: StatusCode, headers: &HeaderMap) -> Result<Option<Hop>, FetchError> {
    let redirects = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
    let Some(location) = headers.get(LOCATION).filter(|_| redirects) else { return Ok(None) };
    let bad = |why: &str| FetchError::BadRedirect(words(why));
    let location = location.to_str().map_err(|_| bad("not readable"))?;
    let url = hop.url.join(location).map_err(|e| bad(&e.to_string()))?;
    let trust = if url.origin() == hop.url.origin() { hop.trust } else { Trust::Discovered };
    let next = Hop { url, trust };
    // Whoever is asked through Tor must not learn by a redirect where we are.
    if hop.network() != Network::Clearnet && next.network() != hop.network() {
        return Err(bad("it leads out of the network"));
    }
    Ok(Some(next))
}

impl Parts {
    /// Refuses what can be refused before DNS; the resolver refuses the rest.
    pub(super) fn allows(&self, hop: &Hop) -> Result<(), FetchError> {
        let bad = |why: &str| Err(FetchError::BadUrl(why.to_owned()));
        if !matches!(hop.url.scheme(), "http" | "https") {
            return bad("only http and https are fetched");
        }
        if !hop.url.username().is_empty() || hop.url.password().is_some() {
            return bad("it holds a user name or password");
        }
        let host = hop.host();
        if host.is_empty() {
            return bad("it has no host");
        }
        if !self.networks.get(hop.network()).enabled {
            return Err(DialError::Disabled(hop.network()).into());
        }
        let is_local = address(host).map_or_else(|| is_local_name(host), is_local_ip);
        if hop.trust == Trust::Discovered && is_local {
            return Err(DialError::PrivateAddress(words(host)).into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn led(from: &str, to: &str) -> Result<Option<(String, Trust)>, &'static str> {
        let hop = Hop::first(from, Trust::Named).unwrap();
        let headers = HeaderMap::from_iter([(LOCATION, to.parse().unwrap())]);
        next(&hop, StatusCode::FOUND, &headers)
            .map(|hop| hop.map(|hop| (hop.url.to_string(), hop.trust)))
            .map_err(|e| e.reason())
    }

    #[test]
    fn a_redirect_keeps_its_trust_for_the_same_origin_only() {
        let named = |url: &str| Ok(Some((url.to_owned(), Trust::Named)));
        assert_eq!(led("http://10.0.0.1/a", "/b"), named("http://10.0.0.1/b"));
        assert_eq!(led("https://nas.local/a", "https://NAS.local:443/b"), named("https://nas.local/b"));
        for (from, to) in [
            ("http://10.0.0.1/a", "http://10.0.0.2/"),
            ("http://10.0.0.1/a", "http://10.0.0.1:6379/"),
            ("https://nas.local/a", "http://nas.local/a"),
            ("https://nas.local/a", "http://nas.local:443/a"),
            ("http://nas.local/a", "https://nas.local/a"),
            ("http://[::1]/", "http://[::ffff:7f00:1]/"),
        ] {
            assert_eq!(led(from, to), Ok(Some((to.to_owned(), Trust::Discovered))), "{from} {to}");
        }
    }

    #[test]
    fn a_hidden_network_is_not_left_by_a_redirect() {
        assert_eq!(led("http://a.onion", "http://example.com"), Err("bad_redirect"));
        assert_eq!(led("http://a.onion", "http://a.i2p"), Err("bad_redirect"));
        assert!(led("http://a.onion", "http://b.onion").is_ok());
        assert!(led("http://example.com", "http://b.onion").is_ok());
    }
}
