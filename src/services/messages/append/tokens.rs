//! Commits commands to `message_tokens`, the journal of bearer tokens.

use std::collections::HashSet;

use tokio_postgres::Transaction;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::services::messages::command::TokenCommand;
use crate::store::Error;
use crate::store::append::{Client, Journal};

/// The answer to a token command, given after the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenAnswer {
    /// The command is on disk.
    Recorded,
    /// The token to revoke does not exist.
    Unknown,
    /// The challenge was already used for another token.
    ChallengeUsed,
    /// The wayfarer holds as many tokens as it may.
    TooManyTokens,
}

/// The journal of bearer tokens.
#[derive(Debug)]
pub struct TokenJournal;

// Both statements are idempotent: a token is created once and revoked once, so a batch can be sent again.
const CREATE: &str = "-- create_message_tokens\nSELECT place, status FROM quipu_create_message_tokens($1, $2, $3, $4, $5, $6, $7)";

const REVOKE: &str = "-- revoke_message_tokens
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
        let mut answers = vec![TokenAnswer::Recorded; commands.len()];
        let transaction = client.transaction().await?;
        for (index, answer) in create(&transaction, commands).await? {
            if let Some(slot) = answers.get_mut(index) {
                *slot = answer;
            }
        }
        let revoked = revoke(&transaction, commands).await?;
        transaction.commit().await?;
        for (command, answer) in commands.iter().zip(&mut answers) {
            if let TokenCommand::Revoke { token_sha256, .. } = command
                && !revoked.contains(token_sha256.as_slice())
            {
                *answer = TokenAnswer::Unknown;
            }
        }
        Ok(answers)
    }

    /// Always `None`, so the batch is sent again: both statements are idempotent.
    async fn lookup(
        &self,
        _client: &Client,
        _batch: Uuid,
        _commands: &[TokenCommand],
    ) -> Result<Option<Vec<TokenAnswer>>, Error> {
        Ok(None)
    }
}

/// Executes the `Create` commands. Returns the answers with the indexes of their commands.
async fn create(
    transaction: &Transaction<'_>,
    commands: &[TokenCommand],
) -> Result<Vec<(usize, TokenAnswer)>, Error> {
    let mut indexes = Vec::new();
    let (mut tokens, mut wayfarers, mut devices, mut labels) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut lifetimes, mut challenges, mut limits) = (Vec::new(), Vec::new(), Vec::new());
    for (index, command) in commands.iter().enumerate() {
        if let TokenCommand::Create { token_sha256, wayfarer_id, device, label, lifetime_s, proof } = command
        {
            indexes.push(index);
            tokens.push(token_sha256.as_slice());
            wayfarers.push(wayfarer_id.as_str());
            devices.push(device.as_deref());
            labels.push(label.as_str());
            lifetimes.push(*lifetime_s);
            challenges.push(proof.as_ref().map(|proof| proof.challenge_sha256.as_slice()));
            limits.push(proof.map(|proof| proof.tokens_max));
        }
    }
    if indexes.is_empty() {
        return Ok(Vec::new());
    }
    let rows = transaction
        .query_typed(
            CREATE,
            &[
                (&tokens, Type::BYTEA_ARRAY),
                (&wayfarers, Type::TEXT_ARRAY),
                (&devices, Type::TEXT_ARRAY),
                (&labels, Type::TEXT_ARRAY),
                (&lifetimes, Type::INT8_ARRAY),
                (&challenges, Type::BYTEA_ARRAY),
                (&limits, Type::INT4_ARRAY),
            ],
        )
        .await?;
    let mut answers = Vec::with_capacity(rows.len());
    for row in &rows {
        let (index, status): (i32, &str) = (row.get(0), row.get(1));
        let answer = match status {
            "recorded" => TokenAnswer::Recorded,
            "used" => TokenAnswer::ChallengeUsed,
            "over" => TokenAnswer::TooManyTokens,
            other => {
                let problem = format!("quipu_create_message_tokens returned the unknown status {other}");
                return Err(Error::inconsistent("message_tokens", problem));
            }
        };
        if let Some(index) = usize::try_from(index).ok().and_then(|index| indexes.get(index)) {
            answers.push((*index, answer));
        }
    }
    Ok(answers)
}

/// Executes the `Revoke` commands. Returns the hashes of the tokens that exist.
async fn revoke(transaction: &Transaction<'_>, commands: &[TokenCommand]) -> Result<HashSet<Vec<u8>>, Error> {
    let revocations = commands.iter().filter_map(|command| match command {
        TokenCommand::Revoke { token_sha256, wayfarer_id } => {
            Some((token_sha256.as_slice(), wayfarer_id.as_str()))
        }
        TokenCommand::Create { .. } => None,
    });
    let (tokens, wayfarers): (Vec<&[u8]>, Vec<&str>) = revocations.unzip();
    if tokens.is_empty() {
        return Ok(HashSet::new());
    }
    let rows = transaction
        .query_typed(REVOKE, &[(&tokens, Type::BYTEA_ARRAY), (&wayfarers, Type::TEXT_ARRAY)])
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
