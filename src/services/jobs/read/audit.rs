//! The audit: what people and programs did.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgPool;

use crate::store::Error;

/// Something that was done.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    /// Place in the order of all journals.
    pub position: i64,
    /// When.
    pub recorded_at: DateTime<Utc>,
    /// Who.
    pub actor: String,
    /// What: `job_cancelled`, `token_created`, …
    pub action: String,
    /// To which job, worker, token, schedule or person.
    pub subject: String,
    /// Anything else.
    pub detail: Value,
}

/// The newest entries of the audit below a position, newest first.
pub async fn audit(pool: &PgPool, before: Option<i64>, limit: i64) -> Result<Vec<AuditEntry>, Error> {
    Ok(sqlx::query_as!(
        AuditEntry,
        r#"-- job_audit
           SELECT position AS "position!", recorded_at AS "recorded_at!", actor AS "actor!", action AS "action!", subject AS "subject!",
                  detail AS "detail!"
           FROM job_audit WHERE position < $1 ORDER BY position DESC LIMIT $2"#,
        before.unwrap_or(i64::MAX),
        limit
    )
    .fetch_all(pool)
    .await?)
}
