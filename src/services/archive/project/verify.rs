//! Verifies that the archive's tables agree with its journals.

use futures_util::{Stream, StreamExt};
use sqlx::PgPool;

use crate::services::archive::read::{EventFilter, stored_events};
use crate::store::Error;
use crate::store::verify::Check;

/// Counts that must agree.
pub const CHECKS: &[Check] = &[
    Check {
        what: "every stored event is there or was erased",
        query: "-- verify_stored
         SELECT format('ingest_log says %s events were stored, events holds %s and %s were erased', l.n, e.n, x.n)
         FROM (SELECT coalesce(sum(stored), 0) AS n FROM ingest_log) l,
              (SELECT count(*) AS n FROM events) e,
              (SELECT coalesce(sum((detail ->> 'events')::bigint), 0) AS n FROM erasure) x
         WHERE l.n <> e.n + x.n",
    },
    Check {
        what: "every recorded sighting is there or was erased",
        query: "-- verify_sightings
         SELECT format('ingest_log says %s sightings were recorded, sightings holds %s and %s were erased', l.n, s.n, x.n)
         FROM (SELECT coalesce(sum(sighted), 0) AS n FROM ingest_log) l,
              (SELECT count(*) AS n FROM sightings) s,
              (SELECT coalesce(sum((detail ->> 'sightings')::bigint), 0) AS n FROM erasure) x
         WHERE l.n <> s.n + x.n",
    },
    Check {
        what: "every sighting learnt by comparison is marked as such",
        query: "-- verify_compared
         SELECT format('ingest_log says %s sightings were learnt by comparison, sightings holds %s and %s were erased', l.n, s.n, x.n)
         FROM (SELECT coalesce(sum(c), 0) AS n FROM ingest_log, unnest(relay_compared) c) l,
              (SELECT count(compared) AS n FROM sightings) s,
              (SELECT coalesce(sum((detail ->> 'compared')::bigint), 0) AS n FROM erasure) x
         WHERE l.n <> s.n + x.n",
    },
    Check {
        what: "every event belongs to a batch of ingest_log",
        query: "-- verify_batches
         SELECT format('batch %s holds %s events, ingest_log says %s', e.batch, e.n, coalesce(l.stored::text, 'nothing'))
         FROM (SELECT b.batch, count(*) AS n FROM events v
               LEFT JOIN LATERAL (SELECT CASE WHEN quipu_event_slot(v.number) < l.batch + l.slots THEN l.batch END AS batch
                                  FROM ingest_log l WHERE l.batch <= quipu_event_slot(v.number) ORDER BY l.batch DESC LIMIT 1) b ON true
               GROUP BY 1) e
         LEFT JOIN ingest_log l ON l.batch = e.batch
         WHERE l.batch IS NULL OR e.n > l.stored LIMIT 10",
    },
    Check {
        what: "no two batches share a slot",
        query: "-- verify_slots
         SELECT format('batch %s has %s slots and the next batch begins at %s', batch, slots, next)
         FROM (SELECT batch, slots, lead(batch) OVER (ORDER BY batch) AS next FROM ingest_log WHERE batch IS NOT NULL) l
         WHERE next < batch + slots LIMIT 10",
    },
    Check {
        what: "every event's number names its month",
        query: "-- verify_numbers
         SELECT format('event %s of %s has number %s', encode(id, 'hex'), created_at, number)
         FROM events WHERE number >> 45 <> quipu_month_number(created_at) LIMIT 10",
    },
    Check {
        what: "every sighting is of a stored event",
        query: "-- verify_sighted_events
         SELECT format('sighting of event %s has no event', s.event)
         FROM sightings s LEFT JOIN events e ON e.number = s.event
         WHERE e.number IS NULL LIMIT 10",
    },
    Check {
        what: "every stored request to vanish is kept as such",
        query: "-- verify_vanish_requests
         SELECT format('event %s asks to vanish and is not in vanish_requests', encode(e.id, 'hex')) FROM events e
         WHERE e.kind = 62 AND NOT EXISTS (SELECT FROM vanish_requests v WHERE v.request = e.id) LIMIT 10",
    },
    Check {
        what: "no erased event has come back",
        query: "-- verify_erased
         SELECT format('event %s was erased and is there', encode(id, 'hex')) FROM (
            SELECT e.id FROM erasure x JOIN events e ON e.id = x.event_id WHERE x.kind = 'event'
            UNION ALL
            SELECT e.id FROM erasure x JOIN events e ON e.pubkey = x.pubkey
            WHERE x.kind IN ('pubkey', 'vanish') AND quipu_covers(x, e.id, e.pubkey, e.created_at, e.kind)) back
         LIMIT 10",
    },
];

/// Checks id and signature of every stored event, one item each: `None` when it is sound, or what is wrong with it.
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
