//! Reads the lists of the page: the kinds and relays with the most entries.

use serde::Serialize;
use sqlx::PgPool;

use super::super::LISTED;
use crate::store::Error;
use crate::store::figures::bounded;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in super::super) struct Lists {
    /// Kinds with the most events.
    pub(in super::super) kinds: Vec<KindRow>,
    /// Relays with the most sightings.
    pub(in super::super) relays: Vec<RelayRow>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in super::super) struct KindRow {
    pub(in super::super) kind: i32,
    /// Events ever stored.
    pub(in super::super) events: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in super::super) struct RelayRow {
    /// Canonical URL.
    pub(in super::super) url: String,
    /// `clearnet`, `tor`, `i2p` or `loki`.
    pub(in super::super) network: String,
    /// Distinct events that it has shown.
    pub(in super::super) sightings: i64,
    /// Newest `created_at` that it has shown, in Unix seconds, as signed.
    pub(in super::super) last_event_timestamp: Option<i64>,
}

pub(in super::super) async fn lists(pool: &PgPool) -> Result<Lists, Error> {
    let mut moment = bounded(pool).await?;
    let kinds = sqlx::query_as!(
        KindRow,
        "-- console_kinds\nSELECT kind, events FROM kind_totals ORDER BY events DESC, kind LIMIT $1",
        LISTED
    )
    .fetch_all(&mut *moment)
    .await?;
    let relays = sqlx::query_as!(
        RelayRow,
        r#"-- console_relays
           SELECT r.url, r.network, t.sightings, p.last_created_at AS "last_event_timestamp?"
           FROM relay_totals t JOIN relays r ON r.number = t.relay LEFT JOIN relay_progress p ON p.relay = t.relay
           ORDER BY t.sightings DESC, r.url LIMIT $1"#,
        LISTED
    )
    .fetch_all(&mut *moment)
    .await?;
    moment.commit().await?;
    Ok(Lists { kinds, relays })
}
