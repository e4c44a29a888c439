//! Who a token belongs to.

use sqlx::PgPool;

use crate::store::Error;

/// A token that is good now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of it.
    pub sha256: Vec<u8>,
    /// Whose it is.
    pub wayfarer_id: String,
    /// The one device it is good for; `None` for all of them.
    pub device: Option<String>,
    /// The operator's words.
    pub label: String,
    /// When it was created, unix seconds.
    pub created_at: i64,
    /// When it ends by itself, unix seconds.
    pub expires_at: Option<i64>,
}

/// The token with this hash, if it is good now.
pub async fn token(pool: &PgPool, sha256: &[u8]) -> Result<Option<Token>, Error> {
    Ok(sqlx::query_as!(
        Token,
        r#"SELECT t.token_sha256 AS sha256, t.wayfarer_id, t.device, t.label,
                  extract(epoch FROM t.recorded_at)::bigint AS "created_at!", extract(epoch FROM t.expires_at)::bigint AS expires_at
           FROM message_tokens t
           WHERE t.token_sha256 = $1 AND t.kind = 'created' AND (t.expires_at IS NULL OR t.expires_at > clock_timestamp())
             AND NOT EXISTS (SELECT FROM message_tokens r WHERE r.token_sha256 = $1 AND r.kind = 'revoked')"#,
        sha256
    )
    .fetch_optional(pool)
    .await?)
}

/// The tokens that are good now, of one wayfarer or of all, oldest first; at most `most`.
pub async fn tokens(pool: &PgPool, wayfarer_id: Option<&str>, most: i64) -> Result<Vec<Token>, Error> {
    Ok(sqlx::query_as!(
        Token,
        r#"SELECT t.token_sha256 AS sha256, t.wayfarer_id, t.device, t.label,
                  extract(epoch FROM t.recorded_at)::bigint AS "created_at!", extract(epoch FROM t.expires_at)::bigint AS expires_at
           FROM message_tokens t
           WHERE t.kind = 'created' AND ($1::text IS NULL OR t.wayfarer_id = $1)
             AND (t.expires_at IS NULL OR t.expires_at > clock_timestamp())
             AND NOT EXISTS (SELECT FROM message_tokens r WHERE r.token_sha256 = t.token_sha256 AND r.kind = 'revoked')
           ORDER BY t.position LIMIT $2"#,
        wayfarer_id,
        most
    )
    .fetch_all(pool)
    .await?)
}
