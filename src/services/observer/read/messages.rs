//! Messages that wait. Only numbers are read: no identities and no payloads.

use sqlx::PgPool;

use super::bounded;
use crate::services::observer::{PENDING_MAX, STATEMENT_MAX};
use crate::store::Error;

/// Messages that wait.
#[derive(Debug)]
pub(in crate::services::observer) struct Messages {
    /// An estimate.
    pub(in crate::services::observer) stored: i64,
    /// Of the messages that expire first, those that no device has acknowledged.
    pub(in crate::services::observer) pending: i64,
    /// Age of the oldest of these in seconds.
    pub(in crate::services::observer) oldest_s: Option<f64>,
    /// Time until the first of these expires, in seconds.
    pub(in crate::services::observer) next_loss_s: Option<f64>,
}

/// From the primary: an acknowledgement that a replica has not seen yet would count as missing.
pub(in crate::services::observer) async fn messages(session: &PgPool) -> Result<Messages, Error> {
    let mut moment = bounded(session, STATEMENT_MAX).await?;
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
