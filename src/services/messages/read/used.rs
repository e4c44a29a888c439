//! How much of the quotas is used. Both look at no more than what decides.

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

/// What waits for a recipient: neither over nor acknowledged by any of his devices.
pub async fn used_by_recipient(pool: &PgPool, recipient: &str, quota: Quota) -> Result<Used, Error> {
    let row = sqlx::query!(
        r#"SELECT count(*) AS "messages!", coalesce(sum(w.payload_bytes), 0)::bigint AS "bytes!" FROM (
               SELECT m.payload_bytes FROM message_log m
               WHERE m.recipient = $1 AND m.expires_at > clock_timestamp()
                 AND m.position > coalesce((SELECT max(p.position) FROM message_positions p WHERE p.recipient = $1), 0)
                 AND (SELECT a.position FROM message_log a
                      WHERE a.message = m.position AND a.kind = 'acknowledged' LIMIT 1) IS NULL
               LIMIT $2) w"#,
        recipient,
        most(quota)
    )
    .fetch_one(pool)
    .await?;
    Ok(used(row.messages, row.bytes))
}

/// What a sender has sent within the last 24 hours.
pub async fn used_by_sender(pool: &PgPool, sender: &str, quota: Quota) -> Result<Used, Error> {
    let row = sqlx::query!(
        r#"SELECT count(*) AS "messages!", coalesce(sum(w.payload_bytes), 0)::bigint AS "bytes!" FROM (
               SELECT m.payload_bytes FROM message_log m
               WHERE m.sender = $1 AND m.recorded_at > clock_timestamp() - interval '24 hours'
               LIMIT $2) w"#,
        sender,
        most(quota)
    )
    .fetch_one(pool)
    .await?;
    Ok(used(row.messages, row.bytes))
}
