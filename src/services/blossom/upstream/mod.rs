//! The upstreams: Blossom servers and built-in stores, in which blobs are. What one of them can be asked, and how it
//! fares.
//!
//! Invariants: requests go only to upstreams of the settings, and to servers that an event or a client names, which have
//! no private address unless the settings name it. Whatever one answers is bounded. Only its own failures count against
//! an upstream: neither a client that breaks off nor a token that it refuses. A blob that an upstream says it took has
//! the hash of the bytes that it was sent.

mod attempts;
mod body;
pub mod descriptor;
mod error;
mod health;
mod open;
mod other;
mod reading;
mod server;
mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use nostr_sdk::Keys;
use url::Url;

use super::decide::authorization::{self, Asked, Credential, Token, Verb};
use super::decide::choice::{self, Candidate, Strategy};
use super::event::ReplicaEvent;
use super::metrics::Operation;
use crate::base::{Secret, Sha256};
use crate::net::Caller;

use attempts::repeated;
use health::Health;
use server::Server;
use store::Store;

pub use crate::net::BodyBroken;
pub use body::{
    Accepted, Announced, BlobReader, Deleted, HashToCome, HeadFacts, Preflight, PutBlob, RemoteDescriptor,
};
pub use error::UpstreamError;
pub use health::UpstreamStats;
pub use open::{OpenError, UpstreamKeys};

/// The upstreams of this process, in the order of the settings.
#[derive(Debug)]
pub struct Upstreams {
    list: Vec<Upstream>,
    keys: Option<Keys>,
    caller: Arc<Caller>,
    /// How often one was chosen.
    turn: AtomicU64,
    /// Origins that the operator named, which may have private addresses.
    named: Vec<String>,
    /// Longest pause in an answer, and time until its head.
    within: Duration,
}

/// One upstream. Clones share it.
#[derive(Debug, Clone)]
pub struct Upstream(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    /// Host of the public URL; empty of a store.
    host: String,
    priority: i32,
    signs: bool,
    supports_mirror: bool,
    supports_upload_head: bool,
    /// Attempts of a request that changes nothing, or that may be done twice.
    attempts_max: u32,
    health: Arc<Health>,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Server(Server),
    Store(Store),
}

impl Upstreams {
    /// All of them.
    #[must_use]
    pub fn list(&self) -> &[Upstream] {
        &self.list
    }

    /// The one with this name in rows; `None` of one that is not in the settings any more.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Upstream> {
        self.list.iter().find(|upstream| upstream.name() == name)
    }

    /// The upstreams with these names, in the order in which they are to be asked: those that get no requests now come
    /// last, and unknown names are left out.
    #[must_use]
    pub fn choose<'a>(&self, strategy: Strategy, names: impl IntoIterator<Item = &'a str>) -> Vec<Upstream> {
        let found: Vec<&Upstream> = names.into_iter().filter_map(|name| self.named(name)).collect();
        let candidates: Vec<Candidate> = found.iter().map(|upstream| upstream.candidate()).collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let order = choice::order(strategy, &candidates, turn, rand::random());
        order.into_iter().map(|place| found[place].clone()).collect()
    }

    /// What an upstream is shown for a request; see [`authorization::token_for`]. A store needs nothing.
    #[must_use]
    pub fn credential(
        &self,
        upstream: &Upstream,
        client: Option<&Token>,
        verb: Verb,
        blob: Option<Sha256>,
        now: i64,
    ) -> Credential {
        if upstream.is_store() {
            return Credential::Nothing;
        }
        let asked = Asked { verb, blob, host: &upstream.0.host, signs: upstream.0.signs, now };
        authorization::token_for(client, self.keys.as_ref(), asked)
    }

    /// The client's own token, if it is valid at the upstream and may be shown there. For requests about what the client has stored
    /// there without us: the operator's key has no say in that.
    #[must_use]
    pub fn clients_token(
        &self,
        upstream: &Upstream,
        client: &Token,
        verb: Verb,
        blob: Option<Sha256>,
        now: i64,
    ) -> Option<Secret> {
        if upstream.is_store() || upstream.0.signs {
            return None;
        }
        let asked = Asked { verb, blob, host: &upstream.0.host, signs: false, now };
        match authorization::token_for(Some(client), None, asked) {
            Credential::Token(token) => Some(token),
            Credential::Nothing | Credential::Unavailable => None,
        }
    }

    /// Asks each upstream that gets no requests, and whose pause is over, whether it works again.
    pub async fn probe(&self) {
        let resting = self.list.iter().filter(|upstream| !upstream.is_healthy() && upstream.is_available());
        join_all(resting.map(|upstream| async move {
            let probed = upstream.ask(&Sha256::MIN, 1).await;
            let name = upstream.name();
            match probed {
                Ok(_) => tracing::info!(upstream = name, "upstream {name} works again"),
                Err(error) => tracing::debug!(upstream = name, error = %error, "upstream {name}: {error}"),
            }
        }))
        .await;
    }
}

