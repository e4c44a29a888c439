//! Section `services.blossom`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use nostr_sdk::PublicKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::blossom_upstreams::{BlossomUpstream, RedirectStrategy};
use super::problems::{Problems, Section};
use crate::base::counted;

/// Most upstreams: each upload takes a task and a buffer for each.
const UPSTREAMS_MAX: usize = 32;

/// Largest blob, bytes: S3 allows 5 TiB.
const BLOB_BYTES_MAX: u64 = 5 << 40;

/// Longest time for one upload, seconds.
const UPLOAD_S_MAX: u32 = 86_400;

/// Most keys in a list of the settings.
const KEYS_MAX: usize = 100_000;

/// Upper limit of [`Blossom::prove_hash_percent`].
const PERCENT_MAX: u32 = 100;

/// Most blobs that are copied at a time.
const REPAIR_PLACES_MAX: usize = 64;

/// Section `services.blossom`. In `key_…_max` and `…_per_minute` 0 means no limit.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the settings file")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Blossom {
    /// Whether `quipu up` runs it.
    pub enabled: bool,
    /// Address of the listener. Without a value `127.0.0.1:4708`, or `127.0.0.1:8080` if `quipu run blossom`
    /// runs nothing else.
    #[schemars(extend("format" = "address:port"))]
    pub address: Option<SocketAddr>,
    /// URL by which clients reach this listener, such as `https://blobs.example.com`: it stands in descriptors,
    /// and tokens with `server` tags have to name its host. Without a value `http://` and the address; a listener on
    /// loopback then refuses what web pages of other sites send, except downloads.
    pub public_url: Option<String>,
    /// Folder of the built-in store while no upstream is named, created if missing. Without a value `blobs` in
    /// the data folder. All processes need the same folder.
    #[schemars(extend("format" = "path"))]
    pub folder: Option<PathBuf>,
    /// Where blobs are stored, such as `[{url: "https://blossom.example.com", priority: 1}]`; at most 32. `url`: a
    /// Blossom server (`https://…`, `http://…`), a folder (`file:///path`) or a bucket (`s3://bucket/prefix`, with
    /// `s3_endpoint` and `s3_region`). All processes need the same list. Without any, the built-in store in `folder`.
    pub upstreams: Vec<BlossomUpstream>,
    /// Upstreams that have to take a blob before its upload is answered with success.
    pub replicas_min: NonZeroU32,
    /// Copies that each blob with an owner is kept in; without a value one on each upstream.
    pub replicas_target: Option<NonZeroU32>,
    /// Which upstream the `url` of a descriptor names, and where downloads are redirected to. `local` streams
    /// blobs through this listener. Blobs of a folder or bucket are always streamed.
    pub redirect_strategy: RedirectStrategy,
    /// The same for downloads alone; without a value as `redirect_strategy`.
    pub download_redirect_strategy: Option<RedirectStrategy>,
    /// Time for one request to an upstream, apart from uploads; of a download or a copy the longest pause.
    pub timeout_s: NonZeroU32,
    /// Shortest time for an upload to an upstream. The time is that until 30 s before the token expires, within
    /// these bounds.
    #[schemars(range(max = UPLOAD_S_MAX))]
    pub upload_timeout_min_s: NonZeroU32,
    /// Longest time for an upload.
    #[schemars(range(max = UPLOAD_S_MAX))]
    pub upload_timeout_max_s: NonZeroU32,
    /// Attempts of a look-up or deletion at an upstream that breaks in a way that may pass.
    pub attempts_max: NonZeroU32,
    /// Failures of an upstream in a row after which it gets no requests for a while.
    pub failures_max: NonZeroU32,
    /// Keys that may upload, mirror and delete, as hex or `npub1…`. Empty: every key with a valid token.
    pub allowed_pubkeys: Vec<String>,
    /// Whether requests without a token are served while `allowed_pubkeys` is empty, as the original does. Such
    /// blobs are kept like others, and no client can delete them.
    pub compat_unauthenticated: bool,
    /// Whether every successful upload and mirror is answered with 200, as the original does, also of a blob
    /// that is new (201).
    pub compat_always_200: bool,
    /// Largest blob of an upload.
    #[schemars(range(max = BLOB_BYTES_MAX))]
    pub upload_bytes_max: NonZeroU64,
    /// Largest blob that is fetched from a URL: by a mirror request, or because an event of a followed key names it.
    #[schemars(range(max = BLOB_BYTES_MAX))]
    pub fetch_bytes_max: NonZeroU64,
    /// Servers with private addresses from which blobs may be fetched as well, such as `["http://10.0.0.7:3000"]`. Others
    /// than these and the upstreams are refused, because clients and events could name any machine of this network.
    pub private_origins: Vec<String>,
    /// Bytes that one key may own.
    pub key_bytes_max: u64,
    /// Blobs that one key may own.
    pub key_blobs_max: u64,
    /// Uploads and mirror requests of one key, per minute.
    pub uploads_per_minute: u32,
    /// Look-ups of blobs from one address that are not answered from memory, per minute.
    pub lookups_per_minute: u32,
    /// Uploads and mirror requests at the same time; a further one gets 503.
    pub uploads_max: NonZeroUsize,
    /// Whether the list of a key needs a token of this key.
    pub list_is_private: bool,
    /// Whether downloads need a token.
    pub get_needs_token: bool,
    /// Media types that are accepted, such as `image/*` and `video/mp4`, as the first bytes of the blob show them.
    /// Empty: all.
    pub media_types: Vec<String>,
    /// Whether `PUT /media` removes metadata, such as places, from images.
    pub strip_metadata: bool,
    /// Time for which it is remembered which upstreams have a blob that is not known here.
    pub lookup_cache_s: NonZeroU32,
    /// Blobs about which it is remembered.
    pub lookup_cache_max: NonZeroU32,
    /// Time within which each copy is proven again.
    pub prove_after_days: NonZeroU32,
    /// Share of these proofs that read the whole copy and compare its hash; the others ask for its size.
    #[schemars(range(max = PERCENT_MAX))]
    pub prove_hash_percent: u32,
    /// Blobs that are copied to other upstreams at the same time.
    #[schemars(range(max = REPAIR_PLACES_MAX))]
    pub repair_places: NonZeroUsize,
    /// Memory of this process above which `/health` says that it is unhealthy.
    pub memory_bytes_max: NonZeroU64,
    /// Tasks of this process above which `/health` says that it is unhealthy.
    pub tasks_max: NonZeroU32,
    /// Keys whose archived events are searched for blobs, which are then kept here, as hex or `npub1…`.
    /// `quipu blobs adopt` adds further ones.
    pub follow_pubkeys: Vec<String>,
    /// Whether every key that has uploaded here is followed in this way.
    pub follow_uploaders: bool,
}

