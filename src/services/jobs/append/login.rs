//! What belongs to a browser on its way to the provider of logins, in `job_logins`.

use tokio_postgres::types::Type;

use crate::base::Secret;
use crate::store::{Error, Pools};

/// Browsers on their way to the provider at the same time: a login begins without a credential.
const LOGINS_MAX: i32 = 10_000;

/// Time for a login, seconds.
const LOGIN_S: i32 = 600;

/// A browser on its way to the provider. Secrets are stored as they are for ten minutes, since they come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingLogin {
    /// SHA-256 of the state.
    pub state_sha256: [u8; 32],
    /// SHA-256 of the cookie of the browser.
    pub browser_sha256: [u8; 32],
    /// Comes back in the ID token.
    pub nonce: Secret,
    /// Code verifier.
    pub verifier: Secret,
    /// Path to which the browser goes after the login.
    pub return_to: String,
}

/// Keeps what belongs to a browser until it returns. Returns whether there was room for it.
pub async fn begin_login(pools: &Pools, login: &PendingLogin) -> Result<bool, Error> {
    let client = pools.write.get().await?;
    let kept = client
        .execute_typed(
            "-- begin_job_login
             INSERT INTO job_logins (state_sha256, browser_sha256, nonce, verifier, return_to, expires_at)
             SELECT $1, $2, $3, $4, $5, clock_timestamp() + make_interval(secs => $6)
             WHERE (SELECT count(*) FROM (SELECT FROM job_logins LIMIT $7) l) < $7",
            &[
                (&login.state_sha256.as_slice(), Type::BYTEA),
                (&login.browser_sha256.as_slice(), Type::BYTEA),
                (&login.nonce.expose(), Type::TEXT),
                (&login.verifier.expose(), Type::TEXT),
                (&login.return_to, Type::TEXT),
                (&f64::from(LOGIN_S), Type::FLOAT8),
                (&LOGINS_MAX, Type::INT4),
            ],
        )
        .await?;
    Ok(kept == 1)
}

/// Takes what was kept for a browser that returns with this state and cookie: once, whatever comes of it. `None`
/// if nothing was, or the time for the login is over.
pub async fn take_login(
    pools: &Pools,
    state_sha256: [u8; 32],
    browser_sha256: [u8; 32],
) -> Result<Option<PendingLogin>, Error> {
    let client = pools.write.get().await?;
    let rows = client
        .query_typed(
            "-- take_job_login
             WITH taken AS (DELETE FROM job_logins WHERE state_sha256 = $1 AND browser_sha256 = $2 RETURNING *)
             SELECT nonce, verifier, return_to FROM taken WHERE expires_at > clock_timestamp()",
            &[(&state_sha256.as_slice(), Type::BYTEA), (&browser_sha256.as_slice(), Type::BYTEA)],
        )
        .await?;
    Ok(rows.first().map(|row| PendingLogin {
        state_sha256,
        browser_sha256,
        nonce: Secret::new(row.get::<_, String>(0)),
        verifier: Secret::new(row.get::<_, String>(1)),
        return_to: row.get(2),
    }))
}
