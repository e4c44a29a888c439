//! How much of the quotas is used. Whoever remembers an answer asks for what came after it.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use crate::services::messages::decide::{Quota, Used};
use crate::store::Error;

/// Rows that are looked at: as many as the quota allows, or this many where it bounds bytes alone.
const LOOKED_AT: u64 = 1_000_000;

fn most(quota: Quota) -> i64 {
    let messages = if quota.messages == 0 { LOOKED_AT } else { quota.messages };
    i64::try_from(messages).unwrap_or(i64::MAX)
}

fn used(messages: i64, bytes: i64) -> Used {
    Used { messages: messages.unsigned_abs(), bytes: bytes.unsigned_abs() }
}

/// What waits for a recipient: neither over nor acknowledged by any of his devices. None of it has a number up to `after`; the
/// second value is the next `after`.
pub async fn used_by_recipient(
    pool: &PgPool,
    recipient: &str,
    quota: Quota,
    after: i64,
) -> Result<(Used, i64), Error> {
    let row = sqlx::query!(
        r#"SELECT count(w.position) AS "messages!", coalesce(sum(w.payload_bytes), 0)::bigint AS "bytes!",
                  coalesce(min(w.position) - 1, min(t.top), 0) AS "after!"
           FROM quipu_newest_message($1) AS t (top)
           LEFT JOIN LATERAL (
               SELECT m.position, m.payload_bytes FROM message_log m
               WHERE hashtextextended(m.recipient, 0) = hashtextextended($1, 0) AND m.recipient = $1 AND m.expires_at > clock_timestamp()
                 AND m.position > greatest($3, (SELECT max(p.position) FROM message_positions p WHERE p.recipient = $1))
                 AND (SELECT a.position FROM message_log a
                      WHERE a.message = m.position AND a.kind = 'acknowledged' LIMIT 1) IS NULL
               ORDER BY m.position LIMIT $2) w ON true"#,
        recipient,
        most(quota),
        after
    )
    .fetch_one(pool)
    .await?;
    Ok((used(row.messages, row.bytes), row.after.max(after)))
}

/// What a sender has sent within the last 24 hours, and `after` that moment if there is one; the second value is the next. The
/// bound is read off the index, which `clock_timestamp()`, being volatile, would not allow.
pub async fn used_by_sender(
    pool: &PgPool,
    sender: &str,
    quota: Quota,
    after: Option<DateTime<Utc>>,
) -> Result<(Used, Option<DateTime<Utc>>), Error> {
    let row = sqlx::query!(
        r#"SELECT count(*) AS "messages!", coalesce(sum(w.payload_bytes), 0)::bigint AS "bytes!", max(w.recorded_at) AS after FROM (
               SELECT m.payload_bytes, m.recorded_at FROM message_log m
               WHERE hashtextextended(m.sender, 0) = hashtextextended($1, 0) AND m.sender = $1
                 AND m.recorded_at > greatest($3, statement_timestamp() - interval '24 hours')
               ORDER BY m.recorded_at LIMIT $2) w"#,
        sender,
        most(quota),
        after
    )
    .fetch_one(pool)
    .await?;
    Ok((used(row.messages, row.bytes), row.after.or(after)))
}
