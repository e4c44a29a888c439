//! Disk space: every writer checks it before it accepts a command.
//!
//! PostgreSQL panics and restarts when its WAL finds no space. So Quipu stops accepting commands while less
//! than a reserve is free, and resumes by itself when there is enough space again. The reserve serves the
//! commands that are already accepted, checkpoints, and the commands that free space.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use super::Error;
use super::labels::JOURNAL;
use super::shortage::{MIB, Shortage, resume_bytes};
use crate::telemetry::{Label, describe_metrics};

/// The default reserve, in bytes.
const RESERVE_BYTES: u64 = 512 * MIB;

/// The default reserve is at most this fraction of the file system: one eighth.
const RESERVE_PART: u64 = 8;

/// How long commands are refused after PostgreSQL has reported that it has no space. The next write after
/// that tries again.
const REPORTED_PAUSE: Duration = Duration::from_secs(10);

/// Why a command is refused, as in the metrics.
const NO_SPACE: &str = "no_space";

const REASON: Label = Label::listed("reason", &[&[NO_SPACE]]);

describe_metrics! { Process;
    FREE: Gauge = "quipu_store_space_free_bytes" [],
        "Free space on the file system of the database; 0 when Quipu cannot measure it";
    RESERVE: Gauge = "quipu_store_space_reserve_bytes" [],
        "Reserve on that file system: with less free space, no command is accepted";
    REFUSALS: Counter = "quipu_store_refusals_total" [JOURNAL, REASON],
        "Commands refused before they were queued";
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    journal: &'static str,
    reason: &'static str,
}

/// The state of the disk space. Clones share it. Commands are accepted until a measurement or a report finds
/// a shortage.
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
    refusals: Family<RefusalLabels, Counter>,
}

#[derive(Debug, Default)]
struct Found {
    shortage: Option<Arc<Shortage>>,
    /// When a reported shortage expires.
    until: Option<Instant>,
}

impl Space {
    /// A reserve in MiB: 512 by default, or an eighth of a file system below 4 GiB. With 0 commands are refused
    /// only for ten seconds after PostgreSQL reported a full disk.
    #[must_use]
    pub fn with_reserve(reserve_mb: Option<u32>) -> Self {
        let space = Self::default();
        if let Some(reserve_mb) = reserve_mb {
            // A new value: nothing else has set the reserve.
            let _ = space.0.reserve.set(u64::from(reserve_mb) * MIB);
        }
        space
    }

    /// Registers its metrics.
    pub fn register(&self, registry: &mut Registry) {
        FREE.register(registry, self.0.free.clone());
        RESERVE.register(registry, self.0.reserved.clone());
        REFUSALS.register(registry, self.0.refusals.clone());
    }

    /// Counts a refused command.
    pub(super) fn refused(&self, journal: &'static str, reason: &'static str) {
        self.0.refusals.get_or_create(&RefusalLabels { journal, reason }).inc();
    }

    /// Sets the folder whose file system [`Space::look`] measures: PostgreSQL's data on this machine.
    pub fn set_folder(&self, folder: PathBuf) {
        // Only the first call has an effect.
        let _ = self.0.folder.set(folder);
    }

    /// Measures the file system and returns the shortage, if any.
    #[must_use]
    pub fn look(&self) -> Option<Arc<Shortage>> {
        let mut found = self.found();
        if found.until.is_some_and(|until| until <= Instant::now()) {
            *found = Found::default();
        }
        if let (Some(folder), None) = (self.0.folder.get(), found.until)
            // While the size of the file system cannot be read, the last result stays.
            && let Ok(now) = statvfs(folder)
        {
            let free = now.blocks_available().saturating_mul(now.fragment_size());
            let all = now.blocks().saturating_mul(now.fragment_size());
            let reserve = *self.0.reserve.get_or_init(|| RESERVE_BYTES.min(all / RESERVE_PART));
            self.0.free.set(i64::try_from(free).unwrap_or(i64::MAX));
            self.0.reserved.set(i64::try_from(reserve).unwrap_or(i64::MAX));
            let least = if found.shortage.is_some() { resume_bytes(reserve) } else { reserve };
            let shortage =
                Shortage::Reserve { folder: folder.clone(), free_bytes: free, reserve_bytes: reserve };
            found.shortage = (free < least).then(|| Arc::new(shortage));
        }
        found.shortage.clone()
    }

    /// Free bytes above the reserve as the last [`Space::look`] measured them, negative below it; `None` if
    /// they cannot be measured.
    #[must_use]
    pub fn spare_bytes(&self) -> Option<i64> {
        let free = self.0.free.get();
        (free > 0).then(|| free.saturating_sub(self.0.reserved.get()))
    }

    /// Whether `journal` may accept a command.
    ///
    /// # Errors
    /// [`Error::NoSpace`].
    pub(super) fn check(&self, journal: &'static str) -> Result<(), Error> {
        let found = self.found();
        match &found.shortage {
            Some(shortage) if found.until.is_none_or(|until| until > Instant::now()) => {
                self.refused(journal, NO_SPACE);
                Err(Error::NoSpace(Arc::clone(shortage)))
            }
            _ => Ok(()),
        }
    }

    /// Refuses commands for a while if this answer says that PostgreSQL has no space.
    pub(super) fn observe<T>(&self, answer: Result<T, Error>) -> Result<T, Error> {
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
    fn a_reserve_larger_than_the_disk_refuses_commands_and_no_reserve_accepts_them() {
        let (closed, open) = (Space::with_reserve(Some(u32::MAX)), Space::with_reserve(Some(0)));
        for space in [&closed, &open] {
            assert!(space.check("journal").is_ok(), "not looked yet");
            assert_eq!(space.spare_bytes(), None);
            space.set_folder("/".into());
            let _ = space.look();
        }
        assert!(matches!(closed.check("journal"), Err(Error::NoSpace(_))));
        assert!(open.check("journal").is_ok());
        assert!(closed.spare_bytes() < Some(0) && open.spare_bytes() > Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_postgresql_reports_closes_the_gate_for_a_while() {
        let space = Space::default();
        let said = Arc::new(Shortage::Reported("could not extend file".to_owned()));
        assert!(space.observe::<()>(Err(Error::NoSpace(Arc::clone(&said)))).is_err());
        assert!(space.check("journal").is_err());
        assert_eq!(space.look(), Some(said));
        tokio::time::advance(REPORTED_PAUSE).await;
        assert!(space.check("journal").is_ok());
        assert_eq!(space.look(), None);
    }
}
