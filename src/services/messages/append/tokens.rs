//! `message_tokens`: who may say who he is.

use std::collections::HashSet;

use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::services::messages::command::TokenCommand;
use crate::store::Error;
use crate::store::append::{Client, Journal};

/// What a token command's caller is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenAnswer {
    /// It is on disk.
    Recorded,
    /// There is no such token to revoke.
    Unknown,
}

/// The journal of tokens.
#[derive(Debug)]
pub struct TokenJournal;

// Both statements may be sent again: the same token is created and revoked once.
const CREATE: &str = "
    INSERT INTO message_tokens (kind, token_sha256, wayfarer_id, device, label, expires_at)
    SELECT 'created', t.token, t.wayfarer, t.device, t.label, clock_timestamp() + make_interval(secs => t.life)
    FROM unnest($1::bytea[], $2::text[], $3::text[], $4::text[], $5::bigint[]) AS t (token, wayfarer, device, label, life)
    ON CONFLICT (token_sha256, kind) DO NOTHING";

const REVOKE: &str = "
    WITH asked AS (
        SELECT t.token_sha256, t.wayfarer_id, t.device, t.label FROM message_tokens t
        JOIN unnest($1::bytea[], $2::text[]) AS o (token, wayfarer) ON o.token = t.token_sha256 AND o.wayfarer = t.wayfarer_id
        WHERE t.kind = 'created'),
    gone AS (
        INSERT INTO message_tokens (kind, token_sha256, wayfarer_id, device, label)
        SELECT 'revoked', a.token_sha256, a.wayfarer_id, a.device, a.label FROM asked a ORDER BY 1
        ON CONFLICT (token_sha256, kind) DO NOTHING)
    SELECT token_sha256 FROM asked";

impl Journal for TokenJournal {
    type Command = TokenCommand;
    type Answer = TokenAnswer;
    const NAME: &'static str = "message_tokens";
    const QUEUE_MAX: usize = 1_024;

    fn batch_weight_max(&self) -> usize {
        256
    }

    async fn append(
        &self,
        client: &mut Client,
        _batch: Uuid,
        commands: &[TokenCommand],
    ) -> Result<Vec<TokenAnswer>, Error> {
        let (mut made, mut gone) = (Vec::new(), Vec::new());
        for command in commands {
            match command {
                TokenCommand::Create { token_sha256, wayfarer_id, device, label, life_s } => {
                    made.push((
                        token_sha256.as_slice(),
                        wayfarer_id.as_str(),
                        device.as_deref(),
                        label.as_str(),
                        *life_s,
                    ));
                }
                TokenCommand::Revoke { token_sha256, wayfarer_id } => {
                    gone.push((token_sha256.as_slice(), wayfarer_id.as_str()));
                }
            }
        }
        let transaction = client.transaction().await?;
        if !made.is_empty() {
            let tokens: Vec<&[u8]> = made.iter().map(|t| t.0).collect();
            let wayfarers: Vec<&str> = made.iter().map(|t| t.1).collect();
            let devices: Vec<Option<&str>> = made.iter().map(|t| t.2).collect();
            let labels: Vec<&str> = made.iter().map(|t| t.3).collect();
            let lives: Vec<Option<i64>> = made.iter().map(|t| t.4).collect();
            transaction
                .execute_typed(
                    CREATE,
                    &[
                        (&tokens, Type::BYTEA_ARRAY),
                        (&wayfarers, Type::TEXT_ARRAY),
                        (&devices, Type::TEXT_ARRAY),
                        (&labels, Type::TEXT_ARRAY),
                        (&lives, Type::INT8_ARRAY),
                    ],
                )
                .await?;
        }
        let mut revoked: HashSet<Vec<u8>> = HashSet::new();
        if !gone.is_empty() {
            let tokens: Vec<&[u8]> = gone.iter().map(|t| t.0).collect();
            let wayfarers: Vec<&str> = gone.iter().map(|t| t.1).collect();
            let rows = transaction
                .query_typed(REVOKE, &[(&tokens, Type::BYTEA_ARRAY), (&wayfarers, Type::TEXT_ARRAY)])
                .await?;
            revoked.extend(rows.iter().map(|row| row.get::<_, Vec<u8>>(0)));
        }
        transaction.commit().await?;
        let answer = |command: &TokenCommand| match command {
            TokenCommand::Revoke { token_sha256, .. } if !revoked.contains(token_sha256.as_slice()) => {
                TokenAnswer::Unknown
            }
            TokenCommand::Create { .. } | TokenCommand::Revoke { .. } => TokenAnswer::Recorded,
        };
        Ok(commands.iter().map(answer).collect())
    }

    /// A batch may be sent again.
    async fn lookup(
        &self,
        _client: &Client,
        _batch: Uuid,
        _commands: &[TokenCommand],
    ) -> Result<Option<Vec<TokenAnswer>>, Error> {
        Ok(None)
    }
}
