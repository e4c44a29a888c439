//! Why no commands are accepted: the disk of PostgreSQL is full, or nearly so.

use std::path::PathBuf;

pub(super) const MIB: u64 = 1024 * 1024;

/// Why no commands are accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// Less than the reserve is free where PostgreSQL keeps its data.
    #[error(
        "{} MiB are free on the file system of {}, and {} MiB are kept in reserve (`database.reserve_mb`); free {} MiB \
         there, then writing resumes by itself",
        free_bytes / MIB, folder.display(), reserve_bytes / MIB, needed(*free_bytes, *reserve_bytes).div_ceil(MIB)
    )]
    Reserve {
        /// PostgreSQL's data folder.
        folder: PathBuf,
        /// Free space, in bytes.
        free_bytes: u64,
        /// The reserve, in bytes.
        reserve_bytes: u64,
    },
    /// PostgreSQL found no space for a write (SQLSTATE 53100).
    #[error("PostgreSQL reports: {0}; free space for it, then writing resumes by itself")]
    Reported(String),
}

/// Free space needed to resume: a quarter more than the reserve, so that writing does not stop again at once.
pub(super) fn resume_bytes(reserve_bytes: u64) -> u64 {
    reserve_bytes.saturating_add(reserve_bytes / 4)
}

fn needed(free_bytes: u64, reserve_bytes: u64) -> u64 {
    resume_bytes(reserve_bytes).saturating_sub(free_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_says_where_how_much_is_free_and_how_much_is_needed() {
        let shortage =
            Shortage::Reserve { folder: "/data".into(), free_bytes: 10 * MIB, reserve_bytes: 40 * MIB };
        let said = "10 MiB are free on the file system of /data, and 40 MiB are kept in reserve (`database.reserve_mb`); \
                    free 40 MiB there, then writing resumes by itself";
        assert_eq!(shortage.to_string(), said);
    }
}
