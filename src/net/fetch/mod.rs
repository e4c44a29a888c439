//! HTTP GET requests to URLs that third parties chose, for example in an event; and, in `call`, requests to a
//! server that the operator named, and reads as streams.
//!
//! Limits: bytes after decompression, time for the whole exchange, and redirects, each of which is checked
//! like the first URL. There are no cookies, no referrer and no proxy from the environment. A connection opened
//! for a trusted URL must not serve a URL of lower trust: each trust has connections of its own.

mod call;
mod clients;
mod exchange;
mod hops;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use reqwest::Response;
use reqwest::header::{ACCEPT, HeaderMap};
use tokio::time::{Instant, timeout};

use super::dial::Dialler;
use super::error::FetchError;
use super::remote_text::sanitize;
use super::{Certificate, DialError, Trust};
use crate::config;
pub(super) use clients::storage_client;
use clients::{Clients, Habits};
use hops::Hop;

pub use call::{Call, Caller, Content, Open, Reply, Verb};
pub use exchange::Exchange;

/// Response headers kept; further headers are dropped.
const HEADERS_MAX: usize = 64;

/// A GET request with its limits.
#[derive(Debug, Clone, Copy)]
pub struct Get<'a> {
    /// URL, `http://` or `https://`.
    pub url: &'a str,
    /// Where the URL comes from. A redirect keeps this trust within the same origin (scheme, host, port); any
    /// other target is [`Trust::Discovered`].
    pub trust: Trust,
    /// Value of the header `Accept`.
    pub accept: &'a str,
    /// Longest body in bytes, after decompression.
    pub bytes_max: usize,
    /// Time limit for the whole exchange: DNS, connections, redirects and body.
    pub timeout: Duration,
    /// Redirects followed; values above three count as three.
    pub redirects_max: usize,
}

/// A complete response.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// HTTP status of the last response.
    pub status: u16,
    /// At most 64 headers by lower-case name. Values are cut; of repeated headers the last one is kept.
    pub headers: BTreeMap<String, String>,
    /// The body, decompressed.
    pub body: Vec<u8>,
    /// URL of the last response, after redirects.
    pub url: String,
    /// Time from the start of DNS to the last byte.
    pub elapsed: Duration,
    /// Certificate of the last server, for HTTPS.
    pub tls: Option<Certificate>,
}

/// Sends GET requests.
#[derive(Debug)]
pub(super) struct Fetcher {
    networks: config::Networks,
    clients: Clients,
}

impl Fetcher {
    /// Requests use the networks, the DNS, the TLS trust and the circuits of `dialler`.
    pub(super) fn new(dialler: &Dialler) -> Result<Self, DialError> {
        Ok(Self { networks: dialler.networks.clone(), clients: Clients::new(dialler, Habits::ONCE)? })
    }

    /// See [`super::Egress::get`].
    pub(super) async fn get(&self, get: Get<'_>) -> Result<Fetched, FetchError> {
        timeout(get.timeout, self.get_following_redirects(get))
            .await
            .map_err(|_| FetchError::Timeout(get.timeout))?
    }

    async fn get_following_redirects(&self, get: Get<'_>) -> Result<Fetched, FetchError> {
        let begun = Instant::now();
        let redirects_max = get.redirects_max.min(hops::REDIRECTS_MAX);
        let mut hop = Hop::first(get.url, get.trust)?;
        for _ in 0..=redirects_max {
            let response = self.request(&hop, get.accept).await?;
            match hops::redirect_target(&hop, response.status(), response.headers())? {
                Some(next) => hop = next,
                None => return read(response, &hop, get.bytes_max, begun).await,
            }
        }
        Err(FetchError::TooManyRedirects(redirects_max))
    }

    async fn request(&self, hop: &Hop, accept: &str) -> Result<Response, FetchError> {
        hop.check(&self.networks)?;
        let client = self.clients.for_hop(hop);
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
    let headers = bounded_headers(response.headers());
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

/// Response headers with bounded number and length.
pub(super) fn bounded_headers(headers: &HeaderMap) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| sanitize(&String::from_utf8_lossy(bytes));
    headers.iter().take(HEADERS_MAX).map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect()
}
