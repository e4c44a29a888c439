//! Single requests of a protocol, with a method, headers and a body. Redirects are not followed: a response with
//! one is returned as it is.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::Request;
use tokio::time::timeout;

use super::Fetcher;
use super::clients::failure;
use super::hops::Hop;
use crate::net::{FetchError, Trust};

/// A request with its limits.
#[derive(Debug)]
pub struct Exchange {
    /// Method, URL, headers and body.
    pub request: http::Request<Vec<u8>>,
    /// Where the URL comes from.
    pub trust: Trust,
    /// Longest body of the response in bytes, after decompression.
    pub bytes_max: usize,
    /// Time limit for all of it: DNS, connection, request and response.
    pub timeout: Duration,
}

impl Fetcher {
    /// See [`crate::net::Egress::exchange`].
    pub(in crate::net) async fn exchange(
        &self,
        exchange: Exchange,
    ) -> Result<http::Response<Vec<u8>>, FetchError> {
        let within = exchange.timeout;
        timeout(within, self.exchanged(exchange)).await.map_err(|_| FetchError::Timeout(within))?
    }

    async fn exchanged(&self, exchange: Exchange) -> Result<http::Response<Vec<u8>>, FetchError> {
        let Exchange { request, trust, bytes_max, .. } = exchange;
        let hop = Hop::first(&request.uri().to_string(), trust)?;
        hop.check(&self.networks)?;
        let request = Request::try_from(request).map_err(|error| FetchError::BadUrl(error.to_string()))?;
        let response = self.clients.for_hop(&hop).execute(request).await.map_err(|error| failure(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| failure(&error))?;
            if body.len() + chunk.len() > bytes_max {
                return Err(FetchError::TooLarge { bytes_max });
            }
            body.extend_from_slice(&chunk);
        }
        let mut whole = http::Response::new(body);
        *whole.status_mut() = status;
        *whole.headers_mut() = headers;
        Ok(whole)
    }
}
