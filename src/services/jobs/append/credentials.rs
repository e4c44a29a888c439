//! Commits commands to `job_credentials`, the journal of API tokens and secrets of workers.

use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::services::jobs::command::{CredentialCommand, NewCredential};
use crate::store::Error;
use crate::store::append::{Client, Journal};

/// The answer to a credential command, given after the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialAnswer {
    /// The token or secret is on disk.
    Created {
        /// Its id.
        id: i64,
    },
    /// The token is revoked.
    Revoked,
    /// There is no such token.
    Unknown,
}

/// The journal of credentials.
#[derive(Debug)]
pub struct CredentialJournal;

// Each statement is idempotent: a credential is created once and revoked once, so it can be sent again.
const CREATE: &str = "-- create_job_credential
    WITH made AS (
        INSERT INTO job_credentials (kind, secret_sha256, name, worker, is_admin, scopes, expires_at, actor)
        SELECT 'created', $1, $2, $3, $4, $5, clock_timestamp() + make_interval(secs => $6), $7
        ON CONFLICT DO NOTHING RETURNING position)
    SELECT position FROM made
    UNION ALL
    SELECT position FROM job_credentials WHERE secret_sha256 = $1 AND kind = 'created' LIMIT 1";

const REVOKE: &str = "-- revoke_job_token
    WITH asked AS (SELECT * FROM job_credentials WHERE position = $1 AND kind = 'created' AND worker IS NULL),
    gone AS (
        INSERT INTO job_credentials (kind, secret_sha256, name, worker, is_admin, scopes, expires_at, actor)
        SELECT 'revoked', a.secret_sha256, a.name, a.worker, a.is_admin, a.scopes, a.expires_at, $2 FROM asked a
        ON CONFLICT DO NOTHING)
    SELECT position FROM asked";

const REVOKE_SECRETS: &str = "-- revoke_job_worker_secrets
    INSERT INTO job_credentials (kind, secret_sha256, name, worker, is_admin, scopes, expires_at, actor)
    SELECT 'revoked', c.secret_sha256, c.name, c.worker, c.is_admin, c.scopes, c.expires_at, $3
    FROM job_credentials c WHERE c.worker = $1 AND c.kind = 'created' AND c.secret_sha256 <> $2
    ON CONFLICT DO NOTHING";

impl Journal for CredentialJournal {
    type Command = CredentialCommand;
    type Answer = CredentialAnswer;
    const NAME: &'static str = "job_credentials";
    const QUEUE_MAX: usize = 256;

    fn batch_weight_max(&self) -> usize {
        64
    }

    async fn append(
        &self,
        client: &mut Client,
        _batch: Uuid,
        commands: &[CredentialCommand],
    ) -> Result<Vec<CredentialAnswer>, Error> {
        let transaction = client.transaction().await?;
        let mut answers = Vec::with_capacity(commands.len());
        for command in commands {
            answers.push(match command {
                CredentialCommand::Create(new) => create(&transaction, new).await?,
                CredentialCommand::ReplaceSecret(new) => {
                    transaction
                        .execute_typed(
                            REVOKE_SECRETS,
                            &[
                                (&new.worker, Type::TEXT),
                                (&new.sha256.as_slice(), Type::BYTEA),
                                (&new.actor, Type::TEXT),
                            ],
                        )
                        .await?;
                    create(&transaction, new).await?
                }
                CredentialCommand::RevokeToken { id, actor } => {
                    let rows =
                        transaction.query_typed(REVOKE, &[(id, Type::INT8), (actor, Type::TEXT)]).await?;
                    if rows.is_empty() { CredentialAnswer::Unknown } else { CredentialAnswer::Revoked }
                }
            });
        }
        transaction.commit().await?;
        Ok(answers)
    }

    /// Always `None`, so the batch is sent again: every statement is idempotent.
    async fn lookup(
        &self,
        _client: &Client,
        _batch: Uuid,
        _commands: &[CredentialCommand],
    ) -> Result<Option<Vec<CredentialAnswer>>, Error> {
        Ok(None)
    }
}

async fn create(
    transaction: &tokio_postgres::Transaction<'_>,
    new: &NewCredential,
) -> Result<CredentialAnswer, Error> {
    #[expect(clippy::cast_precision_loss, reason = "a lifetime is far below 2^52 seconds")]
    let lifetime_s = new.lifetime_s.map(|seconds| seconds as f64);
    let rows = transaction
        .query_typed(
            CREATE,
            &[
                (&new.sha256.as_slice(), Type::BYTEA),
                (&new.name, Type::TEXT),
                (&new.worker, Type::TEXT),
                (&new.is_admin, Type::BOOL),
                (&new.scopes, Type::TEXT_ARRAY),
                (&lifetime_s, Type::FLOAT8),
                (&new.actor, Type::TEXT),
            ],
        )
        .await?;
    let id = rows.first().map(|row| row.get(0));
    let missing = || Error::inconsistent("job_credentials", "a new credential has no entry");
    Ok(CredentialAnswer::Created { id: id.ok_or_else(missing)? })
}
