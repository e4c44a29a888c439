//! Limits of requests, each with its reason.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Blossom;
use crate::http::client_key;

/// Checks between two removals of keys and addresses that asked for nothing lately.
const CLEANUP: u64 = 1_024;

/// Reports from one address, per minute.
const REPORTS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(10).expect("10 is not zero");

/// Memory for images of `/media`, and the pieces in which it is given out, bytes: a client holds as much of it as it has sent.
const MEDIA_BYTES: usize = 128 * 1024 * 1024;
const MEDIA_PIECE_BYTES: usize = 64 * 1024;

/// Whose uploads are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Uploader {
    /// Those with tokens of one key.
    Key([u8; 32]),
    /// Those without a token from one address; `None` if it is not known.
    Address(Option<IpAddr>),
}

/// Rates and numbers of requests.
pub(super) struct Limits {
    /// `None`: no limit.
    uploads_by_key: Option<DefaultKeyedRateLimiter<Uploader>>,
    lookups_by_address: Option<DefaultKeyedRateLimiter<IpAddr>>,
    reports_by_address: DefaultKeyedRateLimiter<IpAddr>,
    checks: AtomicU64,
    uploads: Arc<Semaphore>,
    media: Arc<Semaphore>,
}

impl Limits {
    pub(super) fn new(settings: &Blossom) -> Self {
        let rate = |per_minute: u32| NonZeroU32::new(per_minute).map(Quota::per_minute);
        let uploads = settings.uploads_max.get().min(Semaphore::MAX_PERMITS);
        Self {
            uploads_by_key: rate(settings.uploads_per_minute).map(RateLimiter::keyed),
            lookups_by_address: rate(settings.lookups_per_minute).map(RateLimiter::keyed),
            reports_by_address: RateLimiter::keyed(Quota::per_minute(REPORTS_PER_MINUTE)),
            checks: AtomicU64::new(0),
            uploads: Arc::new(Semaphore::new(uploads)),
            media: Arc::new(Semaphore::new(MEDIA_BYTES / MEDIA_PIECE_BYTES)),
        }
    }

    /// Whether this client may store one more blob now.
    pub(super) fn admits_upload(&self, uploader: &Uploader) -> bool {
        self.clean_up();
        self.uploads_by_key.as_ref().is_none_or(|limiter| limiter.check_key(uploader).is_ok())
    }

    /// Whether a client at this address may ask for one more blob that is not known here, for which the upstreams are asked.
    pub(super) fn admits_lookup(&self, address: IpAddr) -> bool {
        self.clean_up();
        self.lookups_by_address.as_ref().is_none_or(|limiter| limiter.check_key(&client_key(address)).is_ok())
    }

    /// Whether a client at this address may report once more: reports are kept.
    pub(super) fn admits_report(&self, address: IpAddr) -> bool {
        self.clean_up();
        self.reports_by_address.check_key(&client_key(address)).is_ok()
    }

    /// A place for one upload; it is kept until no upstream gets anything of it any more.
    pub(super) fn begin_upload(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.uploads).try_acquire_owned().ok()
    }

    /// Memory for an image of so many bytes, of which `held` has a part already. Whether there is enough.
    pub(super) fn grow_image(&self, held: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> bool {
        let has = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = bytes.div_ceil(MEDIA_PIECE_BYTES).saturating_sub(has);
        let Ok(more) = u32::try_from(more) else { return false };
        let Ok(permit) = Arc::clone(&self.media).try_acquire_many_owned(more) else { return false };
        match held {
            Some(held) => held.merge(permit),
            None => *held = Some(permit),
        }
        true
    }

    fn clean_up(&self) {
        if self.checks.fetch_add(1, Ordering::Relaxed).is_multiple_of(CLEANUP) {
            self.reports_by_address.retain_recent();
            if let Some(limiter) = &self.uploads_by_key {
                limiter.retain_recent();
            }
            if let Some(limiter) = &self.lookups_by_address {
                limiter.retain_recent();
            }
        }
    }
}
