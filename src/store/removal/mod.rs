//! Removal from journals, which only the owner may do and which always leaves a record: erasure of single
//! facts, required by law, and retention, which drops whole months of events and whole partitions of jobs.

pub mod blobs;
pub mod jobs;
mod months;
mod preview;

use std::fmt;

use tokio_postgres::{Client, Transaction};

use super::{Error, Server};
use crate::base::{Secret, counted};

pub use months::{Month, PAST, drop_month, months_before};
pub use preview::{Preview, PreviewEvent, preview};

/// Every batch of events holds this lock shared and an erasure holds it exclusively, so no batch can store an
/// event while an erasure removes it.
const ERASURE_LOCK: &str =
    "-- lock_erasure\nSELECT pg_advisory_xact_lock(hashtextextended('quipu/erasure', 0))";

/// The events that an erasure removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErasureSubject {
    /// One Nostr event, by its id.
    Event([u8; 32]),
    /// Every event that a key signed up to a time (unix seconds, inclusive).
    Pubkey([u8; 32], i64),
    /// The events that a request to vanish covers (NIP-62). The key's requests to vanish stay, as evidence.
    Vanish {
        /// Id of the request.
        request: [u8; 32],
        /// The key that signed the request.
        pubkey: [u8; 32],
        /// The request's `created_at`: every event up to it is removed.
        until: i64,
    },
}

impl ErasureSubject {
    fn kind(&self) -> &'static str {
        match self {
            Self::Event(_) => "event",
            Self::Pubkey(..) => "pubkey",
            Self::Vanish { .. } => "vanish",
        }
    }

    /// The columns `event_id`, `pubkey`, `until` of `erasure`.
    fn columns(&self) -> (Option<&[u8]>, Option<&[u8]>, Option<i64>) {
        match self {
            Self::Event(id) => (Some(id), None, None),
            Self::Pubkey(pubkey, until) => (None, Some(pubkey), Some(*until)),
            Self::Vanish { request, pubkey, until } => (Some(request), Some(pubkey), Some(*until)),
        }
    }

    /// Selects the events to remove, as a condition over `e` with `event_id`, `pubkey`, `until` as `$1`,
    /// `$2`, `$3`.
    fn condition(&self) -> &'static str {
        match self {
            Self::Event(_) => "e.id = $1 AND $2::bytea IS NULL AND $3::bigint IS NULL",
            Self::Pubkey(..) => "$1::bytea IS NULL AND e.pubkey = $2 AND e.created_at <= $3",
            Self::Vanish { .. } => {
                "$1::bytea IS NOT NULL AND e.pubkey = $2 AND e.created_at <= $3 AND e.kind <> 62"
            }
        }
    }
}

/// Number of removed rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct RemovedRows {
    /// Rows of `events`.
    pub events: i64,
    /// Rows of `sightings`.
    pub sightings: i64,
}

impl fmt::Display for RemovedRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events = counted(self.events, "event", "events");
        let sightings = counted(self.sightings, "sighting", "sightings");
        write!(f, "{events} and {sightings}")
    }
}

/// The list of events to remove. It is analyzed after it is filled, so that the planner uses indexes in the
/// later statements.
const LEAVING: &str = "-- create_leaving\nCREATE TEMPORARY TABLE leaving (created_at bigint, id bytea, number bigint) ON COMMIT DROP";

/// A request to vanish that was carried out before is not recorded again.
const RECORD: &str = "-- record_erasure
    INSERT INTO erasure (kind, event_id, pubkey, until, reason, detail)
    VALUES ($1, $2, $3, $4, $5, quipu_erasure_detail($6, $7, $8))
    ON CONFLICT (event_id) WHERE kind = 'vanish' DO NOTHING";

/// Relays whose newest sighting is removed.
const RELAYS_TO_UPDATE: &str = "-- relays_to_update
    SELECT DISTINCT p.relay FROM leaving l JOIN sightings s ON s.event = l.number
    JOIN relay_progress p ON p.relay = s.relay WHERE l.created_at >= p.last_created_at";

/// The sightings to remove, and how many of them were learnt by comparing ids.
const LEAVING_SIGHTINGS: &str = "-- count_leaving_sightings\nSELECT count(*), count(s.compared) FROM sightings s JOIN leaving l ON s.event = l.number";

const DELETE_SIGHTINGS: &str =
    "-- delete_sightings\nDELETE FROM sightings s USING leaving l WHERE s.event = l.number";

/// Deletion and expiration requests are removed with the events that made them.
const DELETE_REQUESTS: &str = "-- delete_requests
    DELETE FROM expirations x USING leaving l WHERE x.event = l.number;
    DELETE FROM deletions d USING leaving l, events e, quipu_deletion_targets(e.pubkey, e.tags) t
    WHERE e.created_at = l.created_at AND e.id = l.id AND e.kind = 5 AND d.target = t.target AND d.request = l.number;";

