//! Counts how much of the quotas is in use. Each query continues after the position where the caller's
//! previous count ended.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use crate::services::messages::decide::{Quota, Usage};
use crate::store::Error;

/// Most rows that a count reads when the quota limits bytes only. With a limit on messages it reads as many
/// rows as that.
const ROWS_MAX_WITHOUT_MESSAGE_QUOTA: u64 = 1_000_000;

fn row_limit(messages: u64) -> i64 {
    limit_parameter(if messages == 0 { ROWS_MAX_WITHOUT_MESSAGE_QUOTA } else { messages })
}

/// The limit as a query parameter. 0 means no limit.
fn limit_parameter(limit: u64) -> i64 {
    i64::try_from(limit).ok().filter(|limit| *limit > 0).unwrap_or(i64::MAX)
}

fn usage_of(messages: i64, bytes: i64) -> Usage {
    Usage { messages: messages.unsigned_abs(), bytes: bytes.unsigned_abs() }
}

/// The messages that wait for a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxUsage {
    /// Usage of all senders together.
    pub used: Usage,
    /// Usage of each sender that exceeds the `report_above` of the query.
    pub senders: HashMap<String, Usage>,
    /// No message up to this number waits, so the next count can begin after it.
    pub after: i64,
}

/// Counts the messages of a recipient after number `after` that have neither expired nor been acknowledged by
/// any of its devices; the caller knows that no message up to `after` waits. Senders with more messages or
/// bytes than `report_above` are listed; 0 there lists none by that unit.
pub async fn recipient_usage(
    pool: &PgPool,
    recipient: &str,
    quota: Quota,
    after: i64,
    report_above: Quota,
) -> Result<InboxUsage, Error> {
    let rows = sqlx::query!(
        r#"-- recipient_usage
           SELECT w.sender AS "sender?", grouping(w.sender) = 1 AS "is_all!", count(w.position) AS "messages!",
                  coalesce(sum(w.payload_bytes), 0)::bigint AS "bytes!", coalesce(min(w.position) - 1, min(t.top), 0) AS "after!"
           FROM quipu_newest_message($1) AS t (top)
           LEFT JOIN LATERAL (
               SELECT m.position, m.sender, m.payload_bytes FROM message_log m
               WHERE hashtextextended(m.recipient, 0) = hashtextextended($1, 0) AND m.recipient = $1 AND m.expires_at > clock_timestamp()
                 AND m.position > greatest($3, (SELECT max(p.position) FROM message_positions p WHERE p.recipient = $1))
                 AND (SELECT a.position FROM message_log a
                      WHERE a.message = m.position AND a.kind = 'acknowledged' LIMIT 1) IS NULL
               ORDER BY m.position LIMIT $2) w ON true
           GROUP BY GROUPING SETS ((), (w.sender))
           HAVING grouping(w.sender) = 1 OR count(w.position) > $4 OR sum(w.payload_bytes) > $5"#,
        recipient,
        row_limit(quota.messages),
        after,
        limit_parameter(report_above.messages),
        limit_parameter(report_above.bytes)
    )
    .fetch_all(pool)
    .await?;
    let mut inbox = InboxUsage { used: Usage::default(), senders: HashMap::new(), after };
    for row in rows {
        let usage = usage_of(row.messages, row.bytes);
        if row.is_all {
            inbox.used = usage;
            inbox.after = row.after.max(after);
        } else if let Some(sender) = row.sender {
            inbox.senders.insert(sender, usage);
        }
    }
    Ok(inbox)
}

/// Counts what a sender has sent within the last 24 hours and, if `after` is given, after that time. Returns
/// the usage and the `after` of the next count. The bound in time is `statement_timestamp()`, because
/// PostgreSQL cannot use the volatile `clock_timestamp()` as an index bound.
pub async fn sender_usage(
    pool: &PgPool,
    sender: &str,
    quota: Quota,
    after: Option<DateTime<Utc>>,
) -> Result<(Usage, Option<DateTime<Utc>>), Error> {
    let row = sqlx::query!(
        r#"-- sender_usage
           SELECT count(*) AS "messages!", coalesce(sum(w.payload_bytes), 0)::bigint AS "bytes!", max(w.recorded_at) AS after FROM (
               SELECT m.payload_bytes, m.recorded_at FROM message_log m
               WHERE hashtextextended(m.sender, 0) = hashtextextended($1, 0) AND m.sender = $1
                 AND m.recorded_at > greatest($3, statement_timestamp() - interval '24 hours')
               ORDER BY m.recorded_at LIMIT $2) w"#,
        sender,
        row_limit(quota.messages),
        after
    )
    .fetch_one(pool)
    .await?;
    Ok((usage_of(row.messages, row.bytes), row.after.or(after)))
}