impl Upstream {
    /// Its name in rows: the URL in the settings, without a slash at its end.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Where any client gets the blob; `None` of a store, from which blobs are streamed through here. `extension` is without
    /// a dot, and may be empty.
    #[must_use]
    pub fn public_url(&self, sha256: &Sha256, extension: &str) -> Option<Url> {
        match &self.0.place {
            Place::Server(server) => server.public_url(sha256, extension),
            Place::Store(_) => None,
        }
    }

    /// Smaller is better.
    #[must_use]
    pub fn priority(&self) -> i32 {
        self.0.priority
    }

    /// Whether it is a folder or a bucket.
    #[must_use]
    pub fn is_store(&self) -> bool {
        matches!(self.0.place, Place::Store(_))
    }

    /// Whether it copies blobs from URLs itself.
    #[must_use]
    pub fn supports_mirror(&self) -> bool {
        self.0.supports_mirror
    }

    /// Whether it says before an upload if it would take it.
    #[must_use]
    pub fn supports_upload_head(&self) -> bool {
        self.0.supports_upload_head
    }

    /// Whether a request would be sent to it now.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.0.health.is_available()
    }

    /// Whether it has not failed too often in a row.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.0.health.is_healthy()
    }

    /// Whether pages of other sites can read blobs there, as its newest answer to a HEAD says; `None` if it was not asked
    /// yet.
    #[must_use]
    pub fn allows_pages(&self) -> Option<bool> {
        self.0.health.allows_pages()
    }

    /// Its numbers.
    #[must_use]
    pub fn stats(&self) -> UpstreamStats {
        self.0.health.stats()
    }

    /// Counts a client that gets a blob from it, by a redirect or through here.
    pub fn count_download(&self) {
        self.0.health.downloaded();
    }

    /// Counts a committed entry of the journal about one of its copies.
    pub fn count_recorded(&self, event: ReplicaEvent) {
        self.0.health.metrics().recorded(event);
    }

    fn candidate(&self) -> Candidate {
        Candidate {
            is_available: self.is_available(),
            is_store: self.is_store(),
            priority: self.priority(),
            failures: self.0.health.failures(),
            latency: self.0.health.latency(),
        }
    }

    /// Stores a blob.
    ///
    /// # Errors
    /// An [`UpstreamError`]; in any case the upstream has no whole blob of a body that broke off.
    pub async fn put(&self, blob: PutBlob) -> Result<Accepted, UpstreamError> {
        let attempt = self.0.health.begin(Operation::Put)?;
        let (within, too_slow) = (blob.within, blob.too_slow.clone());
        let putting = async {
            match &self.0.place {
                Place::Server(server) => server.put(blob, &self.0.health).await,
                Place::Store(store) => store.put(blob, &self.0.health).await,
            }
        };
        let result = tokio::select! {
            result = tokio::time::timeout(within, putting) => {
                result.unwrap_or_else(|_| Err(UpstreamError::timeout(within)))
            }
            () = too_slow.cancelled() => Err(UpstreamError::too_slow()),
        };
        attempt.end(result)
    }

    /// Has a blob processed by its `PUT /media`. Returns the descriptor of the result, which usually has another hash.
    ///
    /// # Errors
    /// An [`UpstreamError`]; a store processes nothing.
    pub async fn media(&self, blob: PutBlob) -> Result<RemoteDescriptor, UpstreamError> {
        let Place::Server(server) = &self.0.place else {
            return Err(UpstreamError::unsupported("a store processes nothing"));
        };
        let attempt = self.0.health.begin(Operation::Put)?;
        let (within, too_slow) = (blob.within, blob.too_slow.clone());
        let result = tokio::select! {
            result = tokio::time::timeout(within, server.media(blob, &self.0.health)) => {
                result.unwrap_or_else(|_| Err(UpstreamError::timeout(within)))
            }
            () = too_slow.cancelled() => Err(UpstreamError::too_slow()),
        };
        attempt.end(result)
    }

    /// Whether it has a blob, and what it says about it.
    ///
    /// # Errors
    /// An [`UpstreamError`]; that it has none is no error.
    pub async fn head(&self, sha256: &Sha256) -> Result<Option<HeadFacts>, UpstreamError> {
        self.ask(sha256, self.0.attempts_max).await
    }

    async fn ask(&self, sha256: &Sha256, attempts_max: u32) -> Result<Option<HeadFacts>, UpstreamError> {
        let attempt = self.0.health.begin(Operation::Head)?;
        let result = match &self.0.place {
            Place::Server(server) => repeated(attempts_max, || server.head(sha256)).await,
            Place::Store(store) => store.head(sha256).await,
        };
        if let Ok(facts) = &result {
            attempt.answered();
            if let Some(facts) = facts {
                self.0.health.saw_pages(facts.allows_pages);
            }
        }
        attempt.end(result)
    }

    /// Opens a blob, or the bytes of `range` (its end is not part of it), for reading; `None` if it has none. Not checked:
    /// see [`BlobReader::verified`].
    ///
    /// # Errors
    /// An [`UpstreamError`], also of the stream.
    pub async fn get(
        &self,
        sha256: &Sha256,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<Option<BlobReader>, UpstreamError> {
        let attempt = self.0.health.begin(Operation::Get)?;
        let result = match &self.0.place {
            Place::Server(server) => {
                repeated(self.0.attempts_max, || server.get(sha256, range.clone())).await
            }
            Place::Store(store) => store.get(sha256, range).await,
        };
        if result.is_ok() {
            attempt.answered();
        }
        match result {
            Ok(Some(reader)) => Ok(Some(reader.watched(attempt, Arc::clone(&self.0.health)))),
            ended => attempt.end(ended),
        }
    }

    /// Deletes a blob.
    ///
    /// # Errors
    /// An [`UpstreamError`]: it refused.
    pub async fn delete(&self, sha256: &Sha256, token: Option<&Secret>) -> Result<Deleted, UpstreamError> {
        let attempt = self.0.health.begin(Operation::Delete)?;
        let result = match &self.0.place {
            Place::Server(server) => repeated(self.0.attempts_max, || server.delete(sha256, token)).await,
            Place::Store(store) => store.delete(sha256).await,
        };
        attempt.end(result)
    }

    /// Has it copy a blob from `url`.
    ///
    /// # Errors
    /// An [`UpstreamError`]; a store copies nothing by itself.
    pub async fn mirror(
        &self,
        sha256: &Sha256,
        url: &str,
        token: Option<&Secret>,
        within: Duration,
    ) -> Result<Accepted, UpstreamError> {
        let Place::Server(server) = &self.0.place else {
            return Err(UpstreamError::unsupported("a store copies nothing by itself"));
        };
        let attempt = self.0.health.begin(Operation::Mirror)?;
        attempt.end(server.mirror(sha256, url, token, within).await)
    }

    /// The blobs of a key there, as far as it tells: at most ten thousand. A store has no lists.
    ///
    /// # Errors
    /// An [`UpstreamError`].
    pub async fn blobs_of(
        &self,
        pubkey: &[u8; 32],
        token: Option<&Secret>,
    ) -> Result<Vec<RemoteDescriptor>, UpstreamError> {
        let Place::Server(server) = &self.0.place else { return Ok(Vec::new()) };
        let attempt = self.0.health.begin(Operation::List)?;
        attempt.end(repeated(self.0.attempts_max, || server.list(pubkey, token)).await)
    }

    /// Whether it would take a blob.
    ///
    /// # Errors
    /// An [`UpstreamError`]: it would not.
    pub async fn preflight(&self, blob: Announced<'_>) -> Result<Preflight, UpstreamError> {
        let Place::Server(server) = &self.0.place else { return Ok(Preflight::Welcome) };
        let attempt = self.0.health.begin(Operation::Preflight)?;
        attempt.end(server.preflight(blob).await)
    }
}
