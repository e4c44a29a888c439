//! Commits commands to `job_user_log`, the journal of people who log in, with their sessions in the same
//! transaction.

use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::services::jobs::command::{NewSession, UserCommand};
use crate::store::append::{Client, Journal};
use crate::store::{Error, Pools};

/// Sessions of one person; a further one ends the oldest.
const SESSIONS_MAX: i32 = 32;

/// The answer to a command about a person, given after the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserAnswer {
    /// The session is open, or has ended.
    Done,
    /// There is no such session.
    Unknown,
}

/// The journal of people who log in.
#[derive(Debug)]
pub struct UserJournal;

// Each statement is idempotent: a session begins once and ends once in each way, so it can be sent again.
const LOGIN: &str = "-- open_job_session
    WITH entry AS (
        INSERT INTO job_user_log (kind, session, issuer, subject, label, name, email, groups, is_admin, actor)
        VALUES ('login', $1, $3, $4, $5, $6, $7, $8, $9, 'user:' || $5)
        ON CONFLICT DO NOTHING RETURNING session),
    gone AS (
        DELETE FROM job_sessions WHERE session IN (
            SELECT s.session FROM job_sessions s WHERE s.issuer = $3 AND s.subject = $4
            ORDER BY s.created_at DESC OFFSET $11 - 1))
    INSERT INTO job_sessions (secret_sha256, session, issuer, subject, label, name, email, groups, is_admin, expires_at)
    SELECT $2, session, $3, $4, $5, $6, $7, $8, $9, clock_timestamp() + make_interval(secs => $10) FROM entry";

const LOGOUT: &str = "-- close_job_session
    WITH gone AS (DELETE FROM job_sessions WHERE secret_sha256 = $1 RETURNING *)
    INSERT INTO job_user_log (kind, session, issuer, subject, label, name, email, groups, is_admin, actor)
    SELECT 'logout', session, issuer, subject, label, name, email, groups, is_admin, 'user:' || label FROM gone
    ON CONFLICT DO NOTHING RETURNING session";

const REVOKE: &str = "-- revoke_job_session
    WITH gone AS (DELETE FROM job_sessions WHERE session = $1 RETURNING *),
    entry AS (
        INSERT INTO job_user_log (kind, session, issuer, subject, label, name, email, groups, is_admin, actor)
        SELECT 'revoked', session, issuer, subject, label, name, email, groups, is_admin, $2 FROM gone
        ON CONFLICT DO NOTHING RETURNING session)
    SELECT session FROM entry
    UNION ALL
    SELECT session FROM job_user_log WHERE session = $1 AND kind = 'revoked'";

impl Journal for UserJournal {
    type Command = UserCommand;
    type Answer = UserAnswer;
    const NAME: &'static str = "job_user_log";
    const QUEUE_MAX: usize = 256;

    fn batch_weight_max(&self) -> usize {
        64
    }

    async fn append(
        &self,
        client: &mut Client,
        _batch: Uuid,
        commands: &[UserCommand],
    ) -> Result<Vec<UserAnswer>, Error> {
        let transaction = client.transaction().await?;
        let mut answers = Vec::with_capacity(commands.len());
        for command in commands {
            let rows = match command {
                UserCommand::Login(new) => {
                    open(&transaction, new).await?;
                    answers.push(UserAnswer::Done);
                    continue;
                }
                UserCommand::Logout { sha256 } => {
                    transaction.query_typed(LOGOUT, &[(&sha256.as_slice(), Type::BYTEA)]).await?
                }
                UserCommand::Revoke { session, actor } => {
                    transaction.query_typed(REVOKE, &[(session, Type::UUID), (actor, Type::TEXT)]).await?
                }
            };
            answers.push(if rows.is_empty() { UserAnswer::Unknown } else { UserAnswer::Done });
        }
        transaction.commit().await?;
        Ok(answers)
    }

    /// Always `None`, so the batch is sent again: every statement is idempotent. A logout whose answer was lost is
    /// then answered as unknown, which means the same to its person.
    async fn lookup(
        &self,
        _client: &Client,
        _batch: Uuid,
        _commands: &[UserCommand],
    ) -> Result<Option<Vec<UserAnswer>>, Error> {
        Ok(None)
    }
}

async fn open(transaction: &tokio_postgres::Transaction<'_>, new: &NewSession) -> Result<(), Error> {
    transaction
        .execute_typed(
            LOGIN,
            &[
                (&new.session, Type::UUID),
                (&new.sha256.as_slice(), Type::BYTEA),
                (&new.issuer, Type::TEXT),
                (&new.subject, Type::TEXT),
                (&new.label, Type::TEXT),
                (&new.name, Type::TEXT),
                (&new.email, Type::TEXT),
                (&new.groups, Type::TEXT_ARRAY),
                (&new.is_admin, Type::BOOL),
                (&f64::from(new.lifetime_s), Type::FLOAT8),
                (&SESSIONS_MAX, Type::INT4),
            ],
        )
        .await?;
    Ok(())
}

/// Removes sessions and logins that have expired. They are refused before; this only makes room.
pub async fn forget_expired_sessions(pools: &Pools) -> Result<(), Error> {
    let client = pools.write.get().await?;
    client
        .execute_typed(
            "-- forget_expired_job_sessions
             WITH logins AS (DELETE FROM job_logins WHERE expires_at <= clock_timestamp())
             DELETE FROM job_sessions WHERE expires_at <= clock_timestamp()",
            &[],
        )
        .await?;
    Ok(())
}
