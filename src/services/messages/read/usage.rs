//! How much of the quotas is used. Whoever remembers an answer asks for what came after it.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use crate::services::messages::decide::{Quota, Usage};
use crate::store::Error;

/// Rows that are looked at: as many as the quota allows, or this many where it bounds bytes alone.
const ROWS_MAX_WITHOUT_MESSAGE_QUOTA: u64 = 1_000_000;

fn row_limit(messages: u64) -> i64 {
    bound(if messages == 0 { ROWS_MAX_WITHOUT_MESSAGE_QUOTA } else { messages })
}

/// A bound as PostgreSQL has it; 0 is none.
fn bound(bound: u64) -> i64 {
    i64::try_from(bound).ok().filter(|bound| *bound > 0).unwrap_or(i64::MAX)
}

fn usage_of(messages: i64, bytes: i64) -> Usage {
    Usage { messages: messages.unsigned_abs(), bytes: bytes.unsigned_abs() }
}

/// What waits for a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxUsage {
    /// All of it.
    pub used: Usage,
    /// What waits of single senders, of those who have more than was asked for.
    pub senders: HashMap<String, Usage>,
    /// Nothing up to this number waits: the next reading begins after it.
    pub after: i64,
}

/// What waits for a recipient: neither over nor acknowledged by any of its devices. None of it has a number up to `after`. Senders
/// are told who have more messages or more bytes than `told_above`; 0 there tells none by that unit.
pub async fn recipient_usage(
    pool: &PgPool,
    recipient: &str,
    quota: Quota,
    after: i64,
    report_above: Quota,
) -> Result<InboxUsage, Error> {
    let rows = sqlx::query!(
        r#"SELECT w.sender AS "sender?", grouping(w.sender) = 1 AS "is_all!", count(w.position) AS "messages!",
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
        bound(report_above.messages),
        bound(report_above.bytes)
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

/// What a sender has sent within the last 24 hours, and `after` that moment if there is one; the second value is the next. The
/// bound is read off the index, which `clock_timestamp()`, being volatile, would not allow.
pub async fn sender_usage(
    pool: &PgPool,
    sender: &str,
    quota: Quota,
    after: Option<DateTime<Utc>>,
) -> Result<(Usage, Option<DateTime<Utc>>), Error> {
    let row = sqlx::query!(
        r#"SELECT count(*) AS "messages!", coalesce(sum(w.payload_bytes), 0)::bigint AS "bytes!", max(w.recorded_at) AS after FROM (
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
