//! Queries of the synchronizer: relays to crawl, settled windows, and our side of comparisons.

use sqlx::PgPool;

use crate::base::nostr_event::EventId;
use crate::services::archive::event::Window;
use crate::store::ingest::KnownEvent;
use crate::store::{Error, Relay};

/// A relay to crawl.
#[derive(Debug, Clone)]
pub struct RelayToCrawl {
    /// `relays.number`.
    pub number: i32,
    /// Canonical URL.
    pub url: String,
    /// True if the operator named it.
    pub is_named: bool,
    /// Limit on events per answer that it announces (NIP-11), at least 1; `None` when it announces no usable
    /// one.
    pub max_limit: Option<i32>,
    /// Whether it announces NIP-77; `None` when it announces no list of NIPs.
    pub negentropy: Option<bool>,
}

/// Relays to crawl, those furthest behind first: by `relay_last_event_timestamp`, clamped to `now` so that
/// one event dated 2100 does not keep its relay in the last place. Included are the `readable_relays`, relays
/// that only demand authentication (NIP-42; our key may be accepted), relays never checked, and whatever the
/// newest check says, relays that the operator named: programs of others may record checks
/// (`insert_relay_metadata`). Excluded are leased relays; refused relays unless `only`, from the operator's
/// settings, names them; and, for `first_look_s` seconds, relays that the operator waits for, which are left
/// to the `first-look` service.
pub async fn relays_to_crawl(
    pool: &PgPool,
    now: i64,
    only: &[String],
    first_look_s: i32,
) -> Result<Vec<RelayToCrawl>, Error> {
    Ok(sqlx::query_as!(
        RelayToCrawl,
        r#"-- relays_to_crawl
           SELECT r.number, r.url, quipu_is_named(r.source) AS "is_named!",
                  m.max_limit, m.negentropy
           FROM relays r
           LEFT JOIN relay_progress p ON p.relay = r.number
           LEFT JOIN relay_metadata_latest m ON m.relay_url = r.url
           WHERE r.retired_at IS NULL AND (r.refused_reason IS NULL OR r.url = ANY ($2))
             AND NOT EXISTS (SELECT FROM relay_visits v WHERE v.relay = r.number AND v.asked_at > now() - make_interval(secs => $3)
                             AND (v.began_at IS NULL OR v.began_at < v.asked_at))
             AND NOT EXISTS (SELECT FROM lease l WHERE l.name = 'synchronizer/' || r.number AND l.expires_at > clock_timestamp())
             AND (m.relay_url IS NULL OR m.readable OR m.auth = 'refused' OR quipu_is_named(r.source) OR r.url = ANY ($2))
           ORDER BY least(coalesce(p.last_created_at, 0), $1), r.number"#,
        now,
        only,
        f64::from(first_look_s)
    )
    .fetch_all(pool)
    .await?)
}

/// The settled windows of a relay, by age: complete ones, and gaps recorded in the last seven days. An older
/// gap is requested again, because the relay may have changed. Windows settled more than `days` ago do not
/// count.
///
/// Each element is one of `ages`, in seconds, and a window. Every second of the window was at least that old
/// when it was requested. A second that was requested late appears under several ages.
pub async fn settled_windows(
    pool: &PgPool,
    relay: Relay,
    ages: &[i64],
    days: i32,
) -> Result<Vec<(i64, Window)>, Error> {
    // The database merges adjacent windows: a relay visited every hour for a year still has one window.
    let rows = sqlx::query!(
        r#"-- settled_windows
           SELECT age AS "age!", lower(w) AS "since!", upper(w) - 1 AS "until!" FROM (
               SELECT a.age, unnest(range_agg(int8range(s.since, least(s.until, s.settled_at - a.age), '[]'))) AS w
               FROM (SELECT since, until, least(extract(epoch FROM recorded_at)::bigint, (detail ->> 'asked_at')::bigint) AS settled_at FROM sync_log
                     WHERE relay = $1 AND recorded_at > now() - make_interval(days => $3)
                       AND (outcome = 'complete' OR recorded_at > now() - interval '7 days')) s,
                    unnest($2::bigint[]) AS a (age)
               WHERE s.since <= s.settled_at - a.age GROUP BY a.age) merged"#,
        relay.0,
        ages,
        days
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.iter().filter_map(|row| Some((row.age, Window::new(row.since, row.until)?))).collect())
}

