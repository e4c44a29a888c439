//! Looks for a wanted blob: at the upstreams, at the URLs of events, at the author's servers.

use std::fmt::Display;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::ready;
use futures_util::stream::{self, BoxStream};
use tokio_util::bytes::Bytes;
use url::Url;

use crate::services::blossom::command::ReplicaResult;
use crate::services::blossom::decide::media::{accepted_type, normal_type};
use crate::services::blossom::decide::references::blob_url;
use crate::services::blossom::event::{BlobFacts, Proof, ReplicaEvent, Wanted};
use crate::services::blossom::react::ReactParts;
use crate::services::blossom::react::copying::{Broken, Transfer};
use crate::services::blossom::read;
use crate::services::blossom::upstream::{BlobReader, Upstream, UpstreamError};
use crate::store::Error;

/// Most URLs at which one blob is looked for.
const PLACES_MAX: usize = 32;

/// A wanted blob that was found, and is at an upstream now.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) facts: BlobFacts,
    pub(super) results: Vec<ReplicaResult>,
    /// The URL that it came from; `None` of an upstream's copy.
    pub(super) origin: Option<String>,
}

/// A search for one blob.
#[derive(Debug)]
pub(super) struct Search<'a> {
    parts: &'a ReactParts,
    wanted: &'a Wanted,
    /// The last place, and why it is not there.
    pub(super) last: Option<String>,
    pub(super) has_other_bytes: bool,
    /// Whether our own upstreams are at fault: the blob is not missed, and looked for again soon.
    pub(super) is_ours: bool,
}

type Pieces = BoxStream<'static, Result<Bytes, UpstreamError>>;

impl<'a> Search<'a> {
    pub(super) fn new(parts: &'a ReactParts, wanted: &'a Wanted) -> Self {
        Self { parts, wanted, last: None, has_other_bytes: false, is_ours: false }
    }

    fn missed(&mut self, place: &str, why: impl Display) {
        self.last = Some(format!("{place}: {why}"));
    }

    /// Looks everywhere.
    pub(super) async fn find(&mut self) -> Result<Option<Found>, Error> {
        let parts = self.parts;
        for upstream in parts.upstreams.list().iter().filter(|upstream| upstream.is_available()) {
            match self.read_at(upstream).await {
                Ok(None) => {}
                Ok(Some(facts)) => {
                    let why = Some(Proof::Hash.as_str().to_owned());
                    let results = vec![result(upstream, ReplicaEvent::Readable, why)];
                    return Ok(Some(Found { facts, results, origin: None }));
                }
                Err(error) => {
                    self.has_other_bytes |= error.is_other_bytes();
                    self.missed(upstream.name(), error);
                }
            }
        }
        for url in self.places().await? {
            if let Some(found) = self.fetch(&url).await {
                return Ok(Some(found));
            }
            if self.is_ours {
                break;
            }
        }
        Ok(None)
    }

    /// The URLs at which the blob may be, each once: those of events, then the author's servers.
    async fn places(&self) -> Result<Vec<Url>, Error> {
        let mut places: Vec<Url> = Vec::new();
        let servers = read::servers_of_author(&self.parts.pools, &self.wanted.owner).await?;
        let named = self.wanted.urls.iter().filter_map(|url| Url::parse(url).ok());
        for place in named.chain(servers.iter().map(|server| blob_url(server, &self.wanted.sha256))) {
            if !places.contains(&place) && places.len() < PLACES_MAX {
                places.push(place);
            }
        }
        Ok(places)
    }

    /// Reads the blob at an upstream that has it without our knowing: its size and its type have to be seen.
    async fn read_at(&self, upstream: &Upstream) -> Result<Option<BlobFacts>, UpstreamError> {
        let settings = &self.parts.settings;
        let Some(reader) = upstream.get(&self.wanted.sha256, None).await? else { return Ok(None) };
        let stated = reader.media_type.clone();
        let mut bytes = reader.limited(settings.fetch_bytes_max.get())?.verified(self.wanted.sha256).bytes;
        let (first, mut size) = (bytes.next().await.transpose()?.unwrap_or_default(), 0);
        size += length(&first);
        while let Some(piece) = bytes.next().await.transpose()? {
            size += length(&piece);
        }
        let media_type = self.media_type(stated.as_deref(), &first);
        Ok(media_type.map(|media_type| BlobFacts { sha256: self.wanted.sha256, size, media_type }))
    }

    /// The type; `None` if the settings do not accept it.
    fn media_type(&self, stated: Option<&str>, start: &[u8]) -> Option<String> {
        let stated = stated.and_then(normal_type);
        accepted_type(&self.parts.settings.media_types, stated.as_deref(), start)
    }

    /// Fetches the blob from a server that is none of ours to the first upstream that takes it.
    async fn fetch(&mut self, url: &Url) -> Option<Found> {
        let parts = self.parts;
        let mut takers: Vec<&Upstream> =
            parts.upstreams.list().iter().filter(|upstream| upstream.is_available()).collect();
        takers.sort_by_key(|upstream| upstream.priority());
        let mut results = Vec::new();
        for taker in takers {
            let opened = match self.open(url).await {
                Ok(Some(opened)) => opened,
                Ok(None) => {
                    self.missed(url.as_str(), "it is not there, or of a type that is not accepted");
                    return None;
                }
                Err(error) => {
                    self.missed(url.as_str(), error);
                    return None;
                }
            };
            let (media_type, reader) = opened;
            let transfer = Transfer {
                sha256: self.wanted.sha256,
                // What a stranger states is not believed.
                size: None,
                bytes_max: parts.settings.fetch_bytes_max.get(),
                media_type: &media_type,
                reader,
                within: Duration::from_secs(parts.settings.upload_timeout_max_s.get().into()),
            };
            match transfer.send(parts, taker).await {
                Ok(size) => {
                    results.push(result(taker, ReplicaEvent::Accepted, None));
                    let facts = BlobFacts { sha256: self.wanted.sha256, size, media_type };
                    return Some(Found { facts, results, origin: Some(url.to_string()) });
                }
                Err(Broken::Source(error)) => {
                    self.has_other_bytes |= error.is_other_bytes();
                    self.missed(url.as_str(), error);
                    return None;
                }
                Err(Broken::Taker(why)) => {
                    self.missed(taker.name(), &why);
                    results.push(result(taker, ReplicaEvent::Failed, Some(why)));
                }
            }
        }
        self.is_ours = true;
        None
    }

    /// Opens a URL, and looks at the first bytes for the type.
    async fn open(&self, url: &Url) -> Result<Option<(String, BlobReader)>, UpstreamError> {
        let bytes_max = self.parts.settings.fetch_bytes_max.get();
        let Some(mut reader) = self.parts.upstreams.fetch(url, bytes_max).await? else { return Ok(None) };
        let mut rest: Pieces = std::mem::replace(&mut reader.bytes, stream::empty().boxed());
        let first = rest.next().await.transpose()?.unwrap_or_default();
        let Some(media_type) = self.media_type(reader.media_type.as_deref(), &first) else { return Ok(None) };
        reader.bytes = stream::once(ready(Ok(first))).chain(rest).boxed();
        Ok(Some((media_type, reader)))
    }
}

fn length(piece: &Bytes) -> u64 {
    u64::try_from(piece.len()).unwrap_or(u64::MAX)
}

fn result(upstream: &Upstream, event: ReplicaEvent, why: Option<String>) -> ReplicaResult {
    ReplicaResult { upstream: upstream.name().to_owned(), event, why }
}
