//! Opens the upstreams of the settings.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use nostr_sdk::Keys;
use url::Url;

use super::health::Health;
use super::server::Server;
use super::store::Store;
use super::{Inner, Place, Upstream, Upstreams};
use crate::base::{Clock, Secret};
use crate::config::{Blossom, BlossomUpstream, ObjectKeys};
use crate::net::objects::{Bucket, BucketSettings, Folder, ObjectError, Objects};
use crate::net::{Caller, DialError, Egress};
use crate::services::blossom::decide::authorization::host_of;
use crate::services::blossom::metrics::BlobMetrics;

/// Region of a server without regions.
const REGION: &str = "auto";

/// The secrets by which upstreams are used.
#[derive(Debug, Clone, Default)]
pub struct UpstreamKeys {
    /// The operator's key, which signs tokens for upstreams.
    pub signer: Option<Secret>,
    /// The keys of buckets.
    pub objects: Option<ObjectKeys>,
}

/// Why the upstreams cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is neither an upstream nor a folder.
    #[error("services.blossom: neither `upstreams` nor `folder` names a place for blobs")]
    NoPlace,
    /// A URL cannot be used.
    #[error("services.blossom.upstreams: `{name}`: {why}")]
    Upstream {
        /// The upstream.
        name: String,
        /// The reason.
        why: String,
    },
    /// The operator's key cannot be used.
    #[error("QUIPU_BLOSSOM_KEY: not a secret key")]
    Key,
    /// A folder or bucket cannot be used.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// No client for requests can be built.
    #[error(transparent)]
    Dial(#[from] DialError),
}

impl Upstreams {
    /// Opens the upstreams of the settings; without any, the built-in store in the folder. Nothing is sent.
    ///
    /// # Errors
    /// An [`OpenError`].
    pub fn open(
        settings: &Blossom,
        keys: &UpstreamKeys,
        outside: &Egress,
        clock: &Arc<dyn Clock>,
        metrics: &BlobMetrics,
    ) -> Result<Self, OpenError> {
        let within = Duration::from_secs(settings.timeout_s.get().into());
        let signer = keys.signer.as_ref().map(|key| Keys::parse(key.expose()).map_err(|_| OpenError::Key));
        let signer = signer.transpose()?;
        let opening =
            Opening { settings, keys, outside, clock, metrics, caller: Arc::new(outside.caller()?), within };
        let mut list = Vec::new();
        let mut named: Vec<String> = Vec::new();
        for upstream in &settings.upstreams {
            list.push(opening.upstream(upstream)?);
            let urls = [Some(&upstream.url), upstream.alternative_address.as_ref()];
            let urls = urls.into_iter().flatten().filter_map(|text| Url::parse(text).ok());
            let servers = urls.filter(|url| matches!(url.scheme(), "http" | "https"));
            named.extend(servers.map(|url| url.origin().ascii_serialization()));
        }
        named.extend(
            settings
                .private_origins
                .iter()
                .filter_map(|text| Url::parse(text).ok().map(|url| url.origin().ascii_serialization())),
        );
        if list.is_empty() {
            list.push(opening.built_in()?);
        }
        Ok(Self { list, keys: signer, caller: opening.caller, turn: AtomicU64::new(0), named, within })
    }

    /// Removes what uploads to folders have left over that were broken off long before `now`. Returns how many.
    ///
    /// # Errors
    /// An [`super::UpstreamError`] of the first folder that cannot be swept.
    pub async fn sweep(&self, now: SystemTime) -> Result<usize, super::UpstreamError> {
        let mut swept = 0;
        for upstream in &self.list {
            if let Place::Store(store) = &upstream.0.place {
                swept += store.sweep(now).await?;
            }
        }
        Ok(swept)
    }
}

struct Opening<'a> {
    settings: &'a Blossom,
    keys: &'a UpstreamKeys,
    outside: &'a Egress,
    clock: &'a Arc<dyn Clock>,
    metrics: &'a BlobMetrics,
    caller: Arc<Caller>,
    within: Duration,
}

impl Opening<'_> {
    fn upstream(&self, upstream: &BlossomUpstream) -> Result<Upstream, OpenError> {
        let name = upstream.name();
        let wrong = |why: &str| OpenError::Upstream { name: name.to_owned(), why: why.to_owned() };
        let url = Url::parse(&upstream.url).map_err(|error| wrong(&error.to_string()))?;
        let place = match url.scheme() {
            "file" => {
                let path = url.to_file_path().map_err(|()| wrong("not a folder of this machine"))?;
                Place::Store(Store(Objects::Folder(Folder::open(&path)?)))
            }
            "s3" => Place::Store(Store(Objects::Bucket(self.bucket(upstream, &url)?))),
            _ => {
                let dialled = upstream.alternative_address.as_deref().map(Url::parse).transpose();
                let dialled = dialled.map_err(|error| wrong(&error.to_string()))?;
                let dialled = dialled.unwrap_or_else(|| url.clone());
                let caller = Arc::clone(&self.caller);
                Place::Server(Server::new(caller, url.clone(), dialled, self.within))
            }
        };
        let host = match &place {
            Place::Server(_) => host_of(url.as_str()),
            Place::Store(_) => String::new(),
        };
        Ok(Upstream(Arc::new(Inner {
            name: name.to_owned(),
            host,
            priority: upstream.priority,
            signs: upstream.sign,
            supports_mirror: upstream.supports_mirror,
            supports_upload_head: upstream.supports_upload_head,
            attempts_max: self.settings.attempts_max.get(),
            health: self.health(name),
            place,
        })))
    }

    fn bucket(&self, upstream: &BlossomUpstream, url: &Url) -> Result<Bucket, OpenError> {
        let name = upstream.name();
        let missing = || OpenError::Upstream {
            name: name.to_owned(),
            why: "the keys of the bucket are not in the environment".to_owned(),
        };
        let keys = self.keys.objects.as_ref().ok_or_else(missing)?;
        let settings = BucketSettings {
            bucket: url.host_str().unwrap_or_default(),
            endpoint: upstream.s3_endpoint.as_deref(),
            region: upstream.s3_region.as_deref().unwrap_or(REGION),
            prefix: url.path(),
            access_key: &keys.access_key,
            secret_key: &keys.secret_key,
        };
        Ok(Bucket::open(settings, self.outside)?)
    }

    /// The store in the folder of the settings. Its name is that of the folder, as if it were an upstream.
    fn built_in(&self) -> Result<Upstream, OpenError> {
        let path = self.settings.folder.as_deref().ok_or(OpenError::NoPlace)?;
        let folder = Folder::open(path)?;
        let url = Url::from_file_path(folder.root()).map_err(|()| OpenError::NoPlace)?;
        let name = url.as_str().trim_end_matches('/').to_owned();
        Ok(Upstream(Arc::new(Inner {
            host: String::new(),
            priority: 0,
            signs: false,
            supports_mirror: false,
            supports_upload_head: false,
            attempts_max: self.settings.attempts_max.get(),
            health: self.health(&name),
            place: Place::Store(Store(Objects::Folder(folder))),
            name,
        })))
    }

    fn health(&self, name: &str) -> Arc<Health> {
        Health::new(self.settings.failures_max.get(), Arc::clone(self.clock), self.metrics.upstream(name))
    }
}
