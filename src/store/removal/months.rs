//! Retention: drops the partitions of whole months, and the partition before the first month.

use chrono::NaiveDate;
use tokio_postgres::{GenericClient, Transaction};

use super::{ERASURE_LOCK, PROGRESS, RemovedRows, detach};
use crate::base::Secret;
use crate::store::{Error, owner};

/// Stands for everything before November 2020, the first month with its own partition.
pub const PAST: NaiveDate = NaiveDate::from_ymd_opt(1970, 1, 1).expect("a date");

/// The first month with its own partition.
const FIRST: NaiveDate = NaiveDate::from_ymd_opt(2020, 11, 1).expect("a date");

/// One month that retention may drop.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Month {
    /// The first day of the month, or [`PAST`].
    pub month: NaiveDate,
    /// The number of rows it has.
    pub holds: RemovedRows,
}

/// The partitions of one month: the suffix of their names, their bounds, and the month's kind and date in
/// `erasure`.
struct Partitions {
    suffix: String,
    low: Option<NaiveDate>,
    high: NaiveDate,
    kind: &'static str,
    /// `erasure.month`.
    recorded: NaiveDate,
}

impl Partitions {
    fn of(month: NaiveDate) -> Self {
        if month < FIRST {
            return Self { suffix: "past".to_owned(), low: None, high: FIRST, kind: "past", recorded: FIRST };
        }
        Self {
            suffix: month.format("y%Ym%m").to_string(),
            low: Some(month),
            high: month.checked_add_months(chrono::Months::new(1)).unwrap_or(month),
            kind: "month",
            recorded: month,
        }
    }

    async fn count(&self, client: &impl GenericClient) -> Result<RemovedRows, Error> {
        let suffix = &self.suffix;
        let sql = format!(
            "-- count_month\nSELECT (SELECT count(*) FROM partitions.events_{suffix}), (SELECT count(*) FROM partitions.sightings_{suffix})"
        );
        let row = client.query_one(&sql, &[]).await?;
        Ok(RemovedRows { events: row.get(0), sightings: row.get(1) })
    }

    /// Number of sightings that were learnt by comparing ids. A month that was detached before V18 and is not
    /// dropped yet lacks the column.
    async fn count_compared(&self, client: &impl GenericClient) -> Result<i64, Error> {
        let table = format!("partitions.sightings_{}", self.suffix);
        let has_column = "-- has_compared
                          SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = $1::text::regclass
                                         AND attname = 'compared' AND NOT attisdropped)";
        if !client.query_one(has_column, &[&table]).await?.get::<_, bool>(0) {
            return Ok(0);
        }
        Ok(client
            .query_one(&format!("-- count_compared\nSELECT count(compared) FROM {table}"), &[])
            .await?
            .get(0))
    }

    /// `compared`: how many of the removed sightings were learnt by comparing ids.
    async fn record(
        &self,
        transaction: &Transaction<'_>,
        reason: &str,
        left: RemovedRows,
        compared: i64,
    ) -> Result<(), Error> {
        transaction
            .execute(
                "-- record_month
                 INSERT INTO erasure (kind, month, reason, detail)
                 VALUES ($1, $2, $3, quipu_erasure_detail($4, $5, $6))",
                &[&self.kind, &self.recorded, &reason, &left.events, &left.sightings, &compared],
            )
            .await?;
        Ok(())
    }
}

/// Months that end before `before` and have rows, oldest first.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn months_before(owner: &Secret, before: NaiveDate) -> Result<Vec<Month>, Error> {
    let client = owner::connect(owner).await?;
    let rows = client
        .query(
            "-- months_before
             SELECT m.month FROM (
                SELECT to_date(substring(c.relname FROM '^events_y(\\d{4}m\\d{2})$'), 'YYYY\"m\"MM') AS month
                FROM pg_class c WHERE c.relnamespace = 'partitions'::regnamespace AND c.relkind = 'r' AND c.relname ~ '^events_y\\d{4}m\\d{2}$') m
             WHERE (m.month + interval '1 month')::date <= $1 ORDER BY 1",
            &[&before],
        )
        .await?;
    let past = (before >= FIRST).then_some(PAST);
    let mut months = Vec::new();
    for month in past.into_iter().chain(rows.iter().map(|row| row.get(0))) {
        let holds = Partitions::of(month).count(&client).await?;
        if holds != RemovedRows::default() {
            months.push(Month { month, holds });
        }
    }
    Ok(months)
}

/// Deletes the deletion and expiration requests of a dropped partition's events, by the range of their
/// numbers.
const DELETE_REQUESTS: &str = "-- delete_requests_of_month
    WITH bounds AS (SELECT coalesce(quipu_event_number(quipu_month_start($1), 0), 0) AS low,
                           quipu_event_number(quipu_month_start($2), 0) AS high),
    requests AS (DELETE FROM deletions d USING bounds b WHERE d.request >= b.low AND d.request < b.high)
    DELETE FROM expirations x USING bounds b WHERE x.event >= b.low AND x.event < b.high";

/// Drops one month of events and sightings, or everything before the first month, and records it. Readers and
/// writers continue meanwhile. The tombstone is recorded first, so that no event is sent into the month while
/// it has no partition. The partitions are detached concurrently, events before the sightings that refer to
/// them, and an empty partition replaces each. May be called again after a crash.
///
/// # Errors
/// As PostgreSQL answers; another call continues where this one stopped.
pub async fn drop_month(owner: &Secret, month: NaiveDate, reason: &str) -> Result<RemovedRows, Error> {
    let mut client = owner::connect(owner).await?;
    let partitions = Partitions::of(month);
    let suffix = &partitions.suffix;
    let announcement = client.transaction().await?;
    announcement.batch_execute(ERASURE_LOCK).await?;
    partitions.record(&announcement, reason, RemovedRows::default(), 0).await?;
    announcement.commit().await?;
    for family in ["events", "sightings"] {
        detach(&client, family, &format!("partitions.{family}_{suffix}")).await?;
    }
    let transaction = client.transaction().await?;
    transaction.batch_execute(ERASURE_LOCK).await?;
    let left = partitions.count(&transaction).await?;
    let compared = partitions.count_compared(&transaction).await?;
    partitions.record(&transaction, reason, left, compared).await?;
    let relays = transaction
        .query(&format!("-- relays_of_month\nSELECT DISTINCT relay FROM partitions.sightings_{suffix}"), &[])
        .await?;
    let relays: Vec<i32> = relays.iter().map(|row| row.get(0)).collect();
    transaction
        .batch_execute(&format!(
            "-- drop_month\nDROP TABLE partitions.events_{suffix}, partitions.sightings_{suffix}"
        ))
        .await?;
    let (low, high) = (&partitions.low, &partitions.high);
    transaction
        .execute("-- attach_month\nSELECT quipu_attach_partition($1, $2, $3)", &[suffix, low, high])
        .await?;
    transaction.execute(DELETE_REQUESTS, &[low, high]).await?;
    transaction.execute(PROGRESS, &[&relays]).await?;
    transaction.commit().await?;
    Ok(left)
}
