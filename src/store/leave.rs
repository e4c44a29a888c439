//! The two ways out of a journal, both the owner's and both leaving a record: lawful erasure of single facts, and
//! retention of whole months.

use chrono::NaiveDate;
use tokio_postgres::{Client, Transaction};

use super::Error;
use super::owner;
use crate::base::Secret;

/// Held shared by every batch of events, alone by an erasure: what is removed cannot slip in beside it.
const ERASURE_LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended('quipu/erasure', 0))";

/// What is to be erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErasureSubject {
    /// One Nostr event, by its id.
    Event([u8; 32]),
    /// Everything a key signed up to a time (unix seconds, inclusive).
    Pubkey([u8; 32], i64),
}

/// How many rows left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Left {
    /// Rows of `events`.
    pub events: i64,
    /// Rows of `sightings`.
    pub sightings: i64,
}

const SIGHTINGS_OF: &str = "
    FROM sightings s USING events e WHERE s.event = e.number AND ";

/// Progress of relays whose newest sighting left: the newest that remains, or nothing.
const PROGRESS: &str = "
    WITH newest AS (
        SELECT r.relay, (SELECT e.created_at FROM events e WHERE EXISTS (
                            SELECT FROM sightings s WHERE s.event = e.number AND s.relay = r.relay) ORDER BY e.created_at DESC LIMIT 1) AS last
        FROM unnest($1::integer[]) AS r (relay)),
    gone AS (DELETE FROM relay_progress p USING newest n WHERE n.relay = p.relay AND n.last IS NULL)
    UPDATE relay_progress p SET last_created_at = n.last FROM newest n
    WHERE n.relay = p.relay AND n.last IS NOT NULL AND p.last_created_at <> n.last";

/// Erases, leaving a tombstone that keeps the facts from coming back. `reason` is recorded; it must not be empty.
pub async fn erase(owner: &Secret, subject: ErasureSubject, reason: &str) -> Result<Left, Error> {
    let mut client = owner::connect(owner).await?;
    let transaction = client.transaction().await?;
    transaction.batch_execute(ERASURE_LOCK).await?;
    let (condition, kind) = match subject {
        ErasureSubject::Event(_) => ("e.id = $1 AND $2::bigint IS NULL", "event"),
        ErasureSubject::Pubkey(..) => ("e.pubkey = $1 AND e.created_at <= $2::bigint", "pubkey"),
    };
    let (key, until) = match subject {
        ErasureSubject::Event(id) => (id.to_vec(), None),
        ErasureSubject::Pubkey(pubkey, until) => (pubkey.to_vec(), Some(until)),
    };
    let count = format!(
        "SELECT count(*), coalesce(sum((SELECT count(*) FROM sightings s WHERE s.event = e.number)), 0)::bigint
         FROM events e WHERE {condition}"
    );
    let row = transaction.query_one(&count, &[&key, &until]).await?;
    let left = Left { events: row.get(0), sightings: row.get(1) };
    transaction
        .execute(
            "INSERT INTO erasure (kind, event_id, pubkey, until, reason, detail)
             VALUES ($1, CASE WHEN $1 = 'event' THEN $2::bytea END, CASE WHEN $1 = 'pubkey' THEN $2::bytea END, $3, $4,
                     jsonb_build_object('events', $5::bigint, 'sightings', $6::bigint))",
            &[&kind, &key, &until, &reason, &left.events, &left.sightings],
        )
        .await?;
    let relays = transaction
        .query(&format!("DELETE {SIGHTINGS_OF} {condition} RETURNING s.relay"), &[&key, &until])
        .await?;
    let events =
        transaction.execute(&format!("DELETE FROM events e WHERE {condition}"), &[&key, &until]).await?;
    if i64::try_from(events).ok() != Some(left.events)
        || i64::try_from(relays.len()).ok() != Some(left.sightings)
    {
        return Err(Error::inconsistent("erasure", "other rows left than were counted; nothing was erased"));
    }
    let mut relays: Vec<i32> = relays.iter().map(|row| row.get(0)).collect();
    relays.sort_unstable();
    relays.dedup();
    transaction.execute(PROGRESS, &[&relays]).await?;
    transaction.commit().await?;
    Ok(left)
}

