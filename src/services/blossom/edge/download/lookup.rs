//! What is known of a blob, remembered for a moment.
//!
//! Invariant: what is remembered ends with the next commit about the blob by this process, with the hint of another process's
//! commit, and after [`KNOWN_LIFE`] whatever becomes of the hint.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use moka::future::Cache;
use tokio::sync::Semaphore;
use url::Url;

use super::BlossomState;
use super::contents::Contents;
use super::search::{Life, Searched};
use crate::base::Sha256;
use crate::config::Blossom;
use crate::services::blossom::append::{Changes, Mark};
use crate::services::blossom::edge::refusal::Refused;
use crate::services::blossom::event::{BlobFacts, KnownBlob, LookUp, ReplicaState};
use crate::services::blossom::metrics::LookupSource;
use crate::services::blossom::read;
use crate::store::Error;

/// Time for which what was read of a blob is believed. A lost hint of another process delays its deletion, ban or upload by so much.
const KNOWN_LIFE: Duration = Duration::from_secs(3);

/// Time for which a copy is believed that was seen and is not recorded yet.
const CONFIRMED_LIFE: Duration = Duration::from_secs(2);

/// Authors whose lists of servers are remembered, and for how long.
const AUTHORS_MAX: u64 = 10_000;
const AUTHORS_LIFE: Duration = Duration::from_mins(5);

/// Searches at the same time: each asks all upstreams.
const SEARCHES_MAX: usize = 64;

/// Type of a blob whose type cannot stand in a header.
const TYPE_DEFAULT: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// What was found out lately about the places of blobs.
pub(in super::super) struct Lookups {
    changes: Changes,
    known: Cache<Sha256, (Mark, Arc<Known>)>,
    pub(super) confirmed: Cache<Sha256, (Mark, Arc<Servable>)>,
    pub(super) searched: Cache<Sha256, Arc<Searched>>,
    /// Servers of authors' lists.
    pub(super) authors: Cache<[u8; 32], Arc<Vec<Url>>>,
    pub(super) searches: Semaphore,
    pub(super) contents: Contents,
}

/// What the journal says about a blob.
#[derive(Debug)]
pub(super) enum Known {
    /// Nothing.
    Unknown,
    /// It is banned, for this reason.
    Banned(String),
    /// It is known, and has no owner.
    NotKept,
    /// It has an owner.
    Kept(Servable),
}

/// A blob, and the upstreams that have it.
#[derive(Debug, Clone)]
pub(super) struct Servable {
    pub(super) sha256: Sha256,
    /// Bytes; of a blob that was never seen here `None` if no upstream states it.
    pub(super) size: Option<u64>,
    pub(super) content_type: HeaderValue,
    pub(super) etag: HeaderValue,
    /// Names of the upstreams whose copies are known to be readable.
    pub(super) holders: Vec<String>,
    /// Names of the upstreams that may have a copy.
    pub(super) doubtful: Vec<String>,
    /// Whether the journal has its copies.
    pub(super) is_recorded: bool,
}

impl Servable {
    pub(super) fn new(sha256: Sha256, size: Option<u64>, media_type: &str, holders: Vec<String>) -> Self {
        let etag = HeaderValue::from_str(&format!("\"{sha256}\""));
        Self {
            sha256,
            size,
            content_type: HeaderValue::from_str(media_type).unwrap_or(TYPE_DEFAULT),
            etag: etag.expect("digits in quotes are a header value"),
            holders,
            doubtful: Vec::new(),
            is_recorded: false,
        }
    }

    fn of(known: KnownBlob) -> Self {
        let KnownBlob { facts: BlobFacts { sha256, size, media_type }, replicas, .. } = known;
        let with = |is_wanted: fn(ReplicaState) -> bool| -> Vec<String> {
            let wanted = replicas.iter().filter(|replica| is_wanted(replica.state));
            wanted.map(|replica| replica.upstream.clone()).collect()
        };
        let holders = with(|state| state == ReplicaState::Readable);
        let doubtful = with(|state| !matches!(state, ReplicaState::Readable | ReplicaState::Deleted));
        Self { doubtful, is_recorded: true, ..Self::new(sha256, Some(size), &media_type, holders) }
    }
}

impl Lookups {
    pub(in super::super) fn new(settings: &Blossom, changes: Changes) -> Self {
        let most = settings.lookup_cache_max.get().into();
        let found = Duration::from_secs(settings.lookup_cache_s.get().into());
        Self {
            changes,
            known: Cache::builder().max_capacity(most).time_to_live(KNOWN_LIFE).build(),
            confirmed: Cache::builder().max_capacity(most).time_to_live(CONFIRMED_LIFE).build(),
            searched: Cache::builder().max_capacity(most).expire_after(Life { found }).build(),
            authors: Cache::builder().max_capacity(AUTHORS_MAX).time_to_live(AUTHORS_LIFE).build(),
            searches: Semaphore::new(SEARCHES_MAX),
            contents: Contents::default(),
        }
    }

    /// The mark of a blob, see [`Changes`].
    pub(super) fn mark(&self, sha256: &Sha256) -> Mark {
        self.changes.mark(sha256)
    }

    /// Forgets where a blob was found that is not known.
    pub(super) async fn forget(&self, sha256: &Sha256) {
        self.searched.invalidate(sha256).await;
    }
}

impl BlossomState {
    /// What the journal says about a blob, and whether it was read or remembered.
    pub(super) async fn recall(&self, sha256: &Sha256) -> Result<(Arc<Known>, LookupSource), Refused> {
        let lookups = self.lookups();
        let mark = lookups.mark(sha256);
        if let Some((then, known)) = lookups.known.get(sha256).await {
            if then == mark {
                return Ok((known, LookupSource::Cached));
            }
            lookups.known.invalidate(sha256).await;
        }
        // One request reads for all that ask for the same blob at the same time.
        let reading = lookups.known.try_get_with(*sha256, self.read_known(sha256, mark)).await;
        let (then, mut known) = reading.map_err(|error: Arc<Error>| Error::clone(&error))?;
        if then != mark {
            // It was read before the commit that this request has to see.
            let read = self.read_known(sha256, mark).await?;
            known = Arc::clone(&read.1);
            lookups.known.insert(*sha256, read).await;
        }
        Ok((known, LookupSource::Known))
    }

    async fn read_known(&self, sha256: &Sha256, mark: Mark) -> Result<(Mark, Arc<Known>), Error> {
        let known = match read::look_up(&self.parts().pools, sha256).await? {
            LookUp { ban: Some(ban), .. } => Known::Banned(ban.why),
            LookUp { blob: None, .. } => Known::Unknown,
            LookUp { blob: Some(blob), .. } if blob.owners == 0 => Known::NotKept,
            LookUp { blob: Some(blob), .. } => Known::Kept(Servable::of(blob)),
        };
        Ok((mark, Arc::new(known)))
    }
}
