//! People who log in, and their sessions.

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use uuid::Uuid;

use crate::store::Error;

/// Most sessions and people that are listed.
const LISTED_MAX: i64 = 10_000;

/// A session that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its id, no secret.
    pub session: Uuid,
    /// URL of the provider.
    pub issuer: String,
    /// Id of the person at the provider.
    pub subject: String,
    /// The person in the actor of entries.
    pub label: String,
    /// Name for people.
    pub name: Option<String>,
    /// Verified email address.
    pub email: Option<String>,
    /// Groups by which the login was allowed.
    pub groups: Vec<String>,
    /// Whether it may do everything.
    pub is_admin: bool,
    /// When it began.
    pub created_at: DateTime<Utc>,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

/// A person who has logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserView {
    /// URL of the provider.
    pub issuer: String,
    /// Id of the person at the provider.
    pub subject: String,
    /// Name for people, at the last login.
    pub name: Option<String>,
    /// Verified email address, at the last login.
    pub email: Option<String>,
    /// Groups by which the last login was allowed.
    pub groups: Vec<String>,
    /// Whether the last login was that of an administrator.
    pub is_admin: bool,
    /// First login.
    pub created_at: DateTime<Utc>,
    /// Last login.
    pub last_login: DateTime<Utc>,
    /// Sessions that have not ended.
    pub sessions: i64,
}

/// The session whose cookie has this SHA-256; `None` if it does not exist or has ended.
pub async fn session(pool: &PgPool, sha256: &[u8]) -> Result<Option<SessionRecord>, Error> {
    Ok(sqlx::query_as!(
        SessionRecord,
        r#"-- job_session
           SELECT session, issuer, subject, label, name, email, groups, is_admin, created_at, expires_at FROM job_sessions
           WHERE secret_sha256 = $1 AND expires_at > clock_timestamp()"#,
        sha256
    )
    .fetch_optional(pool)
    .await?)
}

/// The sessions that have not ended, newest first.
pub async fn sessions(pool: &PgPool) -> Result<Vec<SessionRecord>, Error> {
    Ok(sqlx::query_as!(
        SessionRecord,
        r#"-- job_sessions
           SELECT session, issuer, subject, label, name, email, groups, is_admin, created_at, expires_at FROM job_sessions
           WHERE expires_at > clock_timestamp() ORDER BY created_at DESC LIMIT $1"#,
        LISTED_MAX
    )
    .fetch_all(pool)
    .await?)
}

/// People who have logged in, by provider and subject. They are walked from index entry to index entry: each
/// person has many entries.
pub async fn users(pool: &PgPool) -> Result<Vec<UserView>, Error> {
    Ok(sqlx::query_as!(
        UserView,
        r#"-- job_users
           WITH RECURSIVE people AS (
               (SELECT issuer, subject FROM job_user_log ORDER BY issuer, subject LIMIT 1)
               UNION ALL
               SELECT n.issuer, n.subject FROM people p
               CROSS JOIN LATERAL (SELECT l.issuer, l.subject FROM job_user_log l WHERE (l.issuer, l.subject) > (p.issuer, p.subject)
                                   ORDER BY l.issuer, l.subject LIMIT 1) n)
           SELECT p.issuer AS "issuer!", p.subject AS "subject!", l.name AS "name?", l.email AS "email?", l.groups AS "groups!", l.is_admin AS "is_admin!",
                  f.recorded_at AS "created_at!", l.recorded_at AS "last_login!",
                  (SELECT count(*) FROM job_sessions s
                   WHERE s.issuer = p.issuer AND s.subject = p.subject AND s.expires_at > clock_timestamp()) AS "sessions!"
           FROM people p
           CROSS JOIN LATERAL (SELECT * FROM job_user_log x WHERE x.issuer = p.issuer AND x.subject = p.subject AND x.kind = 'login'
                               ORDER BY x.position DESC LIMIT 1) l
           CROSS JOIN LATERAL (SELECT x.recorded_at FROM job_user_log x WHERE x.issuer = p.issuer AND x.subject = p.subject
                               ORDER BY x.position LIMIT 1) f
           ORDER BY p.issuer, p.subject LIMIT $1"#,
        LISTED_MAX
    )
    .fetch_all(pool)
    .await?)
}
