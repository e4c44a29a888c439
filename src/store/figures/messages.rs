//! Messages that wait. Only numbers are read: no identities and no payloads.

use serde::Serialize;
use sqlx::PgPool;

use super::bounded;
use crate::store::Error;

/// Waiting messages that are looked at: each costs three index searches.
const PENDING_MAX: i64 = 10_000;

/// Messages that wait.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Messages {
    /// An estimate.
    pub(crate) stored: i64,
    /// Of the messages that expire first, those that no device has acknowledged.
    pub(crate) pending: i64,
    /// Age of the oldest of these in seconds.
    pub(crate) oldest_s: Option<f64>,
    /// Time until the first of these expires, in seconds.
    pub(crate) next_loss_s: Option<f64>,
}

/// From the primary: an acknowledgement that a replica has not seen yet would count as missing.
pub(crate) async fn messages(session: &PgPool) -> Result<Messages, Error> {
    let mut moment = bounded(session).await?;
    // While the statistics are those of an empty table, PostgreSQL would read and sort every payload.
    sqlx::query!(
        r#"-- search_message_indexes
           SELECT set_config('enable_seqscan', 'off', true) AS "seqscan!", set_config('enable_bitmapscan', 'off', true) AS "bitmapscan!""#
    )
    .fetch_one(&mut *moment)
    .await?;
    let found = sqlx::query_as!(
        Messages,
        r#"-- observer_messages
           SELECT (SELECT rows FROM journal_sizes WHERE journal = 'message_payloads') AS "stored!", count(*) AS "pending!",
                  extract(epoch FROM now() - min(m.recorded_at))::float8 AS oldest_s,
                  extract(epoch FROM min(p.expires_at) - now())::float8 AS next_loss_s
           FROM (SELECT q.message, q.expires_at FROM message_payloads q WHERE q.expires_at > now()
                 ORDER BY q.expires_at, q.message LIMIT $1) p
           JOIN message_log m ON m.position = p.message
           WHERE (SELECT a.position FROM message_log a WHERE a.message = p.message AND a.kind = 'acknowledged' LIMIT 1) IS NULL"#,
        PENDING_MAX
    )
    .fetch_one(&mut *moment)
    .await?;
    moment.commit().await?;
    Ok(found)
}