const DELETE_EVENTS: &str = "-- delete_events\nDELETE FROM events e USING leaving l WHERE e.created_at = l.created_at AND e.id = l.id";

/// Updates the progress of relays whose newest sighting was removed: to the newest remaining sighting,
/// searched downwards from the old one, or to no progress at all.
const PROGRESS: &str = "-- update_progress
    WITH newest AS (
        SELECT p.relay, (SELECT e.created_at FROM events e
                         WHERE e.created_at <= p.last_created_at
                           AND EXISTS (SELECT FROM sightings s WHERE s.event = e.number AND s.relay = p.relay)
                         ORDER BY e.created_at DESC LIMIT 1) AS last
        FROM relay_progress p WHERE p.relay = ANY ($1)),
    gone AS (DELETE FROM relay_progress p USING newest n WHERE n.relay = p.relay AND n.last IS NULL)
    UPDATE relay_progress p SET last_created_at = n.last FROM newest n
    WHERE n.relay = p.relay AND n.last IS NOT NULL AND p.last_created_at <> n.last";

/// Erases events and leaves a tombstone that keeps them from being stored again. `reason` is recorded and
/// must not be empty. A request to vanish that was carried out before changes nothing.
///
/// # Errors
/// As PostgreSQL answers; [`Error::Inconsistent`] when the number of removed rows differs from the number
/// counted before. Nothing is erased then.
pub async fn erase(owner: &Secret, subject: ErasureSubject, reason: &str) -> Result<RemovedRows, Error> {
    let server = Server::parse(owner)?;
    erase_on(&server, subject, reason).await.map_err(|error| error.during("erase", server.target()))
}

async fn erase_on(server: &Server, subject: ErasureSubject, reason: &str) -> Result<RemovedRows, Error> {
    let mut client = server.connect().await?;
    let transaction = client.transaction().await?;
    transaction.batch_execute(ERASURE_LOCK).await?;
    list_events(&transaction, subject).await?;
    let (left, compared) = count_listed(&transaction).await?;
    let (event_id, pubkey, until) = subject.columns();
    let recorded = transaction
        .execute(
            RECORD,
            &[&subject.kind(), &event_id, &pubkey, &until, &reason, &left.events, &left.sightings, &compared],
        )
        .await?;
    if recorded == 0 {
        return Ok(RemovedRows::default());
    }
    let relays = transaction.query(RELAYS_TO_UPDATE, &[]).await?;
    let sightings = transaction.execute(DELETE_SIGHTINGS, &[]).await?;
    transaction.batch_execute(DELETE_REQUESTS).await?;
    let events = transaction.execute(DELETE_EVENTS, &[]).await?;
    if i64::try_from(events).ok() != Some(left.events)
        || i64::try_from(sightings).ok() != Some(left.sightings)
    {
        return Err(Error::inconsistent(
            "erasure",
            "the number of removed rows differs from the number counted before; nothing was erased",
        ));
    }
    let relays: Vec<i32> = relays.iter().map(|row| row.get(0)).collect();
    transaction.execute(PROGRESS, &[&relays]).await?;
    transaction.commit().await?;
    Ok(left)
}

async fn list_events(transaction: &Transaction<'_>, subject: ErasureSubject) -> Result<(), Error> {
    transaction.batch_execute(LEAVING).await?;
    let (event_id, pubkey, until) = subject.columns();
    let fill = format!(
        "-- list_leaving\nINSERT INTO leaving SELECT e.created_at, e.id, e.number FROM events e WHERE {}",
        subject.condition()
    );
    transaction.execute(&fill, &[&event_id, &pubkey, &until]).await?;
    Ok(transaction.batch_execute("-- analyze_leaving\nANALYZE leaving").await?)
}

/// Counts the listed events and their sightings, and how many of these sightings were learnt by comparison.
async fn count_listed(transaction: &Transaction<'_>) -> Result<(RemovedRows, i64), Error> {
    let events = transaction.query_one("-- count_leaving\nSELECT count(*) FROM leaving", &[]).await?.get(0);
    let sightings = transaction.query_one(LEAVING_SIGHTINGS, &[]).await?;
    Ok((RemovedRows { events, sightings: sightings.get(0) }, sightings.get(1)))
}

/// Detaches a partition without blocking its parent, or finishes a detach that a crash interrupted.
async fn detach(client: &Client, family: &str, partition: &str) -> Result<(), Error> {
    let row = client
        .query_opt(
            "-- is_detach_pending\nSELECT inhdetachpending FROM pg_inherits WHERE inhrelid = to_regclass($1) AND inhparent = $2::text::regclass",
            &[&partition, &family],
        )
        .await?;
    let how = match row.map(|row| row.get::<_, bool>(0)) {
        Some(false) => "CONCURRENTLY",
        Some(true) => "FINALIZE",
        None => return Ok(()),
    };
    Ok(client
        .batch_execute(&format!(
            "-- detach_partition\nALTER TABLE {family} DETACH PARTITION {partition} {how}"
        ))
        .await?)
}