/// True if the relay was found within the last `days` to lack events that it had claimed in a comparison
/// (NIP-77).
pub async fn is_false_in_comparisons(pool: &PgPool, relay: Relay, days: i32) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(
        r#"-- is_false_in_comparisons
           SELECT EXISTS (SELECT FROM relay_log
                          WHERE relay = $1 AND kind = 'observed' AND detail ->> 'what' = 'false_comparison'
                            AND recorded_at > now() - make_interval(days => $2)) AS "is_false!""#,
        relay.0,
        days
    )
    .fetch_one(pool)
    .await?)
}

/// Number of these stored events that relays remove by themselves or on request: events of a replaceable,
/// addressable or ephemeral kind (NIP-01), events expired by the second `now` (NIP-40), events that their
/// author asked to delete (NIP-09), and events of a key that asked to vanish (NIP-62). Intended for few
/// events: each is looked up individually.
pub async fn removable(pool: &PgPool, events: &[(KnownEvent, EventId)], now: i64) -> Result<usize, Error> {
    let (created_ats, ids): (Vec<i64>, Vec<Vec<u8>>) =
        events.iter().map(|(event, id)| (event.created_at, id.as_bytes().to_vec())).unzip();
    let removable = sqlx::query_scalar!(
        r#"-- removable
           SELECT count(*) AS "count!"
           FROM unnest($1::bigint[], $2::bytea[]) AS a (created_at, id)
           CROSS JOIN LATERAL (SELECT e.number, e.created_at, e.id, e.kind, e.pubkey FROM events e
                               WHERE e.created_at = a.created_at AND e.id = a.id LIMIT 1) e
           WHERE e.kind IN (0, 3) OR e.kind BETWEEN 10000 AND 39999
              OR EXISTS (SELECT FROM expirations x WHERE x.event = e.number AND x.expires_at <= $3)
              OR EXISTS (SELECT FROM deletions d WHERE d.target = e.id AND d.pubkey = e.pubkey)
              OR EXISTS (SELECT FROM vanish_requests v WHERE v.pubkey = e.pubkey AND e.created_at <= v.created_at)"#,
        &created_ats,
        &ids,
        now
    )
    .fetch_one(pool)
    .await?;
    Ok(usize::try_from(removable).unwrap_or_default())
}

/// A stored event on our side of a comparison.
#[derive(Debug, Clone)]
pub struct Held {
    /// The event.
    pub event: KnownEvent,
    /// Its id.
    pub id: EventId,
    /// True if a sighting on the relay is recorded.
    pub is_sighted: bool,
}

/// Our side of a comparison.
#[derive(Debug)]
pub struct Holdings {
    /// The compared window.
    pub window: Window,
    /// All stored events in the window.
    pub held: Vec<Held>,
    /// As [`crate::store::ingest::KnownEvents::as_of`].
    pub as_of: i64,
}

/// All stored events of a window, or of its newest complete seconds when there are more than `most`. `None`
/// when a single second holds more than `most`.
pub async fn holdings(
    pool: &PgPool,
    relay: Relay,
    window: Window,
    most: usize,
) -> Result<Option<Holdings>, Error> {
    // Read first, so that an event erased between the two queries counts as erased later.
    let as_of = sqlx::query_scalar!(
        r#"-- newest_erasure
       SELECT coalesce(max(position), 0) AS "position!" FROM erasure"#
    )
    .fetch_one(pool)
    .await?;
    let limit = i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1);
    let rows = sqlx::query!(
        r#"-- holdings
           SELECT e.created_at AS "created_at!", e.number AS "number!", e.id AS "id!", s.event IS NOT NULL AS "is_sighted!"
           FROM (SELECT created_at, id, number FROM events WHERE created_at BETWEEN $2 AND $3
                 ORDER BY created_at DESC LIMIT $4) e
           LEFT JOIN sightings s ON s.event = e.number AND s.relay = $1"#,
        relay.0,
        window.since,
        window.until,
        limit
    )
    .fetch_all(pool)
    .await?;
    let is_all = rows.len() <= most;
    let mut held = Vec::with_capacity(rows.len());
    for row in rows {
        let id = EventId::from_slice(&row.id)
            .map_err(|_| Error::inconsistent("events", "an id has the wrong length"))?;
        let event = KnownEvent { number: row.number, created_at: row.created_at };
        held.push(Held { event, id, is_sighted: row.is_sighted });
    }
    if is_all {
        return Ok(Some(Holdings { window, held, as_of }));
    }
    let cut = held.iter().map(|h| h.event.created_at).min().unwrap_or(window.since);
    held.retain(|h| h.event.created_at > cut);
    let part = Window::new(cut + 1, window.until).filter(|_| !held.is_empty());
    Ok(part.map(|window| Holdings { window, held, as_of }))
}
