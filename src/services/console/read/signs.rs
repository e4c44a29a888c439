//! Reads signs of life of the archive and of the messages, which only rules look at. The metrics have them as
//! counters of each process.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;

use crate::store::Error;
use crate::store::figures::bounded;

/// Entries of `message_log` that are looked at, from the newest on.
const ENTRIES_READ: i64 = 10_000;

/// Signs of life of the archive.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in super::super) struct Signs {
    /// The newest minute in which an event was stored.
    pub(in super::super) last_stored_at: Option<DateTime<Utc>>,
    /// When the first relay became known.
    pub(in super::super) first_relay_at: Option<DateTime<Utc>>,
    pub(in super::super) sessions: Vec<Sessions>,
}

/// The newest session with each relay, by network.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in super::super) struct Sessions {
    pub(in super::super) network: String,
    /// Sessions that began in the last hour and failed.
    pub(in super::super) failed: i64,
    /// Whether one that began or caught up in the last hour succeeded, or one has been running for longer than
    /// dialling takes.
    pub(in super::super) is_heard: bool,
    /// When everything of one of its relays was last read.
    pub(in super::super) last_heard_at: Option<DateTime<Utc>>,
}

pub(in super::super) async fn signs(pool: &PgPool) -> Result<Signs, Error> {
    let mut moment = bounded(pool).await?;
    let row = sqlx::query!(
        r#"-- console_last_stored
           SELECT (SELECT minute FROM minute_totals WHERE stored > 0 ORDER BY minute DESC LIMIT 1) AS last_stored_at,
                  (SELECT min(inserted_at) FROM relays) AS first_relay_at"#
    )
    .fetch_one(&mut *moment)
    .await?;
    let sessions = sqlx::query_as!(
        Sessions,
        r#"-- console_sessions
           SELECT r.network,
                  count(*) FILTER (WHERE v.outcome NOT IN ('ok', 'stopped') AND v.began_at > now() - interval '1 hour') AS "failed!",
                  coalesce(bool_or(v.caught_up_at > now() - interval '1 hour'
                                   OR (v.outcome = 'ok' AND v.began_at > now() - interval '1 hour')
                                   OR (v.outcome IS NULL AND v.began_at < now() - interval '5 minutes')), false) AS "is_heard!",
                  max(v.caught_up_at) AS last_heard_at
           FROM relay_visits v JOIN relays r ON r.number = v.relay
           WHERE r.retired_at IS NULL AND r.refused_reason IS NULL GROUP BY r.network"#
    )
    .fetch_all(&mut *moment)
    .await?;
    moment.commit().await?;
    Ok(Signs { last_stored_at: row.last_stored_at, first_relay_at: row.first_relay_at, sessions })
}

/// Messages of the last hour, among the newest [`ENTRIES_READ`] entries.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(in super::super) struct Traffic {
    /// Messages committed.
    pub(in super::super) accepted: i64,
    /// Acknowledgements by devices.
    pub(in super::super) acknowledged: i64,
}

/// `session` is the primary: on a replica an acknowledgement may be missing that its message has.
pub(in super::super) async fn traffic(session: &PgPool) -> Result<Traffic, Error> {
    let mut moment = bounded(session).await?;
    let found = sqlx::query_as!(
        Traffic,
        r#"-- console_messages
           SELECT count(*) FILTER (WHERE l.kind = 'accepted') AS "accepted!",
                  count(*) FILTER (WHERE l.kind = 'acknowledged') AS "acknowledged!"
           FROM (SELECT kind, recorded_at FROM message_log ORDER BY position DESC LIMIT $1) l
           WHERE l.recorded_at > now() - interval '1 hour'"#,
        ENTRIES_READ
    )
    .fetch_one(&mut *moment)
    .await?;
    moment.commit().await?;
    Ok(found)
}