impl Default for Blossom {
    fn default() -> Self {
        Self {
            enabled: true,
            address: None,
            public_url: None,
            folder: None,
            upstreams: Vec::new(),
            replicas_min: nonzero!(NonZeroU32, 1),
            replicas_target: None,
            redirect_strategy: RedirectStrategy::RoundRobin,
            download_redirect_strategy: None,
            timeout_s: nonzero!(NonZeroU32, 30),
            upload_timeout_min_s: nonzero!(NonZeroU32, 300),
            upload_timeout_max_s: nonzero!(NonZeroU32, 1_800),
            attempts_max: nonzero!(NonZeroU32, 3),
            failures_max: nonzero!(NonZeroU32, 5),
            allowed_pubkeys: Vec::new(),
            compat_unauthenticated: false,
            compat_always_200: false,
            upload_bytes_max: nonzero!(NonZeroU64, 5_368_709_120),
            fetch_bytes_max: nonzero!(NonZeroU64, 5_368_709_120),
            private_origins: Vec::new(),
            key_bytes_max: 0,
            key_blobs_max: 0,
            uploads_per_minute: 60,
            lookups_per_minute: 600,
            uploads_max: nonzero!(NonZeroUsize, 32),
            list_is_private: false,
            get_needs_token: false,
            media_types: Vec::new(),
            strip_metadata: true,
            lookup_cache_s: nonzero!(NonZeroU32, 300),
            lookup_cache_max: nonzero!(NonZeroU32, 100_000),
            prove_after_days: nonzero!(NonZeroU32, 30),
            prove_hash_percent: 5,
            repair_places: nonzero!(NonZeroUsize, 4),
            memory_bytes_max: nonzero!(NonZeroU64, 536_870_912),
            tasks_max: nonzero!(NonZeroU32, 1_000),
            follow_pubkeys: Vec::new(),
            follow_uploaders: false,
        }
    }
}

impl Blossom {
    /// The strategy for downloads.
    #[must_use]
    pub fn download_strategy(&self) -> RedirectStrategy {
        self.download_redirect_strategy.unwrap_or(self.redirect_strategy)
    }

    /// The URL by which clients reach the listener at `address`, without a slash at its end.
    #[must_use]
    pub fn url(&self, address: SocketAddr) -> String {
        let local = || format!("http://{address}");
        self.public_url.as_deref().map_or_else(local, |url| url.trim_end_matches('/').to_owned())
    }

    /// Copies that each kept blob is to have when there are so many upstreams.
    #[must_use]
    pub fn target(&self, upstreams: usize) -> usize {
        let wanted =
            self.replicas_target.map_or(upstreams, |most| usize::try_from(most.get()).unwrap_or(usize::MAX));
        wanted.min(upstreams)
    }

    /// Copies that each kept blob is to have, of the upstreams in the settings or in the built-in store.
    #[must_use]
    pub fn wanted_copies(&self) -> i64 {
        i64::try_from(self.target(self.upstreams.len().max(1))).unwrap_or(i64::MAX)
    }

