//! Queries for the monitor: snapshots, and relays whose check is due.

use serde_json::{Map, Value};
use sqlx::PgPool;

use crate::base::Network;
use crate::services::archive::event::Snapshot;
use crate::store::{Error, Relay};

/// A relay whose check is due.
#[derive(Debug, Clone)]
pub struct DueRelay {
    /// `relays.number`.
    pub number: i32,
    /// Canonical URL.
    pub url: String,
    /// True if the operator named it, so that its address may be private.
    pub is_named: bool,
    /// Time of its latest snapshot, unix seconds; `None` when it has none.
    pub checked_at: Option<i64>,
    /// Total number of due relays of its network.
    pub due: i64,
}

/// Relays of one network whose check is due, at most `limit`: those that the operator waits for first, then
/// those never checked, then those with the oldest snapshot. A relay that the operator has requested since
/// its latest snapshot is due as well. A leased relay is left out. `only`, from the operator's settings,
/// restricts the result to these URLs unless it is empty. A refused relay is left out unless `only` names it.
///
/// A relay is due `interval_s` after its latest snapshot plus a share of its own of at most a tenth, so that
/// relays checked together drift apart. A snapshot from far in the future (wrong clock) counts as none. The
/// stored time is only compared, never used in arithmetic, because a row may hold any number.
pub async fn due_relays(
    pool: &PgPool,
    network: Network,
    only: &[String],
    now: i64,
    interval_s: i64,
    limit: i64,
) -> Result<Vec<DueRelay>, Error> {
    Ok(sqlx::query_as!(
        DueRelay,
        r#"-- due_relays
           SELECT r.number, r.url, quipu_is_named(r.source) AS "is_named!", m.generated_at AS "checked_at?",
                  count(*) OVER () AS "due!"
           FROM relays r
           LEFT JOIN relay_visits v ON v.relay = r.number
           LEFT JOIN LATERAL (SELECT s.generated_at, s.recorded_at FROM relay_metadata s WHERE s.relay_url = r.url
                              ORDER BY s.generated_at DESC LIMIT 1) m ON true
           WHERE r.retired_at IS NULL AND r.network = $1
             AND (r.url = ANY ($2::text[]) OR (cardinality($2::text[]) = 0 AND r.refused_reason IS NULL))
             AND (m.generated_at IS NULL OR m.recorded_at < v.asked_at OR m.generated_at > $3::bigint + $4::bigint
                  OR m.generated_at <= $3::bigint - $4::bigint - (r.number::bigint * 7919) % ($4::bigint / 10 + 1))
             AND NOT EXISTS (SELECT FROM lease l WHERE l.name = 'monitor/' || r.number AND l.expires_at > clock_timestamp())
           ORDER BY coalesce(v.asked_at > coalesce(m.recorded_at, '-infinity'), false) DESC, m.generated_at NULLS FIRST, r.number LIMIT $5"#,
        network.as_str(),
        only,
        now,
        interval_s,
        limit
    )
    .fetch_all(pool)
    .await?)
}

/// Time of the latest snapshot of each relay, in unix seconds.
pub async fn checked_at(pool: &PgPool, relays: &[Relay]) -> Result<Vec<(Relay, Option<i64>)>, Error> {
    let numbers: Vec<i32> = relays.iter().map(|relay| relay.0).collect();
    let rows = sqlx::query!(
        r#"-- checked_at
           SELECT r.number, m.generated_at AS "checked_at?"
           FROM relays r
           LEFT JOIN LATERAL (SELECT s.generated_at FROM relay_metadata s WHERE s.relay_url = r.url
                              ORDER BY s.generated_at DESC LIMIT 1) m ON true
           WHERE r.number = ANY ($1)"#,
        &numbers
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| (Relay(row.number), row.checked_at)).collect())
}

/// A row of `relay_metadata` with its document and result.
struct Row {
    generated_at: i64,
    name: Option<String>,
    description: Option<String>,
    banner: Option<String>,
    icon: Option<String>,
    pubkey: Option<String>,
    contact: Option<String>,
    supported_nips: Option<String>,
    software: Option<String>,
    version: Option<String>,
    privacy_policy: Option<String>,
    terms_of_service: Option<String>,
    limitation: Option<String>,
    extra_fields: Option<String>,
    has_document: bool,
    openable: Option<bool>,
    readable: Option<bool>,
    writable: Option<bool>,
    rtt_open: Option<i32>,
    rtt_read: Option<i32>,
    rtt_write: Option<i32>,
    dns_ttl: Option<i32>,
    detail: Option<String>,
}

