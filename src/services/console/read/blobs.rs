//! What the page of blobs shows besides figures: the newest uploads, what went wrong with copies, and how upstreams fared hour
//! by hour. All of it is read from the newest entries of `blob_log`, so that its cost does not grow with the journal.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgPool};

use crate::store::Error;
use crate::store::figures::bounded;

/// Entries of `blob_log` that are looked at, from the newest on.
const ENTRIES_READ: i64 = 20_000;

/// Rows of each list.
const LISTED: i64 = 12;

/// Hours that the history covers.
pub(in super::super) const HOURS: usize = 24;

/// What the newest entries of `blob_log` say.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in super::super) struct BlobNews {
    pub(in super::super) uploads: Vec<Upload>,
    pub(in super::super) troubles: Vec<Trouble>,
    pub(in super::super) hours: Vec<Hour>,
    /// Copies that repair made in the last hour.
    pub(in super::super) repaired: i64,
}

/// A blob that has a new owner.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub(in super::super) struct Upload {
    pub(in super::super) at: DateTime<Utc>,
    pub(in super::super) hash: String,
    /// `uploaded`, `mirrored` or `adopted`.
    pub(in super::super) kind: String,
    /// Public key in hexadecimal digits.
    pub(in super::super) owner: String,
    pub(in super::super) size: i64,
    pub(in super::super) media_type: String,
    /// Readable or accepted copies now.
    pub(in super::super) copies: i32,
}

/// A copy that failed, was lost or was not deleted, or a blob that was found nowhere.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub(in super::super) struct Trouble {
    pub(in super::super) at: DateTime<Utc>,
    pub(in super::super) hash: String,
    pub(in super::super) kind: String,
    pub(in super::super) upstream: Option<String>,
    pub(in super::super) why: Option<String>,
}

/// What happened at one upstream within one hour.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub(in super::super) struct Hour {
    pub(in super::super) upstream: String,
    /// Whole hours before now, below [`HOURS`].
    pub(in super::super) ago: i32,
    /// Entries about copies that were taken, read or deleted as asked.
    pub(in super::super) good: i64,
    /// Entries about copies that failed, were lost, or were not deleted.
    pub(in super::super) bad: i64,
}

pub(in super::super) async fn blob_news(pool: &PgPool) -> Result<BlobNews, Error> {
    let mut moment = bounded(pool).await?;
    let uploads = sqlx::query_as::<_, Upload>(
        "-- console_blob_uploads
           SELECT l.recorded_at AS at, encode(l.sha256, 'hex') AS hash, l.kind, encode(l.owner, 'hex') AS owner, b.size,
                  b.type AS media_type, coalesce(c.copies, 0) AS copies
           FROM (SELECT n.position, n.recorded_at, n.sha256, n.kind, n.owner
                 FROM (SELECT * FROM blob_log ORDER BY position DESC LIMIT $1) n
                 WHERE n.kind IN ('uploaded', 'mirrored', 'adopted') ORDER BY n.position DESC LIMIT $2) l
           JOIN blobs b ON b.sha256 = l.sha256 LEFT JOIN blob_copies c ON c.sha256 = l.sha256
           ORDER BY l.position DESC",
    )
    .bind(ENTRIES_READ)
    .bind(LISTED)
    .fetch_all(&mut *moment)
    .await?;
    let troubles = sqlx::query_as::<_, Trouble>(
        "-- console_blob_troubles
           SELECT n.recorded_at AS at, encode(n.sha256, 'hex') AS hash, n.kind, n.upstream, n.why
           FROM (SELECT * FROM blob_log ORDER BY position DESC LIMIT $1) n
           WHERE n.kind IN ('failed', 'lost', 'not_deleted', 'missed') ORDER BY n.position DESC LIMIT $2",
    )
    .bind(ENTRIES_READ)
    .bind(LISTED)
    .fetch_all(&mut *moment)
    .await?;
    let hours = sqlx::query_as::<_, Hour>(
        "-- console_blob_hours
           SELECT n.upstream, floor(extract(epoch FROM now() - n.recorded_at) / 3600)::integer AS ago,
                  count(*) FILTER (WHERE n.kind IN ('accepted', 'readable', 'proven', 'deleted')) AS good,
                  count(*) FILTER (WHERE n.kind IN ('failed', 'lost', 'not_deleted')) AS bad
           FROM (SELECT * FROM blob_log ORDER BY position DESC LIMIT $1) n
           WHERE n.upstream IS NOT NULL AND n.recorded_at > now() - make_interval(hours => $2) AND n.recorded_at <= now()
           GROUP BY 1, 2",
    )
    .bind(ENTRIES_READ)
    .bind(i32::try_from(HOURS).unwrap_or(i32::MAX))
    .fetch_all(&mut *moment)
    .await?;
    let (repaired,) = sqlx::query_as::<_, (i64,)>(
        "-- console_blob_repairs
           SELECT count(*) FROM (SELECT * FROM blob_log ORDER BY position DESC LIMIT $1) n
           WHERE n.kind = 'accepted' AND n.actor = 'quipu' AND n.recorded_at > now() - interval '1 hour'",
    )
    .bind(ENTRIES_READ)
    .fetch_one(&mut *moment)
    .await?;
    moment.commit().await?;
    Ok(BlobNews { uploads, troubles, hours, repaired })
}
