//! Blobs that no upstream has, at the servers that a client names (BUD-10). They are streamed through here, checked against
//! their hash and not kept: a redirect to any server that a link names would make this server vouch for it.

use axum::response::Response;
use tokio::time::{Instant, timeout_at};

use super::Download;
use super::answer::{of_head, whole};
use super::lookup::Servable;
use super::search::{SEARCH_TIME, TYPE_DEFAULT};
use crate::services::blossom::decide::hints::{Hints, blob_urls};
use crate::services::blossom::edge::refusal::Refused;
use crate::services::blossom::metrics::{DownloadOutcome, LookupSource};
use crate::services::blossom::upstream::UpstreamError;
use url::Url;

impl Download<'_> {
    /// The answer with the blob from a server that `query` names; `None` if none has it.
    pub(super) async fn elsewhere(self, query: &str) -> Result<Option<Response>, Refused> {
        let hints = Hints::parse(query);
        let urls =
            blob_urls(hints.servers.iter().map(String::as_str), &self.name.sha256, self.name.extension);
        if urls.is_empty() {
            return Ok(None);
        }
        self.admit_lookup()?;
        let Ok(_one_of_few) = self.state.lookups().searches.try_acquire() else {
            return Err(Refused::busy("too_many"));
        };
        let until = Instant::now() + SEARCH_TIME;
        for url in urls {
            let answer = timeout_at(until, self.from(&url)).await;
            match answer {
                Ok(Ok(Some(answer))) => {
                    self.state.parts().metrics.looked_up(LookupSource::Hints);
                    return Ok(Some(answer));
                }
                Ok(Ok(None)) => {}
                Ok(Err(error)) => tracing::debug!(error = %error, "a server that a client names: {error}"),
                Err(_) => return Ok(None),
            }
        }
        Ok(None)
    }

    async fn from(self, url: &Url) -> Result<Option<Response>, UpstreamError> {
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
