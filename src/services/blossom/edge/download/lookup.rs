//! What is known of a blob, remembered for a moment.
//!
//! Invariant: what is remembered ends with the next commit about the blob by this process, with the hint of another process's
//! commit, and after [`KNOWN_LIFE`] whatever becomes of the hint.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use tokio::sync::Semaphore;
use url::Url;

use super::BlossomState;
use super::contents::Contents;
use super::search::{Life, Searched};
use super::servable::Servable;
use crate::base::Sha256;
use crate::config::Blossom;
use crate::services::blossom::append::{Changes, Mark};
use crate::services::blossom::edge::refusal::Refused;
use crate::services::blossom::event::LookUp;
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
    pub(in super::super) async fn forget(&self, sha256: &Sha256) {
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
