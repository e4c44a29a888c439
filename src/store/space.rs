//! Space on the disk: one gate that every writer asks before it accepts anything.
//!
//! PostgreSQL panics when its log finds no space, and restarts. So Quipu stops accepting while a reserve is left, and
//! goes on by itself when there is more than that again. The reserve is for what is accepted already, for
//! checkpoints, and for the commands that make room.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;

use super::Error;

const MIB: u64 = 1024 * 1024;

/// The default reserve, in bytes.
const RESERVE_BYTES: u64 = 512 * MIB;

/// The default reserve is at most this part of the file system: one eighth.
const RESERVE_PART: u64 = 8;

/// How long nothing is accepted after PostgreSQL has reported that it has no space. Then the next write tries again.
const REPORTED_PAUSE: Duration = Duration::from_secs(10);

/// What is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// Less than the reserve is free where PostgreSQL keeps its data.
    #[error(
        "{} MiB are free on the file system of {}, and {} MiB are kept in reserve (`database.reserve_mb`); free {} MiB \
         there, then writing goes on by itself",
        free_bytes / MIB, folder.display(), reserve_bytes / MIB, needed(*free_bytes, *reserve_bytes).div_ceil(MIB)
    )]
    Reserve {
        /// The folder of the data.
        folder: PathBuf,
        /// What is free, in bytes.
        free_bytes: u64,
        /// What is kept in reserve, in bytes.
        reserve_bytes: u64,
    },
    /// PostgreSQL had no space for what was to be written (SQLSTATE 53100).
    #[error("PostgreSQL says: {0}; free space for it, then writing goes on by itself")]
    Reported(String),
}

/// What must be free for writing to go on after it has stopped: a quarter more than the reserve, so that it does not stop again at once.
fn enough(reserve_bytes: u64) -> u64 {
    reserve_bytes.saturating_add(reserve_bytes / 4)
}

fn needed(free_bytes: u64, reserve_bytes: u64) -> u64 {
    enough(reserve_bytes).saturating_sub(free_bytes)
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refusal {
    journal: &'static str,
    reason: &'static str,
}

/// The gate. Clones are the same one; it is open until a look or a report finds a shortage.
#[derive(Debug, Clone, Default)]
pub struct Space(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    folder: OnceLock<PathBuf>,
    /// In bytes; the default depends on the file system.
    reserve: OnceLock<u64>,
    found: Mutex<Found>,
    free: Gauge,
    reserved: Gauge,
    refusals: Family<Refusal, Counter>,
}

#[derive(Debug, Default)]
struct Found {
    shortage: Option<Arc<Shortage>>,
    /// When a reported shortage counts as over.
    until: Option<Instant>,
}

impl Space {
    /// A gate with a reserve in MiB: 512 by default, or an eighth of a file system below 4 GiB. 0 never closes it.
    #[must_use]
    pub fn with_reserve(reserve_mb: Option<u32>) -> Self {
        let space = Self::default();
        if let Some(reserve_mb) = reserve_mb {
            // It is new: nothing else has set it.
            let _ = space.0.reserve.set(u64::from(reserve_mb) * MIB);
        }
        space
    }

    /// Registers its metrics.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("store");
        let help = "Free on the file system of the database; 0 when Quipu does not see it";
        registry.register_with_unit("space_free", help, Unit::Bytes, self.0.free.clone());
        let help = "Kept in reserve there: with less, nothing is accepted";
        registry.register_with_unit("space_reserve", help, Unit::Bytes, self.0.reserved.clone());
        registry.register(
            "refusals",
            "Commands that were not accepted, by journal and reason",
            self.0.refusals.clone(),
        );
    }

    /// Names the folder whose file system [`Space::look`] looks at: PostgreSQL's data on this machine.
    pub fn is_at(&self, folder: PathBuf) {
        // The first name stays.
        let _ = self.0.folder.set(folder);
    }

    /// Looks at the file system, and returns what is missing.
    #[must_use]
    pub fn look(&self) -> Option<Arc<Shortage>> {
        let mut found = self.found();
        if found.until.is_some_and(|until| until <= Instant::now()) {
            *found = Found::default();
        }
        if let (Some(folder), None) = (self.0.folder.get(), found.until)
            // A file system that does not answer has no shortage that could be named.
            && let Ok(now) = statvfs(folder)
        {
            let free = now.blocks_available().saturating_mul(now.fragment_size());
            let all = now.blocks().saturating_mul(now.fragment_size());
            let reserve = *self.0.reserve.get_or_init(|| RESERVE_BYTES.min(all / RESERVE_PART));
            self.0.free.set(i64::try_from(free).unwrap_or(i64::MAX));
            self.0.reserved.set(i64::try_from(reserve).unwrap_or(i64::MAX));
            let least = if found.shortage.is_some() { enough(reserve) } else { reserve };
            let shortage =
                Shortage::Reserve { folder: folder.clone(), free_bytes: free, reserve_bytes: reserve };
            found.shortage = (free < least).then(|| Arc::new(shortage));
        }
        found.shortage.clone()
    }

    /// Whether something may be accepted for `journal`.
    ///
    /// # Errors
    /// [`Error::NoSpace`].
    pub(super) fn check(&self, journal: &'static str) -> Result<(), Error> {
        let found = self.found();
        match &found.shortage {
            Some(shortage) if found.until.is_none_or(|until| until > Instant::now()) => {
                self.0.refusals.get_or_create(&Refusal { journal, reason: "no_space" }).inc();
                Err(Error::NoSpace(Arc::clone(shortage)))
            }
            _ => Ok(()),
        }
    }

    /// Closes the gate for a while when this is how PostgreSQL says that it has no space.
    pub(super) fn learn<T>(&self, answer: Result<T, Error>) -> Result<T, Error> {
        if let Err(Error::NoSpace(shortage)) = &answer {
            let mut found = self.found();
            if found.shortage.is_none() {
                let until = Some(Instant::now() + REPORTED_PAUSE);
                *found = Found { shortage: Some(Arc::clone(shortage)), until };
            }
        }
        answer
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.0.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_says_where_how_much_is_free_and_how_much_is_needed() {
        let shortage =
            Shortage::Reserve { folder: "/data".into(), free_bytes: 10 * MIB, reserve_bytes: 40 * MIB };
        let said = "10 MiB are free on the file system of /data, and 40 MiB are kept in reserve (`database.reserve_mb`); \
                    free 40 MiB there, then writing goes on by itself";
        assert_eq!(shortage.to_string(), said);
    }

    #[test]
    fn a_reserve_larger_than_the_disk_closes_the_gate_and_none_keeps_it_open() {
        let (closed, open) = (Space::with_reserve(Some(u32::MAX)), Space::with_reserve(Some(0)));
        for space in [&closed, &open] {
            assert!(space.check("journal").is_ok(), "not looked yet");
            space.is_at("/".into());
            let _ = space.look();
        }
        assert!(matches!(closed.check("journal"), Err(Error::NoSpace(_))));
        assert!(open.check("journal").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_postgresql_reports_closes_the_gate_for_a_while() {
        let space = Space::default();
        let said = Arc::new(Shortage::Reported("could not extend file".to_owned()));
        assert!(space.learn::<()>(Err(Error::NoSpace(Arc::clone(&said)))).is_err());
        assert!(space.check("journal").is_err());
        assert_eq!(space.look(), Some(said));
        tokio::time::advance(REPORTED_PAUSE).await;
        assert!(space.check("journal").is_ok());
        assert_eq!(space.look(), None);
    }
}
