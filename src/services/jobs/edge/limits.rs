//! Limits of requests, each with its reason. Those of what is stored are in `decide`.

use std::num::NonZeroU32;

/// Jobs of one claim: more would keep other workers waiting for what one of them cannot finish within its lease.
pub(super) const CLAIM_JOBS_MAX: usize = 100;

/// Types of one claim: each is searched.
pub(super) const CLAIM_TYPES_MAX: usize = 16;

/// Registrations of one worker in a minute, the ends of its work included: each is an entry that is never deleted.
pub(super) const REGISTRATIONS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(60).expect("60 is not zero");

/// Jobs of one page, and how far a page may begin from the first job; all jobs are listed by number, with `before`.
pub(super) const PAGE_MAX: i32 = 100;
pub(super) const PAGE_DEFAULT: i32 = 50;
pub(super) const OFFSET_MAX: i32 = 10_000;

/// Jobs that one request changes: they are committed within the time of a request.
pub(super) const CHANGED_MAX: u16 = 1_000;

/// Changes of one such request that are on their way to the database at the same time.
pub(super) const CHANGES_AT_ONCE: usize = 256;

/// Time between the answer to a long poll and the end of the request's time, seconds.
pub(super) const LONG_POLL_MARGIN_S: u32 = 5;