    /// The keys that may upload; empty if every key may.
    #[must_use]
    pub fn allowed_keys(&self) -> BTreeSet<[u8; 32]> {
        keys(&self.allowed_pubkeys)
    }

    /// The keys that are followed.
    #[must_use]
    pub fn followed_keys(&self) -> BTreeSet<[u8; 32]> {
        keys(&self.follow_pubkeys)
    }

    /// Settings that are valid but probably a mistake.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let is_beyond = self.address.is_some_and(|address| !address.ip().to_canonical().is_loopback());
        if self.enabled && is_beyond && self.compat_unauthenticated && self.allowed_pubkeys.is_empty() {
            warnings.push(
                "services.blossom.compat_unauthenticated: everyone who reaches the listener may upload"
                    .to_owned(),
            );
        }
        if self.enabled && is_beyond && self.public_url.is_none() {
            warnings.push(
                "services.blossom.public_url: without it descriptors name the address of the listener, which clients may not reach"
                    .to_owned(),
            );
        }
        warnings
    }
}

/// The keys of a list. What is none was refused by the check of the settings.
fn keys(texts: &[String]) -> BTreeSet<[u8; 32]> {
    texts.iter().filter_map(|text| PublicKey::parse(text).ok()).map(PublicKey::to_bytes).collect()
}

impl Section for Blossom {
    fn problems(&self, problems: &mut Problems<'_>) {
        let upstreams = self.upstreams.len();
        let mut check = |is_good: bool, key: &str, reason: String| {
            if !is_good {
                problems.refuse(key, reason);
            }
        };
        check(upstreams <= UPSTREAMS_MAX, "upstreams", format!("{upstreams}: at most {UPSTREAMS_MAX}"));
        for reason in super::blossom_upstreams::refused(&self.upstreams) {
            check(false, "upstreams", reason);
        }
        let least = usize::try_from(self.replicas_min.get()).unwrap_or(usize::MAX);
        let stores = upstreams.max(1);
        check(
            least <= stores,
            "replicas_min",
            format!("{least}: more than {}", counted(stores, "upstream", "upstreams")),
        );
        if let Some(target) = self.replicas_target {
            check(
                target >= self.replicas_min,
                "replicas_target",
                format!("{target}: at least replicas_min, {}", self.replicas_min),
            );
        }
        let (shortest, longest) = (self.upload_timeout_min_s, self.upload_timeout_max_s);
        check(
            longest.get() <= UPLOAD_S_MAX,
            "upload_timeout_max_s",
            format!("{longest}: at most {UPLOAD_S_MAX}"),
        );
        check(
            shortest <= longest,
            "upload_timeout_min_s",
            format!("{shortest}: at most upload_timeout_max_s, {longest}"),
        );
        for (key, bytes) in
            [("upload_bytes_max", self.upload_bytes_max), ("fetch_bytes_max", self.fetch_bytes_max)]
        {
            check(bytes.get() <= BLOB_BYTES_MAX, key, format!("{bytes}: at most {BLOB_BYTES_MAX}"));
        }
        for (key, most) in [("key_bytes_max", self.key_bytes_max), ("key_blobs_max", self.key_blobs_max)] {
            check(i64::try_from(most).is_ok(), key, format!("{most}: at most {}", i64::MAX));
        }
        let percent = self.prove_hash_percent;
        check(percent <= PERCENT_MAX, "prove_hash_percent", format!("{percent}: at most {PERCENT_MAX}"));
        let places = self.repair_places.get();
        check(places <= REPAIR_PLACES_MAX, "repair_places", format!("{places}: at most {REPAIR_PLACES_MAX}"));
        for (key, texts) in
            [("allowed_pubkeys", &self.allowed_pubkeys), ("follow_pubkeys", &self.follow_pubkeys)]
        {
            check(texts.len() <= KEYS_MAX, key, format!("{}: at most {KEYS_MAX}", texts.len()));
            for text in texts.iter().filter(|text| PublicKey::parse(text).is_err()) {
                check(false, key, format!("`{text}`: expected 64 hex digits or npub1…"));
            }
        }
        for media_type in &self.media_types {
            let is_type = media_type.split_once('/').is_some_and(|(kind, sub)| {
                let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic());
                is_word(kind) && is_word(sub) && *media_type == media_type.to_ascii_lowercase()
            });
            check(
                is_type,
                "media_types",
                format!("`{media_type}`: expected such as `image/png` or `image/*`, in lower case"),
            );
        }
        let urls = self.public_url.iter().map(|text| ("public_url", text));
        for (key, text) in urls.chain(self.private_origins.iter().map(|text| ("private_origins", text))) {
            // Not shown: it may contain a password.
            let is_plain = |url: Url| {
                matches!(url.scheme(), "http" | "https")
                    && url.username().is_empty()
                    && url.password().is_none()
                    && url.query().is_none()
                    && url.path() == "/"
            };
            let expected = "expected an http or https URL without user, path and query".to_owned();
            check(Url::parse(text).is_ok_and(is_plain), key, expected);
        }
    }
}