/// One month that retention may drop.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Month {
    /// Its first day.
    pub month: NaiveDate,
    /// What it holds.
    pub holds: Left,
}

/// Months that lie wholly before `before` and hold something.
pub async fn months_before(owner: &Secret, before: NaiveDate) -> Result<Vec<Month>, Error> {
    let client = owner::connect(owner).await?;
    let rows = client
        .query(
            "SELECT m.month FROM (
                SELECT to_date(substring(c.relname FROM '^events_y(\\d{4}m\\d{2})$'), 'YYYY\"m\"MM') AS month
                FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relname ~ '^events_y\\d{4}m\\d{2}$') m
             WHERE (m.month + interval '1 month')::date <= $1 ORDER BY 1",
            &[&before],
        )
        .await?;
    let mut months = Vec::new();
    for row in &rows {
        let month: NaiveDate = row.get(0);
        let holds = count(&client, month).await?;
        if holds != Left::default() {
            months.push(Month { month, holds });
        }
    }
    Ok(months)
}

async fn count(client: &impl tokio_postgres::GenericClient, month: NaiveDate) -> Result<Left, Error> {
    let suffix = month.format("y%Ym%m");
    let sql =
        format!("SELECT (SELECT count(*) FROM events_{suffix}), (SELECT count(*) FROM sightings_{suffix})");
    let row = client.query_one(&sql, &[]).await?;
    Ok(Left { events: row.get(0), sightings: row.get(1) })
}

/// Drops one month of events and sightings, and records it. Readers and writers go on: the tombstone stands first, so that
/// nothing is sent into the month while it has no partition; the partitions are detached concurrently, events before
/// the sightings that lead to them; and an empty one takes their place. May be called again after a crash.
pub async fn drop_month(owner: &Secret, month: NaiveDate, reason: &str) -> Result<Left, Error> {
    let mut client = owner::connect(owner).await?;
    let suffix = month.format("y%Ym%m").to_string();
    let announcement = client.transaction().await?;
    announcement.batch_execute(ERASURE_LOCK).await?;
    record_month(&announcement, month, reason, Left::default()).await?;
    announcement.commit().await?;
    for family in ["events", "sightings"] {
        detach(&client, family, &format!("{family}_{suffix}")).await?;
    }
    let transaction = client.transaction().await?;
    transaction.batch_execute(ERASURE_LOCK).await?;
    let left = count(&transaction, month).await?;
    record_month(&transaction, month, reason, left).await?;
    let relays = transaction.query(&format!("SELECT DISTINCT relay FROM sightings_{suffix}"), &[]).await?;
    let relays: Vec<i32> = relays.iter().map(|row| row.get(0)).collect();
    let next = month.checked_add_months(chrono::Months::new(1)).unwrap_or(month);
    transaction.batch_execute(&format!("DROP TABLE events_{suffix}, sightings_{suffix}")).await?;
    transaction.execute("SELECT quipu_attach_partition($1, $2, $3)", &[&suffix, &month, &next]).await?;
    transaction.execute(PROGRESS, &[&relays]).await?;
    transaction.commit().await?;
    Ok(left)
}

async fn record_month(
    transaction: &Transaction<'_>,
    month: NaiveDate,
    reason: &str,
    left: Left,
) -> Result<(), Error> {
    transaction
        .execute(
            "INSERT INTO erasure (kind, month, reason, detail)
             VALUES ('month', $1, $2, jsonb_build_object('events', $3::bigint, 'sightings', $4::bigint))",
            &[&month, &reason, &left.events, &left.sightings],
        )
        .await?;
    Ok(())
}

/// Detaches a partition without holding up its parent; finishes a detach that a crash interrupted.
async fn detach(client: &Client, family: &str, partition: &str) -> Result<(), Error> {
    let row = client
        .query_opt(
            "SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = to_regclass($1) AND inhparent = $2::text::regclass",
            &[&partition, &family],
        )
        .await?;
    let how = match row.map(|row| row.get::<_, bool>(0)) {
        Some(false) => "CONCURRENTLY",
        Some(true) => "FINALIZE",
        None => return Ok(()),
    };
    Ok(client.batch_execute(&format!("ALTER TABLE {family} DETACH PARTITION {partition} {how}")).await?)
}