/// Characters of unparsable JSON that are shown as text.
const UNREADABLE_MAX: usize = 1_000;

/// Parses the text of a `jsonb` value. PostgreSQL holds values that `serde_json` does not, such as 1e400 or
/// arrays nested 1,000 deep (rows inserted by SQL); they are replaced by the beginning of their text.
fn json(text: &str) -> Value {
    serde_json::from_str(text)
        .unwrap_or_else(|_| text.chars().take(UNREADABLE_MAX).collect::<String>().into())
}

/// The same for an object. Any other value becomes the member `unreadable`.
fn object(text: &str) -> Map<String, Value> {
    match json(text) {
        Value::Object(fields) => fields,
        other => Map::from_iter([("unreadable".to_owned(), other)]),
    }
}

impl Row {
    /// The document as the relay sent it, except for the order of its fields.
    fn document(&mut self) -> Option<Map<String, Value>> {
        if !self.has_document {
            return None;
        }
        let mut document = self.extra_fields.as_deref().map(object).unwrap_or_default();
        let texts = [
            ("name", self.name.take()),
            ("description", self.description.take()),
            ("banner", self.banner.take()),
            ("icon", self.icon.take()),
            ("pubkey", self.pubkey.take()),
            ("contact", self.contact.take()),
            ("software", self.software.take()),
            ("version", self.version.take()),
            ("privacy_policy", self.privacy_policy.take()),
            ("terms_of_service", self.terms_of_service.take()),
        ];
        let texts = texts.into_iter().map(|(field, text)| (field, text.map(Value::String)));
        let others = [("supported_nips", &self.supported_nips), ("limitation", &self.limitation)];
        let others = others.into_iter().map(|(field, text)| (field, text.as_deref().map(json)));
        for (field, value) in texts.chain(others) {
            document.extend(value.map(|value| (field.to_owned(), value)));
        }
        Some(document)
    }
}

impl From<Row> for Snapshot {
    fn from(mut row: Row) -> Self {
        Self {
            generated_at: row.generated_at,
            nip11: row.document(),
            is_openable: row.openable.unwrap_or(false),
            is_readable: row.readable.unwrap_or(false),
            is_writable: row.writable,
            rtt_open: row.rtt_open,
            rtt_read: row.rtt_read,
            rtt_write: row.rtt_write,
            dns_ttl: row.dns_ttl,
            detail: row.detail.as_deref().map(object).unwrap_or_default(),
        }
    }
}

/// The snapshots of a relay by its canonical URL, newest first, at most `limit`.
pub async fn snapshots(pool: &PgPool, url: &str, limit: i64) -> Result<Vec<Snapshot>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"-- snapshots
           SELECT m.generated_at, d.name AS "name?", d.description AS "description?", d.banner AS "banner?", d.icon AS "icon?",
                  d.pubkey AS "pubkey?", d.contact AS "contact?", d.supported_nips::text AS "supported_nips?", d.software AS "software?",
                  d.version AS "version?", d.privacy_policy AS "privacy_policy?", d.terms_of_service AS "terms_of_service?",
                  d.limitation::text AS "limitation?", d.extra_fields::text AS "extra_fields?",
                  d.id IS NOT NULL AS "has_document!", c.openable AS "openable?", c.readable AS "readable?", c.writable AS "writable?",
                  coalesce(m.rtt_open, c.rtt_open) AS "rtt_open?", coalesce(m.rtt_read, c.rtt_read) AS "rtt_read?",
                  coalesce(m.rtt_write, c.rtt_write) AS "rtt_write?", m.dns_ttl AS "dns_ttl?",
                  c.detail::text AS "detail?"
           FROM relay_metadata m LEFT JOIN nip11 d ON d.id = m.nip11_id LEFT JOIN nip66 c ON c.id = m.nip66_id
           WHERE m.relay_url = $1 ORDER BY m.generated_at DESC, m.position DESC LIMIT $2"#,
        url,
        limit
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(Snapshot::from).collect())
}

/// The latest snapshot of a relay by its canonical URL.
pub async fn newest_snapshot(pool: &PgPool, url: &str) -> Result<Option<Snapshot>, Error> {
    Ok(snapshots(pool, url, 1).await?.pop())
}
