//! Servers that are no upstreams: those that clients and events name. Never asked for anything but to read.

use url::Url;

use super::{BlobReader, HeadFacts, UpstreamError, Upstreams, reading};
use crate::net::Trust;

impl Upstreams {
    /// An origin of the settings may have a private address, any other may not.
    fn trust(&self, url: &Url) -> Trust {
        let origin = url.origin().ascii_serialization();
        if self.named.contains(&origin) { Trust::Named } else { Trust::Discovered }
    }

    /// Whether there is a blob at this URL, and what its server says about it.
    ///
    /// # Errors
    /// An [`UpstreamError`]; that there is none is no error.
    pub async fn look(&self, url: &Url) -> Result<Option<HeadFacts>, UpstreamError> {
        reading::head(&self.caller, url, self.trust(url), self.within).await
    }

    /// Opens the blob at this URL for reading, after at most three redirects, each of which is checked; `None` if there is
    /// none. Not hashed: see [`BlobReader::verified`]. Ends with an error after more than `bytes_max` bytes.
    ///
    /// # Errors
    /// An [`UpstreamError`], also of the stream.
    pub async fn fetch(&self, url: &Url, bytes_max: u64) -> Result<Option<BlobReader>, UpstreamError> {
        let reader = reading::get(&self.caller, url, self.trust(url), None, self.within).await?;
        reader.map(|reader| reader.limited(bytes_max)).transpose()
    }
}
