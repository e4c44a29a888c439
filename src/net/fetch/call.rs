//! Requests of a client of a server that the operator named: with methods, headers and bodies, and with
//! responses that are read as they arrive. Redirects are not followed.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::time::Duration;

use futures_util::{Stream, stream};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, Method, Response};
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;
use tokio_util::io::ReaderStream;
use url::Url;

use super::bounded_headers;
use super::clients::{Clients, Habits, failure};
use super::hops::Hop;
use crate::base::Secret;
use crate::config;
use crate::net::dial::Dialler;
use crate::net::{DialError, FetchError, Trust};

/// Bytes read from a file at a time.
const READ_BYTES: usize = 256 * 1024;

/// Method of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Reads.
    Get,
    /// Asks for a change.
    Post,
    /// Stores a whole object.
    Put,
    /// Removes.
    Delete,
}

/// Body of a request.
#[derive(Debug)]
pub enum Content {
    /// None.
    None,
    /// A JSON text.
    Json(String),
    /// A file, sent as it is read.
    File {
        /// From its present position on.
        file: File,
        /// Bytes from there to its end.
        bytes: u64,
        /// Sent as `Content-Type`.
        media_type: String,
    },
}

/// A request.
#[derive(Debug)]
pub struct Call<'a> {
    /// Method.
    pub verb: Verb,
    /// URL, `http://` or `https://`.
    pub url: &'a Url,
    /// Further headers.
    pub headers: &'a [(&'static str, Secret)],
    /// Body.
    pub content: Content,
    /// Time limit until the head of the response: connection and request included.
    pub head_within: Duration,
}

/// Sends requests. Idle connections are kept.
#[derive(Debug)]
pub struct Caller {
    networks: config::Networks,
    clients: Clients,
}

impl Caller {
    /// Requests use the networks, the DNS, the TLS trust and the circuits of `dialler`.
    pub(in crate::net) fn new(dialler: &Dialler) -> Result<Self, DialError> {
        let clients = Clients::new(dialler, Habits::REGULAR)?;
        Ok(Self { networks: dialler.networks.clone(), clients })
    }

    /// Sends a request. Returns when the head of the response is there.
    ///
    /// # Errors
    /// Any [`FetchError`]. A response with an error status is not an error here.
    pub async fn call(&self, call: Call<'_>) -> Result<Reply, FetchError> {
        let hop = Hop { url: call.url.clone(), trust: Trust::Named };
        hop.check(&self.networks)?;
        let method = match call.verb {
            Verb::Get => Method::GET,
            Verb::Post => Method::POST,
            Verb::Put => Method::PUT,
            Verb::Delete => Method::DELETE,
        };
        let mut request = self.clients.for_hop(&hop).request(method, hop.url.clone());
        for (name, value) in call.headers {
            request = request.header(*name, value.expose());
        }
        request = match call.content {
            Content::None => request,
            Content::Json(text) => request.header(CONTENT_TYPE, "application/json").body(text),
            Content::File { file, bytes, media_type } => request
                .header(CONTENT_TYPE, media_type)
                .header(CONTENT_LENGTH, bytes)
                .body(Body::wrap_stream(ReaderStream::with_capacity(file.take(bytes), READ_BYTES))),
        };
        let response = timeout(call.head_within, request.send())
            .await
            .map_err(|_| FetchError::Timeout(call.head_within))?
            .map_err(|e| failure(&e))?;
        Ok(Reply {
            status: response.status().as_u16(),
            headers: bounded_headers(response.headers()),
            response,
        })
    }
}

/// A response of which the body is not read yet.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// At most 64 headers by lower-case name. Values are cut; of repeated headers the last one is kept.
    pub headers: BTreeMap<String, String>,
    response: Response,
}

impl Reply {
    /// The next part of the body; `None` at its end.
    ///
    /// # Errors
    /// [`FetchError::Timeout`] if nothing arrives `within` this time; [`FetchError::Http`].
    pub async fn chunk(&mut self, within: Duration) -> Result<Option<Vec<u8>>, FetchError> {
        let chunk = timeout(within, self.response.chunk()).await.map_err(|_| FetchError::Timeout(within))?;
        Ok(chunk.map_err(|e| failure(&e))?.map(|bytes| bytes.to_vec()))
    }

    /// The whole body, of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`FetchError::TooLarge`], [`FetchError::Timeout`] if it is not complete `within` this time.
    pub async fn body(mut self, bytes_max: usize, within: Duration) -> Result<Vec<u8>, FetchError> {
        let reading = async {
            let mut body = Vec::new();
            while let Some(chunk) = self.chunk(within).await? {
                if body.len() + chunk.len() > bytes_max {
                    return Err(FetchError::TooLarge { bytes_max });
                }
                body.extend_from_slice(&chunk);
            }
            Ok(body)
        };
        timeout(within, reading).await.map_err(|_| FetchError::Timeout(within))?
    }

    /// The body as it arrives. Ends with an error if nothing arrives `within` this time.
    pub fn chunks(self, within: Duration) -> impl Stream<Item = Result<Cursor<Vec<u8>>, FetchError>> + Send {
        stream::try_unfold(self, move |mut reply| async move {
            let chunk = reply.chunk(within).await?;
            Ok(chunk.map(|bytes| (Cursor::new(bytes), reply)))
        })
    }
}
