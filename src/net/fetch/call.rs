//! Requests of a client of a server that the operator named: with methods, headers and bodies, and with
//! responses that are read as they arrive. Redirects are followed by [`Caller::open`] alone, which reads.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Cursor;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{Stream, stream};
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, Method, Response};
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;
use tokio_util::bytes::Bytes;
use tokio_util::io::ReaderStream;
use url::Url;

use super::bounded_headers;
use super::clients::{Clients, Habits, failure};
use super::hops::{Hop, REDIRECTS_MAX, redirect_target};
use crate::base::Secret;
use crate::config;
use crate::net::dial::Dialler;
use crate::net::{BodyBroken, DialError, FetchError, Trust};

/// Bytes read from a file at a time.
const READ_BYTES: usize = 256 * 1024;

/// Method of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Reads.
    Get,
    /// Asks for the head of what [`Verb::Get`] reads.
    Head,
    /// Asks for a change.
    Post,
    /// Stores a whole object.
    Put,
    /// Removes.
    Delete,
}

impl Verb {
    const fn method(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Head => Method::HEAD,
            Self::Post => Method::POST,
            Self::Put => Method::PUT,
            Self::Delete => Method::DELETE,
        }
    }
}

/// Body of a request.
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
    /// Bytes as they arrive.
    Stream {
        /// The bytes.
        body: BoxStream<'static, Result<Bytes, BodyBroken>>,
        /// How many, if it is known; else they are sent in chunks.
        bytes: Option<u64>,
        /// Sent as `Content-Type`.
        media_type: String,
    },
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Json(_) => "Json",
            Self::File { .. } => "File",
            Self::Stream { .. } => "Stream",
        })
    }
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

/// A request to read, which follows redirects.
#[derive(Debug)]
pub struct Open<'a> {
    /// Whether only the head is asked for.
    pub is_head: bool,
    /// URL, `http://` or `https://`.
    pub url: &'a Url,
    /// Where the URL comes from; see [`super::Get::trust`].
    pub trust: Trust,
    /// Further headers, also for targets of redirects.
    pub headers: &'a [(&'static str, String)],
    /// Value of the header `Authorization`. The target of a redirect gets it only within the same origin.
    pub secret: Option<&'a Secret>,
    /// Redirects followed; values above three count as three.
    pub redirects_max: usize,
    /// Time limit until the head of the last response.
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
        let mut request = self.clients.for_hop(&hop).request(call.verb.method(), hop.url.clone());
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
            Content::Stream { body, bytes, media_type } => {
                let request = request.header(CONTENT_TYPE, media_type).body(Body::wrap_stream(body));
                match bytes {
                    Some(bytes) => request.header(CONTENT_LENGTH, bytes),
                    None => request,
                }
            }
        };
        let response = timeout(call.head_within, request.send())
            .await
            .map_err(|_| FetchError::Timeout(call.head_within))?
            .map_err(|e| failure(&e))?;
        Ok(Reply::of(response))
    }

    /// Opens what a URL names for reading, after its redirects. Returns when the head of the response is there.
    ///
    /// # Errors
    /// Any [`FetchError`]. A response with an error status is not an error here.
    pub async fn open(&self, open: Open<'_>) -> Result<Reply, FetchError> {
        let within = open.head_within;
        timeout(within, self.opened(open)).await.map_err(|_| FetchError::Timeout(within))?
    }

    async fn opened(&self, open: Open<'_>) -> Result<Reply, FetchError> {
        let redirects_max = open.redirects_max.min(REDIRECTS_MAX);
        let mut hop = Hop { url: open.url.clone(), trust: open.trust };
        for _ in 0..=redirects_max {
            hop.check(&self.networks)?;
            let method = if open.is_head { Method::HEAD } else { Method::GET };
            let mut request = self.clients.for_hop(&hop).request(method, hop.url.clone());
            for (name, value) in open.headers {
                request = request.header(*name, value);
            }
            if let Some(secret) = open.secret.filter(|_| hop.url.origin() == open.url.origin()) {
                request = request.header(AUTHORIZATION, secret.expose());
            }
            let response = request.send().await.map_err(|e| failure(&e))?;
            match redirect_target(&hop, response.status(), response.headers())? {
                Some(next) => hop = next,
                None => return Ok(Reply::of(response)),
            }
        }
        Err(FetchError::TooManyRedirects(redirects_max))
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
    fn of(response: Response) -> Self {
        let headers = bounded_headers(response.headers());
        Self { status: response.status().as_u16(), headers, response }
    }

    /// The next part of the body; `None` at its end.
    ///
    /// # Errors
    /// [`FetchError::Timeout`] if nothing arrives `within` this time; [`FetchError::Http`].
    pub async fn chunk(&mut self, within: Duration) -> Result<Option<Vec<u8>>, FetchError> {
        Ok(self.piece(within).await?.map(|bytes| bytes.to_vec()))
    }

    /// As [`Reply::chunk`], without a copy.
    async fn piece(&mut self, within: Duration) -> Result<Option<Bytes>, FetchError> {
        let piece = timeout(within, self.response.chunk()).await.map_err(|_| FetchError::Timeout(within))?;
        piece.map_err(|e| failure(&e))
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

    /// As [`Reply::chunks`], in shared buffers. The connection is broken off when the stream is dropped before its end.
    pub fn pieces(self, within: Duration) -> impl Stream<Item = Result<Bytes, FetchError>> + Send + 'static {
        stream::try_unfold(self, move |mut reply| async move {
            let piece = reply.piece(within).await?;
            Ok(piece.map(|bytes| (bytes, reply)))
        })
    }
}
