//! Guarded HTTP: a GET that can be sent to any address somebody wrote into an event.
//!
//! Bounded in bytes after decompression, in time as a whole, and in redirects, each of which is judged like a first
//! address. No cookies, no referrer, no proxy out of the environment, and no connection is used twice: it would carry what
//! one trust opened over to another.

mod clients;
mod hops;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use reqwest::Response;
use reqwest::header::{ACCEPT, HeaderMap};
use tokio::time::{Instant, timeout};

use super::error::{FetchError, words};
use super::outside::Parts;
use super::{Certificate, Trust};
pub(super) use clients::Clients;
use hops::Hop;

/// Most headers kept of an answer.
const HEADERS_MAX: usize = 64;

/// What to fetch, and its bounds.
#[derive(Debug, Clone, Copy)]
pub struct Get<'a> {
    /// The address, `http://` or `https://`.
    pub url: &'a str,
    /// Where the address comes from. A redirect keeps it within the same origin (scheme, host, port); any other is
    /// [`Trust::Discovered`].
    pub trust: Trust,
    /// The header `Accept`.
    pub accept: &'a str,
    /// Longest body, in bytes, after decompression.
    pub bytes_max: usize,
    /// Longest for everything together: names, connections, redirects, body.
    pub timeout: Duration,
    /// Redirects followed; more than three never are.
    pub redirects_max: usize,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The HTTP status of the last address.
    pub status: u16,
    /// At most 64 headers by name in lower case; values are bounded, and the last of a name counts.
    pub headers: BTreeMap<String, String>,
    /// The body, decompressed.
    pub body: Vec<u8>,
    /// Where it came from in the end.
    pub url: String,
    /// From the first question to the last byte.
    pub elapsed: Duration,
    /// The certificate of the last server, where there was one.
    pub tls: Option<Certificate>,
}

impl Parts {
    /// Fetches, following redirects.
    pub(super) async fn get(&self, get: Get<'_>) -> Result<Fetched, FetchError> {
        timeout(get.timeout, self.follow(get)).await.map_err(|_| FetchError::Timeout(get.timeout))?
    }

    async fn follow(&self, get: Get<'_>) -> Result<Fetched, FetchError> {
        let begun = Instant::now();
        let redirects_max = get.redirects_max.min(hops::REDIRECTS_MAX);
        let mut hop = Hop::first(get.url, get.trust)?;
        for _ in 0..=redirects_max {
            let response = self.ask(&hop, get.accept).await?;
            match hops::next(&hop, response.status(), response.headers())? {
                Some(next) => hop = next,
                None => return read(response, &hop, get.bytes_max, begun).await,
            }
        }
        Err(FetchError::TooManyRedirects(redirects_max))
    }

    async fn ask(&self, hop: &Hop, accept: &str) -> Result<Response, FetchError> {
        self.allows(hop)?;
        let client = self.clients.of(hop);
        client.get(hop.url.clone()).header(ACCEPT, accept).send().await.map_err(|e| clients::failure(&e))
    }
}

async fn read(
    response: Response,
    hop: &Hop,
    bytes_max: usize,
    begun: Instant,
) -> Result<Fetched, FetchError> {
    let too_large = || FetchError::TooLarge { bytes_max };
    if response.content_length().is_some_and(|length| usize::try_from(length).map_or(true, |n| n > bytes_max))
    {
        return Err(too_large());
    }
    let status = response.status().as_u16();
    let headers = kept(response.headers());
    let tls = clients::certificate(&response, hop.network());
    let mut body = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|e| clients::failure(&e))?;
        if body.len() + chunk.len() > bytes_max {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Fetched { status, headers, body, url: hop.url.to_string(), elapsed: begun.elapsed(), tls })
}

/// Headers fit to be kept.
pub(super) fn kept(headers: &HeaderMap) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| words(&String::from_utf8_lossy(bytes));
    headers.iter().take(HEADERS_MAX).map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect()
}
