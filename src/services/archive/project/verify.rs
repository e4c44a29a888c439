//! Verifies that the archive's tables agree with its journals.

use futures_util::{Stream, StreamExt};
use serde::Serialize;
use sqlx::PgPool;

use super::PROJECTIONS;
use crate::base::Secret;
use crate::services::archive::read::{EventFilter, stored_events};
use crate::store::{Error, owner, registry};

/// One check and its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was checked.
    pub check: String,
    /// Problems found; empty when the check passed.
    pub problems: Vec<String>,
}

/// Counts that must agree, as (name of the check, query that returns problems).
const COUNTS: &[(&str, &str)] = &[
    (
        "every stored event is there or was erased",
        "SELECT format('ingest_log says %s events were stored, events holds %s and %s were erased', l.n, e.n, x.n)
         FROM (SELECT coalesce(sum(stored), 0) AS n FROM ingest_log) l,
              (SELECT count(*) AS n FROM events) e,
              (SELECT coalesce(sum((detail ->> 'events')::bigint), 0) AS n FROM erasure) x
         WHERE l.n <> e.n + x.n",
    ),
    (
        "every recorded sighting is there or was erased",
        "SELECT format('ingest_log says %s sightings were recorded, sightings holds %s and %s were erased', l.n, s.n, x.n)
         FROM (SELECT coalesce(sum(sighted), 0) AS n FROM ingest_log) l,
              (SELECT count(*) AS n FROM sightings) s,
              (SELECT coalesce(sum((detail ->> 'sightings')::bigint), 0) AS n FROM erasure) x
         WHERE l.n <> s.n + x.n",
    ),
    (
        "every sighting learnt by comparison is marked as such",
        "SELECT format('ingest_log says %s sightings were learnt by comparison, sightings holds %s and %s were erased', l.n, s.n, x.n)
         FROM (SELECT coalesce(sum(c), 0) AS n FROM ingest_log, unnest(relay_compared) c) l,
              (SELECT count(compared) AS n FROM sightings) s,
              (SELECT coalesce(sum((detail ->> 'compared')::bigint), 0) AS n FROM erasure) x
         WHERE l.n <> s.n + x.n",
    ),
    (
        "every event belongs to a batch of ingest_log",
        "SELECT format('batch %s holds %s events, ingest_log says %s', e.batch, e.n, coalesce(l.stored::text, 'nothing'))
         FROM (SELECT b.batch, count(*) AS n FROM events v
               LEFT JOIN LATERAL (SELECT CASE WHEN quipu_event_slot(v.number) < l.batch + l.slots THEN l.batch END AS batch
                                  FROM ingest_log l WHERE l.batch <= quipu_event_slot(v.number) ORDER BY l.batch DESC LIMIT 1) b ON true
               GROUP BY 1) e
         LEFT JOIN ingest_log l ON l.batch = e.batch
         WHERE l.batch IS NULL OR e.n > l.stored LIMIT 10",
    ),
    (
        "no two batches share a slot",
        "SELECT format('batch %s has %s slots and the next batch begins at %s', batch, slots, next)
         FROM (SELECT batch, slots, lead(batch) OVER (ORDER BY batch) AS next FROM ingest_log WHERE batch IS NOT NULL) l
         WHERE next < batch + slots LIMIT 10",
    ),
    (
        "every event's number names its month",
        "SELECT format('event %s of %s has number %s', encode(id, 'hex'), created_at, number)
         FROM events WHERE number >> 45 <> quipu_month_number(created_at) LIMIT 10",
    ),
    (
        "every sighting is of a stored event",
        "SELECT format('sighting of event %s has no event', s.event)
         FROM sightings s LEFT JOIN events e ON e.number = s.event
         WHERE e.number IS NULL LIMIT 10",
    ),
    (
        "every stored request to vanish is kept as such",
        "SELECT format('event %s asks to vanish and is not in vanish_requests', encode(e.id, 'hex')) FROM events e
         WHERE e.kind = 62 AND NOT EXISTS (SELECT FROM vanish_requests v WHERE v.request = e.id) LIMIT 10",
    ),
    (
        "no erased event has come back",
        "SELECT format('event %s was erased and is there', encode(id, 'hex')) FROM (
            SELECT e.id FROM erasure x JOIN events e ON e.id = x.event_id WHERE x.kind = 'event'
            UNION ALL
            SELECT e.id FROM erasure x JOIN events e ON e.pubkey = x.pubkey
            WHERE x.kind IN ('pubkey', 'vanish') AND quipu_covers(x, e.id, e.pubkey, e.created_at, e.kind)) back
         LIMIT 10",
    ),
];

/// Checks the catalog, the counts, and every projection against a replay. The result is consistent even while
/// other sessions write.
pub async fn tables(owner: &Secret) -> Result<Vec<Finding>, Error> {
    let mut client = owner::connect(owner).await?;
    let mut findings = vec![Finding {
        check: "every table is registered and every journal is guarded".to_owned(),
        problems: registry::problems(&client).await?,
    }];
    let snapshot = client
        .build_transaction()
        .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    for (check, query) in COUNTS {
        let rows = snapshot.query(*query, &[]).await?;
        let problems = rows.iter().map(|row| row.get(0)).collect();
        findings.push(Finding { check: (*check).to_owned(), problems });
    }
    snapshot.commit().await?;
    for projection in PROJECTIONS {
        let differences = projection.verify(&mut client).await?;
        let describe = |d: &crate::store::projection::Difference| {
            format!(
                "{}: {} rows that a replay does not give, {} missing; `quipu rebuild {}` recreates it",
                d.table, d.unexpected, d.missing, projection.name
            )
        };
        findings.push(Finding {
            check: format!("projection {} equals a replay of its journals", projection.name),
            problems: differences.iter().map(describe).collect(),
        });
    }
    Ok(findings)
}

/// Checks id and signature of every stored event. One item per event: `None` when it is valid, else the
/// problem.
pub fn events(pool: &PgPool) -> impl Stream<Item = Result<Option<String>, Error>> + '_ {
    static ALL: EventFilter =
        EventFilter { since: None, until: None, kinds: Vec::new(), authors: Vec::new(), relay: None };
    stored_events(pool, &ALL)
        .map(|event| async move {
            let event = event?;
            tokio::task::spawn_blocking(move || {
                Ok(match event.proof() {
                    Err(unreadable) => Some(unreadable.to_string()),
                    Ok(Some(Err(reason))) => Some(format!("{}: {}", event.id_hex(), reason.as_str())),
                    Ok(Some(Ok(())) | None) => None,
                })
            })
            .await
            .expect("checking does not panic")
        })
        .buffered(64)
}
