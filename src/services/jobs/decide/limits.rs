//! Limits of what is stored of jobs, workers, tokens and schedules, each with its reason. Those of a submission are in
//! `submission`, those of requests in `edge`.

/// The priority that is claimed first.
pub const PRIORITY_FIRST: i16 = 1;

/// The priority that is claimed last.
pub const PRIORITY_LAST: i16 = 5;

/// Number of priorities.
pub const PRIORITIES: usize = 5;

/// Priority of a job whose submitter names none.
pub const PRIORITY_DEFAULT: i16 = 3;

/// Longest id of a worker, name of a token or a schedule, bytes.
pub const NAME_BYTES_MAX: usize = 256;

/// Longest error and reason, bytes; a longer one is cut, because a worker that failed has no use for a
/// refusal.
pub const ERROR_BYTES_MAX: usize = 4_000;

/// Largest result and context as JSON, bytes: large results belong into objects.
pub const DETAIL_BYTES_MAX: usize = 262_144;

/// Largest progress as JSON, bytes: each lease may record one every few seconds, and no entry is ever deleted.
pub const PROGRESS_BYTES_MAX: usize = 16_384;

/// Largest metadata of a worker as JSON, bytes: all workers are listed together.
pub const WORKER_METADATA_BYTES_MAX: usize = 4_096;

/// Days until a token expires, at most: a hundred years.
pub const TOKEN_DAYS_MAX: i64 = 36_500;

/// `text` cut to [`ERROR_BYTES_MAX`], without NUL, which PostgreSQL cannot store.
#[must_use]
pub fn cut(text: &str) -> String {
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

    #[test]
    fn there_are_as_many_priorities_as_numbers_from_the_first_to_the_last() {
        assert_eq!((PRIORITY_FIRST..=PRIORITY_LAST).count(), PRIORITIES);
    }
}
