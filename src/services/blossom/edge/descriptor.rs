//! The descriptor of a blob as clients get it (BUD-02, BUD-08).

use serde::Serialize;

use super::BlossomState;
use crate::config::RedirectStrategy;
use crate::services::blossom::decide::choice::Strategy;
use crate::services::blossom::decide::media::extension_of;
use crate::services::blossom::event::BlobFacts;

/// A descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Descriptor {
    /// Where any client can get the blob.
    pub(super) url: String,
    /// Its hash in lower case.
    pub(super) sha256: String,
    /// Its size, bytes.
    pub(super) size: u64,
    /// Its media type.
    pub(super) r#type: String,
    /// When this owner stored it, Unix seconds.
    pub(super) uploaded: i64,
    /// The tags of NIP-94; the first `url` is `url` above (BL-08.2).
    pub(super) nip94: Vec<[String; 2]>,
}

/// The rule for a strategy of the settings.
pub(super) const fn strategy(of_settings: RedirectStrategy) -> Strategy {
    match of_settings {
        RedirectStrategy::RoundRobin => Strategy::RoundRobin,
        RedirectStrategy::Random => Strategy::Random,
        RedirectStrategy::Priority => Strategy::Priority,
        RedirectStrategy::HealthBased => Strategy::HealthBased,
        RedirectStrategy::Local => Strategy::Local,
    }
}

impl BlossomState {
    /// Where clients get a new blob without this listener: at one of `holders`. `None` if they are to get it here, because blobs are
    /// streamed, or no holder serves clients itself (BL-PX.2).
    pub(super) fn chosen_url(&self, facts: &BlobFacts, holders: &[String]) -> Option<String> {
        let strategy = strategy(self.settings().redirect_strategy);
        if strategy == Strategy::Local {
            return None;
        }
        let extension = extension_of(&facts.media_type);
        let chosen = self.parts().upstreams.choose(strategy, holders.iter().map(String::as_str));
        chosen.iter().find_map(|upstream| upstream.public_url(&facts.sha256, extension)).map(String::from)
    }

    /// The descriptor of a blob for a client that reaches this listener at `base`. `url` is its chosen place; without one, this
    /// listener, which redirects or streams. `holders` are the names of upstreams that have a copy: those that serve clients
    /// themselves follow as further URLs.
    pub(super) fn descriptor(
        &self,
        base: &str,
        facts: &BlobFacts,
        uploaded: i64,
        url: Option<String>,
        holders: &[String],
    ) -> Descriptor {
        let sha256 = facts.sha256.to_string();
        let extension = extension_of(&facts.media_type);
        let here = format!("{base}/{sha256}.{extension}");
        let chosen = url.unwrap_or_else(|| here.clone());
        let upstreams = self.parts().upstreams.list().iter();
        let theirs = upstreams
            .filter(|upstream| holders.iter().any(|holder| holder == upstream.name()))
            .filter_map(|upstream| upstream.public_url(&facts.sha256, extension))
            .map(String::from);
        let mut urls = vec![chosen.clone()];
        for url in theirs.chain([here]) {
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
        let tag = |name: &str, value: &str| [name.to_owned(), value.to_owned()];
        let mut nip94 = vec![tag("url", &chosen)];
        nip94.extend([tag("x", &sha256), tag("m", &facts.media_type), tag("size", &facts.size.to_string())]);
        nip94.extend(urls.iter().skip(1).map(|url| tag("url", url)));
        Descriptor {
            url: chosen,
            sha256,
            size: facts.size,
            r#type: facts.media_type.clone(),
            uploaded,
            nip94,
        }
    }
}
