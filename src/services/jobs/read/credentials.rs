//! API tokens and secrets of workers.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use crate::store::Error;

/// Most tokens that are listed.
const TOKENS_MAX: i64 = 10_000;

/// A valid token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// Its name.
    pub name: String,
    /// Whether it may do everything.
    pub is_admin: bool,
    /// What it may do otherwise.
    pub scopes: Vec<String>,
}

/// A worker that has proven its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerRecord {
    /// Its id.
    pub worker: String,
    /// Whether it may log in.
    pub is_enabled: bool,
}

/// A token in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredToken {
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Whether it may do everything.
    pub is_admin: bool,
    /// What it may do otherwise.
    pub scopes: Vec<String>,
    /// When it expires; `None` for never.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
}

/// The API token with this SHA-256; `None` if it does not exist, has expired or is revoked.
pub async fn token(pool: &PgPool, sha256: &[u8]) -> Result<Option<TokenRecord>, Error> {
    Ok(sqlx::query_as!(
        TokenRecord,
        r#"-- job_token
           SELECT c.name, c.is_admin, c.scopes FROM job_credentials c
           WHERE c.secret_sha256 = $1 AND c.kind = 'created' AND c.worker IS NULL
             AND (c.expires_at IS NULL OR c.expires_at > clock_timestamp())
             AND NOT EXISTS (SELECT FROM job_credentials r WHERE r.secret_sha256 = $1 AND r.kind = 'revoked')"#,
        sha256
    )
    .fetch_optional(pool)
    .await?)
}

/// The worker whose secret has this SHA-256; `None` if there is none, or its secret was replaced.
pub async fn worker_by_secret(pool: &PgPool, sha256: &[u8]) -> Result<Option<WorkerRecord>, Error> {
    Ok(sqlx::query_as!(
        WorkerRecord,
        r#"-- job_worker_secret
           SELECT c.worker AS "worker!",
                  coalesce((SELECT l.is_enabled AND l.status <> 'removed' FROM job_worker_log l WHERE l.worker = c.worker ORDER BY l.step DESC LIMIT 1), true) AS "is_enabled!"
           FROM job_credentials c
           WHERE c.secret_sha256 = $1 AND c.kind = 'created' AND c.worker IS NOT NULL
             AND NOT EXISTS (SELECT FROM job_credentials r WHERE r.secret_sha256 = $1 AND r.kind = 'revoked')"#,
        sha256
    )
    .fetch_optional(pool)
    .await?)
}

/// The API tokens that are valid now, oldest first.
pub async fn tokens(pool: &PgPool) -> Result<Vec<StoredToken>, Error> {
    Ok(sqlx::query_as!(
        StoredToken,
        r#"-- job_tokens
           SELECT c.position AS id, c.name, c.is_admin, c.scopes, c.expires_at, c.recorded_at AS created_at FROM job_credentials c
           WHERE c.kind = 'created' AND c.worker IS NULL AND (c.expires_at IS NULL OR c.expires_at > clock_timestamp())
             AND NOT EXISTS (SELECT FROM job_credentials r WHERE r.secret_sha256 = c.secret_sha256 AND r.kind = 'revoked')
           ORDER BY c.position LIMIT $1"#,
        TOKENS_MAX
    )
    .fetch_all(pool)
    .await?)
}
