//! Checks sources in the bucket, and removes what broken uploads have left in the folder.
//!
//! A bucket checks a source itself when the uploader sends the checksum that its URL binds. What clients of the
//! original and multipart uploads bring is read once here, one object at a time, because a claim must not wait
//! for gigabytes; until then the claim says `source_verified: false`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::base::Clock;
use crate::config::JobFiles;
use crate::lifecycle::{CycleOutcome, Service};
use crate::net::objects::{ObjectError, Objects};
use crate::services::jobs::append::{FileJournal, UncheckedSource, unchecked_sources};
use crate::services::jobs::command::FileEntry;
use crate::services::jobs::decide::ObjectKey;
use crate::services::jobs::event::FileKind;
use crate::store::append::Writer;
use crate::store::lease::{Leases, LoopLease};
use crate::store::{Error, Pools};

/// Sources that one cycle looks for.
const SOURCES: i64 = 64;

/// Sources that cannot be read, after which a cycle ends: the bucket may be away.
const FAILURES_MAX: usize = 3;

/// Pause between two sweeps of the folder.
const SWEEP_EVERY: Duration = Duration::from_mins(10);

/// Time beyond that of an upload after which what it left is removed.
const SWEEP_MARGIN: Duration = Duration::from_mins(1);

/// Parts of the loop.
#[derive(Debug)]
pub struct FileChecksParts {
    /// The pools.
    pub pools: Pools,
    /// Leases of this process.
    pub leases: Leases,
    /// Where the files are.
    pub objects: Objects,
    /// Effective settings.
    pub settings: JobFiles,
    /// Writer of the journal of files.
    pub journal: Writer<FileJournal>,
    /// The clock, for the age of files.
    pub clock: Arc<dyn Clock>,
    /// Time in which a multipart upload has to be completed.
    pub multipart_time: Duration,
}

/// Why a cycle failed.
#[derive(Debug, thiserror::Error)]
pub enum FileChecksError {
    /// The database.
    #[error(transparent)]
    Store(#[from] Error),
    /// The storage.
    #[error(transparent)]
    Objects(#[from] ObjectError),
}

/// The loop of files.
#[derive(Debug)]
pub struct FileChecks {
    parts: FileChecksParts,
    lease: LoopLease,
    /// Position of the last source that was looked for; 0 for the oldest.
    after: AtomicI64,
    swept: Mutex<Option<Instant>>,
}

impl FileChecks {
    /// A loop that has not begun.
    #[must_use]
    pub fn new(parts: FileChecksParts) -> Self {
        let lease = LoopLease::new(parts.leases.clone(), "jobs/files");
        Self { parts, lease, after: AtomicI64::new(0), swept: Mutex::default() }
    }

    /// Removes what broken uploads have left in the folder. Every process sweeps: each can have a folder of its own.
    ///
    /// # Errors
    /// When the folder cannot be read or written.
    pub async fn sweep(&self) -> Result<(), FileChecksError> {
        let Objects::Folder(folder) = &self.parts.objects else { return Ok(()) };
        let mut swept = self.swept.lock().await;
        if swept.is_some_and(|swept| swept.elapsed() < SWEEP_EVERY) {
            return Ok(());
        }
        let upload = Duration::from_secs(self.parts.settings.upload_timeout_s.get().into());
        let age = upload + SWEEP_MARGIN;
        let now = SystemTime::from(self.parts.clock.now());
        let removed = folder.sweep(now, age, age + self.parts.multipart_time).await?;
        if removed > 0 {
            tracing::info!("{removed} unfinished uploads were removed");
        }
        *swept = Some(Instant::now());
        Ok(())
    }

    /// Looks for some of the sources whose upload to the bucket was allowed, and checks those that are there.
    async fn check_sources(&self, drain: &CancellationToken) -> Result<CycleOutcome, FileChecksError> {
        let after = self.after.load(Ordering::Relaxed);
        let lifetime_s = f64::from(self.parts.settings.url_lifetime_s.get());
        let sources = unchecked_sources(&self.parts.pools, after, lifetime_s, SOURCES).await?;
        let mut failures = Vec::new();
        for source in &sources {
            match drain.run_until_cancelled(self.check(source)).await {
                None => return Ok(CycleOutcome::Idle),
                Some(Ok(())) => {}
                Some(Err(error)) => failures.push(error),
            }
            // One that cannot be read must not keep the others from being checked.
            self.after.store(source.position, Ordering::Relaxed);
            if failures.len() >= FAILURES_MAX {
                break;
            }
        }
        if let Some(error) = failures.into_iter().next() {
            return Err(error);
        }
        if i64::try_from(sources.len()).is_ok_and(|found| found == SOURCES) {
            return Ok(CycleOutcome::More);
        }
        self.after.store(0, Ordering::Relaxed);
        Ok(CycleOutcome::Idle)
    }

    async fn check(&self, source: &UncheckedSource) -> Result<(), FileChecksError> {
        let objects = &self.parts.objects;
        let Ok(ObjectKey::Source(wanted)) = ObjectKey::parse("key", &source.key) else { return Ok(()) };
        let Some(facts) = objects.head(&source.key).await? else { return Ok(()) };
        let mut entry = FileEntry {
            id: Uuid::now_v7(),
            kind: FileKind::Verified,
            key: source.key.clone(),
            output_of: None,
            size: i64::try_from(facts.size).ok(),
            sha256: Some(wanted),
            is_bound: source.is_bound,
            etag: facts.etag,
            content_type: None,
            actor: "quipu".to_owned(),
            why: None,
        };
        let why = if facts.size > self.parts.settings.file_bytes_max.get() {
            Some(format!("{} bytes, at most {}", facts.size, self.parts.settings.file_bytes_max.get()))
        } else if source.is_bound {
            None
        } else {
            let Some(object) = objects.read(&source.key).await? else { return Ok(()) };
            let (mut hash, mut bytes) = (Sha256::new(), object.bytes);
            while let Some(piece) = bytes.next().await {
                hash.update(piece?);
            }
            // The version that was read.
            entry.etag = object.facts.etag;
            let sha256: [u8; 32] = hash.finalize().into();
            entry.sha256 = Some(sha256);
            (sha256 != wanted).then(|| "the content has another SHA-256 than its key".to_owned())
        };
        if let Some(why) = why {
            // Another content may have come meanwhile: the next cycle looks at it.
            let Some(present) = objects.head(&source.key).await? else { return Ok(()) };
            if present.etag.is_some() && entry.etag.is_some() && present.etag != entry.etag {
                return Ok(());
            }
            tracing::warn!(key = %source.key, "a source is refused and deleted: {why}");
            objects.delete(&source.key).await?;
            entry.kind = FileKind::Refused;
            entry.why = Some(why);
        }
        self.parts.journal.append(entry).await?;
        Ok(())
    }
}

impl Service for FileChecks {
    type Error = FileChecksError;

    fn name(&self) -> &'static str {
        "jobs files"
    }

    async fn cycle(&self, drain: &CancellationToken) -> Result<CycleOutcome, FileChecksError> {
        match self.parts.objects {
            Objects::Folder(_) => self.sweep().await.map(|()| CycleOutcome::Idle),
            Objects::Bucket(_) if !self.lease.is_held().await? => Ok(CycleOutcome::Idle),
            Objects::Bucket(_) => self.check_sources(drain).await,
        }
    }
}
