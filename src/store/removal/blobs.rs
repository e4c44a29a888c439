//! Erasure of one blob: everything that the journals say about it. It stays banned.

use std::fmt;

use tokio_postgres::{Client, GenericClient};

use crate::base::{Secret, Sha256, counted};
use crate::store::{Error, owner};

/// Number of removed rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct RemovedBlob {
    /// Rows of `blobs` and `blob_log`.
    pub entries: i64,
    /// Rows of `blob_reports`.
    pub reports: i64,
    /// Rows of `blob_wanted`.
    pub references: i64,
}

impl fmt::Display for RemovedBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = counted(self.entries, "entry", "entries");
        let reports = counted(self.reports, "report", "reports");
        let references = counted(self.references, "reference", "references");
        write!(f, "{entries}, {reports} and {references}")
    }
}

/// A blob that can be erased. It need not be known: its hash is banned for good in any case.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BlobPreview {
    /// Its hash.
    pub sha256: Sha256,
    /// The number of its rows.
    #[serde(flatten)]
    pub holds: RemovedBlob,
    /// Keys that own it.
    pub owners: i64,
    /// Upstreams that may have a copy.
    pub places: Vec<String>,
}

/// Batches about a blob hold the first lock. Reports and references are inserted without it; after the second one every
/// further row of them sees the ban.
const LOCK: &str = "-- lock_blob
    SELECT set_config('lock_timeout', '10s', true), pg_advisory_xact_lock(hashtextextended('quipu/blob/' || encode($1, 'hex'), 0))";

const LOCK_TABLES: &str =
    "-- lock_reports_and_references\nLOCK TABLE blob_reports, blob_wanted IN SHARE ROW EXCLUSIVE MODE";

const COUNT: &str = "-- count_entries_of_blob
    SELECT (SELECT count(*) FROM blobs b WHERE b.sha256 = $1) + (SELECT count(*) FROM blob_log l WHERE l.sha256 = $1),
           (SELECT count(*) FROM blob_reports r WHERE r.sha256 = $1), (SELECT count(*) FROM blob_wanted w WHERE w.sha256 = $1),
           (SELECT count(*) FROM blob_owners o WHERE o.sha256 = $1),
           ARRAY(SELECT r.upstream FROM blob_replicas r WHERE r.sha256 = $1 AND r.state <> 'deleted' ORDER BY r.upstream)";

const RECORD: &str = "-- record_erasure_of_blob
    INSERT INTO erasure (kind, sha256, reason, detail)
    VALUES ('blob', $1, $2, jsonb_build_object('entries', $3::bigint, 'reports', $4::bigint, 'references', $5::bigint))
    ON CONFLICT (sha256) WHERE kind = 'blob' DO NOTHING";

const LEAVE: &str = "-- remove_blob_from_projections
    WITH owned AS (DELETE FROM blob_owners o WHERE o.sha256 = $1 RETURNING o.owner),
    copies AS (DELETE FROM blob_copies c WHERE c.sha256 = $1),
    replicas AS (DELETE FROM blob_replicas r WHERE r.sha256 = $1),
    used AS (
        UPDATE blob_usage u SET blobs = u.blobs - 1, bytes = u.bytes - b.size FROM owned o, blobs b
        WHERE u.owner = o.owner AND b.sha256 = $1)
    INSERT INTO blob_bans (sha256, why, since, is_erased)
    SELECT x.sha256, 'erased', x.recorded_at, true FROM erasure x WHERE x.kind = 'blob' AND x.sha256 = $1
    ON CONFLICT (sha256) DO UPDATE SET why = excluded.why, since = excluded.since, is_erased = true";

const DELETE_USAGE: &str = "-- delete_empty_blob_usage\nDELETE FROM blob_usage u WHERE u.blobs = 0";

const DELETE_LOG: &str = "-- delete_entries_of_blob\nDELETE FROM blob_log l WHERE l.sha256 = $1";

const DELETE_BLOB: &str = "-- delete_blob\nDELETE FROM blobs b WHERE b.sha256 = $1";

const DELETE_REPORTS: &str = "-- delete_reports_of_blob\nDELETE FROM blob_reports r WHERE r.sha256 = $1";

const DELETE_REFERENCES: &str = "-- delete_references_to_blob\nDELETE FROM blob_wanted w WHERE w.sha256 = $1";

/// What [`erase_blob`] would remove now.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn preview_blob(owner: &Secret, sha256: &Sha256) -> Result<BlobPreview, Error> {
    count(&owner::connect(owner).await?, sha256).await
}

/// Removes everything about a blob, and bans it for good. Returns what left. The copies at its upstreams stay. A blob
/// that was erased before changes nothing.
///
/// # Errors
/// As PostgreSQL answers, such as for an empty reason; [`Error::Inconsistent`] when the number of removed rows differs
/// from the number counted before. Nothing is erased then.
pub async fn erase_blob(owner: &Secret, sha256: &Sha256, reason: &str) -> Result<BlobPreview, Error> {
    let mut client: Client = owner::connect(owner).await?;
    let transaction = client.transaction().await?;
    let hash = sha256.as_bytes().as_slice();
    transaction.query_one(LOCK, &[&hash]).await?;
    transaction.batch_execute(LOCK_TABLES).await?;
    let leaving = count(&transaction, sha256).await?;
    let RemovedBlob { entries, reports, references } = leaving.holds;
    let recorded = transaction.execute(RECORD, &[&hash, &reason, &entries, &reports, &references]).await?;
    if recorded == 0 {
        return Ok(leaving);
    }
    transaction.execute(LEAVE, &[&hash]).await?;
    transaction.execute(DELETE_USAGE, &[]).await?;
    let mut gone = transaction.execute(DELETE_LOG, &[&hash]).await?;
    gone += transaction.execute(DELETE_BLOB, &[&hash]).await?;
    gone += transaction.execute(DELETE_REPORTS, &[&hash]).await?;
    gone += transaction.execute(DELETE_REFERENCES, &[&hash]).await?;
    if i64::try_from(gone).ok() != Some(entries + reports + references) {
        return Err(Error::inconsistent(
            "erasure",
            "the number of removed rows differs from the number counted before; nothing was erased",
        ));
    }
    transaction.commit().await?;
    Ok(leaving)
}

async fn count(client: &impl GenericClient, sha256: &Sha256) -> Result<BlobPreview, Error> {
    let row = client.query_one(COUNT, &[&sha256.as_bytes().as_slice()]).await?;
    let holds = RemovedBlob { entries: row.get(0), reports: row.get(1), references: row.get(2) };
    Ok(BlobPreview { sha256: *sha256, holds, owners: row.get(3), places: row.get(4) })
}
