//! Reads the totals. The queries are cheap, because they run every second while a stream is open.

use serde::Serialize;
use sqlx::PgPool;

use crate::store::Error;

/// Minutes of the chart.
const MINUTES: usize = 60;

/// The totals.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in super::super) struct Totals {
    /// Events stored in the last 60 seconds, by the ticks, divided by 60.
    pub(in super::super) events_per_second: f64,
    /// Events stored per minute of their commit, oldest first. The last one is the current minute.
    pub(in super::super) minutes: Vec<i64>,
    /// Events ever stored, as of the newest projection.
    pub(in super::super) events: i64,
    /// Sightings ever recorded, as of the newest projection.
    pub(in super::super) sightings: i64,
    /// Relays ever known.
    pub(in super::super) relays: i64,
    /// Relays that showed an event.
    pub(in super::super) relays_with_events: i64,
    /// Relays by network, most first.
    pub(in super::super) networks: Vec<Network>,
    /// Number of the newest tick.
    pub(in super::super) newest_tick: Option<i64>,
    /// Tick that the projection `totals` has reached; `None` while it is being built.
    pub(in super::super) projected_tick: Option<i64>,
    /// Batches of the journal that the projection has not read yet, counted up to 1,000; `None` while it is
    /// being built.
    pub(in super::super) batches_behind: Option<i64>,
    /// Age of the oldest unread batch, in seconds.
    pub(in super::super) behind_s: f64,
}

/// Relays of one network.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in super::super) struct Network {
    /// `clearnet`, `tor`, `i2p` or `loki`.
    pub(in super::super) name: String,
    /// Relays ever known.
    pub(in super::super) relays: i64,
    /// Relays that showed an event.
    pub(in super::super) with_events: i64,
}

pub(in super::super) async fn totals(pool: &PgPool) -> Result<Totals, Error> {
    let networks = sqlx::query_as!(
        Network,
        r#"-- console_networks
           SELECT r.network AS name, count(*) AS "relays!", count(p.relay) AS "with_events!"
           FROM relays r LEFT JOIN relay_progress p ON p.relay = r.number GROUP BY r.network ORDER BY 2 DESC, 1"#
    )
    .fetch_all(pool)
    .await?;
    let minutes = sqlx::query_scalar!(
        r#"-- console_minutes
           SELECT coalesce(t.stored, 0) AS "stored!"
           FROM generate_series(date_trunc('minute', now()) - make_interval(mins => $1 - 1), now(), interval '1 minute') m
           LEFT JOIN minute_totals t ON t.minute = m ORDER BY m"#,
        i32::try_from(MINUTES).unwrap_or(i32::MAX)
    )
    .fetch_all(pool)
    .await?;
    // Events stored in the last minute are those that the newest tick sees and the tick before that minute
    // does not.
    let row = sqlx::query!(
        r#"-- console_totals
           SELECT (SELECT coalesce(sum(events), 0)::bigint FROM kind_totals) AS "events!",
                  (SELECT coalesce(sum(sightings), 0)::bigint FROM relay_totals) AS "sightings!",
                  (SELECT coalesce(sum(l.stored), 0)::bigint
                   FROM ingest_log_between((SELECT snapshot FROM tick WHERE taken_at <= now() - interval '60 seconds'
                                            ORDER BY number DESC LIMIT 1),
                                           (SELECT snapshot FROM tick ORDER BY number DESC LIMIT 1)) l
                   WHERE l.recorded_at > now() - interval '60 seconds') AS "stored!",
                  (SELECT max(number) FROM tick) AS newest_tick,
                  (SELECT tick FROM checkpoint WHERE projection = 'totals') AS projected_tick"#
    )
    .fetch_one(pool)
    .await?;
    let behind = sqlx::query!(
        r#"-- console_behind
           SELECT batches AS "batches!", seconds AS "seconds!" FROM projection_lag WHERE projection = 'totals'"#
    )
    .fetch_optional(pool)
    .await?;
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let events_per_second = row.stored as f64 / 60.0;
    Ok(Totals {
        events_per_second,
        minutes,
        events: row.events,
        sightings: row.sightings,
        relays: networks.iter().map(|network| network.relays).sum(),
        relays_with_events: networks.iter().map(|network| network.with_events).sum(),
        networks,
        newest_tick: row.newest_tick,
        projected_tick: row.projected_tick,
        batches_behind: behind.as_ref().map(|behind| behind.batches),
        behind_s: behind.map_or(0.0, |behind| behind.seconds),
    })
}
