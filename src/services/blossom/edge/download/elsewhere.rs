//! Blobs that no upstream has, at the servers that a client names (BUD-10) and those in the lists of authors that it names
//! (BUD-03). They are streamed through here, checked against their hash and not kept: a redirect to any server that a link
//! names would make this server vouch for it.

use std::sync::Arc;

use axum::response::Response;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::answer::{of_head, whole};
use super::search::{SEARCH_TIME, TYPE_DEFAULT};
use super::servable::Servable;
use super::{BlossomState, Download};
use crate::services::blossom::decide::hints::{Hints, blob_urls};
use crate::services::blossom::decide::name::BlobName;
use crate::services::blossom::decide::references::blob_url;
use crate::services::blossom::edge::refusal::Refused;
use crate::services::blossom::metrics::{DownloadOutcome, LookupSource};
use crate::services::blossom::read;
use crate::services::blossom::upstream::UpstreamError;
use crate::store::Error;

/// Servers of an author's list that are asked.
const SERVERS_MAX: usize = 4;

impl BlossomState {
    /// The servers of an author's archived list (kind 10063), remembered for a while.
    async fn servers_of(&self, author: &[u8; 32]) -> Result<Arc<Vec<Url>>, Refused> {
        let reading = async { read::servers_of_author(&self.parts().pools, author).await.map(Arc::new) };
        let servers = self.lookups().authors.try_get_with(*author, reading).await;
        servers.map_err(|error: Arc<Error>| Error::clone(&error).into())
    }
}

impl Download<'_> {
    /// The answer with the blob from a server that `query` leads to; `None` if none has it.
    pub(super) async fn elsewhere(self, query: &str) -> Result<Option<Response>, Refused> {
        let hints = Hints::parse(query);
        if hints == Hints::default() {
            return Ok(None);
        }
        self.admit_lookup()?;
        let Ok(_one_of_few) = self.state.lookups().searches.try_acquire() else {
            return Err(Refused::busy("too_many"));
        };
        let until = Instant::now() + SEARCH_TIME;
        for (url, source) in self.places(&hints).await? {
            match timeout_at(until, self.fetch(&url)).await {
                Ok(Ok(Some(answer))) => {
                    self.state.parts().metrics.looked_up(source);
                    return Ok(Some(answer));
                }
                Ok(Ok(None)) => {}
                Ok(Err(error)) => tracing::debug!(error = %error, "a server that a client names: {error}"),
                Err(_) => break,
            }
        }
        Ok(None)
    }

    /// The URLs of the blob to which hints lead, in the order of BUD-10.
    async fn places(self, hints: &Hints) -> Result<Vec<(Url, LookupSource)>, Refused> {
        let BlobName { sha256, extension } = self.name;
        let named = blob_urls(hints.servers.iter().map(String::as_str), &sha256, extension);
        let mut places: Vec<_> = named.into_iter().map(|url| (url, LookupSource::Hints)).collect();
        for author in &hints.authors {
            let servers = self.state.servers_of(author).await?;
            let urls = servers.iter().take(SERVERS_MAX).map(|server| blob_url(server, &sha256));
            places.extend(urls.map(|url| (url, LookupSource::Author)));
        }
        Ok(places)
    }

    /// The answer with the blob at `url`; `None` if it is not there.
    async fn fetch(self, url: &Url) -> Result<Option<Response>, UpstreamError> {
        let (sha256, upstreams) = (self.name.sha256, &self.state.parts().upstreams);
        let of = |size, media_type: Option<String>| {
            Servable::new(sha256, size, media_type.as_deref().unwrap_or(TYPE_DEFAULT), Vec::new())
        };
        if self.is_head {
            let Some(facts) = upstreams.look(url).await? else { return Ok(None) };
            self.state.parts().metrics.downloaded(DownloadOutcome::Streamed);
            return Ok(Some(of_head(&of(facts.size, facts.media_type))));
        }
        let most = self.state.settings().fetch_bytes_max.get();
        let Some(mut reader) = upstreams.fetch(url, most).await? else { return Ok(None) };
        let servable = of(reader.size, reader.media_type.take());
        let body = self.state.body(reader.verified(sha256), sha256, None).await?;
        Ok(Some(whole(&servable, body)))
    }
}
