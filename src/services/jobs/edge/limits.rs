//! Limits of requests, each with its reason.

use std::num::NonZeroU32;

/// Jobs of one claim: more would keep other workers waiting for what one of them cannot finish within its lease.
pub(super) const CLAIM_JOBS_MAX: usize = 100;

/// Types of one claim: each is searched.
pub(super) const CLAIM_TYPES_MAX: usize = 16;

/// Length of a lease that a worker can ask for, seconds: below, its heartbeats could not keep it; above, a
/// crashed worker would keep its job for more than a day.
pub(super) const LEASE_S_MIN: i64 = 10;
pub(super) const LEASE_S_MAX: i64 = 86_400;

/// Longest id of a worker, name of a token or a schedule, bytes.
pub(super) const NAME_BYTES_MAX: usize = 256;

/// Longest error and reason, bytes; a longer one is cut, because a worker that failed has no use for a
/// refusal.
pub(super) const ERROR_BYTES_MAX: usize = 4_000;

/// Largest result and context as JSON, bytes: large results belong into objects.
pub(super) const DETAIL_BYTES_MAX: usize = 262_144;

/// Largest progress as JSON, bytes: each lease may record one every few seconds, and no entry is ever deleted.
pub(super) const PROGRESS_BYTES_MAX: usize = 16_384;

/// Largest metadata of a worker as JSON, bytes: all workers are listed together.
pub(super) const WORKER_METADATA_BYTES_MAX: usize = 4_096;

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

/// Days until a token expires, at most.
pub(super) const TOKEN_DAYS_MAX: i64 = 36_500;

/// `text` cut to [`ERROR_BYTES_MAX`], without NUL, which PostgreSQL cannot store.
pub(super) fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(ERROR_BYTES_MAX);
    text[..end].replace('\0', "\u{2400}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_cut_between_characters_and_has_no_nul() {
        assert_eq!(cut("a\0b"), "a\u{2400}b");
        let long = "é".repeat(3_000);
        assert_eq!(cut(&long).len(), 4_000);
        assert_eq!(cut(&format!("x{long}")).len(), 3_999);
    }
}
