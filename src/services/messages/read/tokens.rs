//! Reads bearer tokens.

use sqlx::PgPool;

use crate::store::Error;

/// A token that has neither expired nor been revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the token.
    pub sha256: Vec<u8>,
    /// `wayfarer_id` that the token proves.
    pub wayfarer_id: String,
    /// The only device that the token is valid for; `None` for all devices.
    pub device: Option<String>,
    /// A label for people.
    pub label: String,
    /// Creation time, Unix seconds.
    pub created_at: i64,
    /// Expiry, Unix seconds; `None` for never.
    pub expires_at: Option<i64>,
}

/// Reads the token with this hash if it is valid now.
pub async fn token(pool: &PgPool, sha256: &[u8]) -> Result<Option<Token>, Error> {
    Ok(sqlx::query_as!(
        Token,
        r#"-- message_token
           SELECT t.token_sha256 AS sha256, t.wayfarer_id, t.device, t.label,
                  extract(epoch FROM t.recorded_at)::bigint AS "created_at!", extract(epoch FROM t.expires_at)::bigint AS expires_at
           FROM message_tokens t
           WHERE t.token_sha256 = $1 AND t.kind = 'created' AND (t.expires_at IS NULL OR t.expires_at > clock_timestamp())
             AND NOT EXISTS (SELECT FROM message_tokens r WHERE r.token_sha256 = $1 AND r.kind = 'revoked')"#,
        sha256
    )
    .fetch_optional(pool)
    .await?)
}

/// Reads at most `limit` tokens that are valid now, of one wayfarer or of all, oldest first.
pub async fn tokens(pool: &PgPool, wayfarer_id: Option<&str>, limit: i64) -> Result<Vec<Token>, Error> {
    Ok(sqlx::query_as!(
        Token,
        r#"-- message_tokens
           SELECT t.token_sha256 AS sha256, t.wayfarer_id, t.device, t.label,
                  extract(epoch FROM t.recorded_at)::bigint AS "created_at!", extract(epoch FROM t.expires_at)::bigint AS expires_at
           FROM message_tokens t
           WHERE t.kind = 'created' AND ($1::text IS NULL OR t.wayfarer_id = $1)
             AND (t.expires_at IS NULL OR t.expires_at > clock_timestamp())
             AND NOT EXISTS (SELECT FROM message_tokens r WHERE r.token_sha256 = t.token_sha256 AND r.kind = 'revoked')
           ORDER BY t.position LIMIT $2"#,
        wayfarer_id,
        limit
    )
    .fetch_all(pool)
    .await?)
}
