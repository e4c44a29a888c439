//! `quipu messages token`: bearer tokens.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use rand::Rng as _;
use serde_json::{Value, json};

use crate::cli::{Context, output};
use crate::services::messages::append::{TokenAnswer, TokenJournal};
use crate::services::messages::command::TokenCommand;
use crate::services::messages::decide::token_sha256;
use crate::services::messages::read::{self, Token};
use crate::store::append::Writer;
use crate::store::{AppendMetrics, Hints, PoolSizes, Pools};
use crate::telemetry::notice;

/// The prefix of every token.
const PREFIX: &str = "qm_";

/// Hex digits of a token's hash in listings.
const SHOWN_DIGITS: usize = 12;

/// Most tokens that are listed.
const LISTED_MAX: i64 = 100_000;

/// Longest id, device and label, in bytes.
const TEXT_BYTES_MAX: usize = 256;

/// A hundred years, in seconds.
const LIFE_S_MAX: i64 = 100 * 365 * 86_400;

/// Bearer tokens.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Tokens {
    /// Create a token. It is printed once and not stored.
    Create(Create),
    /// List the valid tokens, by the first digits of their hashes.
    List {
        /// Only the tokens of this `wayfarer_id`.
        #[arg(long, value_name = "ID")]
        wayfarer: Option<String>,
        /// Print one JSON object for each token.
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token.
    Revoke {
        /// The token, or the first digits of its hash as the list shows them.
        #[arg(value_name = "HASHPREFIX|TOKEN")]
        token: String,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// Create a token.
#[derive(Debug, Args)]
pub(in crate::cli) struct Create {
    /// The `wayfarer_id` that the token proves.
    #[arg(long, value_name = "ID", value_parser = text)]
    wayfarer: String,
    /// The only device that may use the token [default: every device].
    #[arg(long, value_name = "D", value_parser = text)]
    device: Option<String>,
    /// A note of your own, for the list.
    #[arg(long, default_value = "", value_name = "TEXT")]
    label: String,
    /// Seconds after which the token expires [default: never].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=LIFE_S_MAX))]
    ttl_seconds: Option<i64>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn text(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > TEXT_BYTES_MAX || text.contains(char::is_control) {
        return Err(format!("1 to {TEXT_BYTES_MAX} bytes, without control characters"));
    }
    Ok(text.to_owned())
}

impl Tokens {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode> {
        let pools = Pools::open(&context.urls_to_write().await?, PoolSizes::default())?;
        let done = match self {
            Self::Create(create) => create.run(&pools).await,
            Self::List { wayfarer, json } => list(&pools, wayfarer.as_deref(), json).await,
            Self::Revoke { token, json } => revoke(&pools, &token, json).await,
        };
        pools.close().await;
        done.map(|()| ExitCode::SUCCESS)
    }
}

impl Create {
    async fn run(self, pools: &Pools) -> Result<()> {
        if self.label.len() > TEXT_BYTES_MAX {
            bail!("--label: at most {TEXT_BYTES_MAX} bytes");
        }
        let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(rand::rng().random::<[u8; 32]>()));
        let token_sha256 = token_sha256(&token);
        let create = TokenCommand::Create {
            token_sha256,
            wayfarer_id: self.wayfarer,
            device: self.device,
            label: self.label,
            lifetime_s: self.ttl_seconds,
            proof: None,
        };
        append(pools, create).await?;
        let made = read::token(&pools.session, &token_sha256).await?;
        let made = made.context("the token has expired already: give a longer --ttl-seconds")?;
        if self.json {
            let mut object = facts(&made);
            object["token"] = token.into();
            output::say(object);
        } else {
            output::say(token);
            notice(format_args!(
                "valid for {} from now on, and not shown again; `quipu messages token revoke {}` revokes it",
                made.wayfarer_id,
                shown(&made)
            ));
        }
        Ok(())
    }
}

/// Commits one command.
async fn append(pools: &Pools, command: TokenCommand) -> Result<TokenAnswer> {
    let (writer, task) =
        Writer::new(TokenJournal, pools.write.clone(), Hints::default(), &AppendMetrics::default());
    // The writer is dropped after its only command, which ends the task.
    let (answer, ()) = tokio::join!(async move { writer.append(command).await }, task);
    Ok(answer?)
}

async fn list(pools: &Pools, wayfarer: Option<&str>, json: bool) -> Result<()> {
    let tokens = read::tokens(&pools.session, wayfarer, LISTED_MAX).await?;
    if json {
        for token in &tokens {
            output::list(facts(token))?;
        }
        return Ok(());
    }
    if tokens.is_empty() {
        notice("no token is valid: `quipu messages token create --wayfarer ID` creates one");
        return Ok(());
    }
    let rows = tokens.iter().map(|token| {
        let device = token.device.clone().unwrap_or_else(|| "any".to_owned());
        let ends = token.expires_at.map_or_else(|| "-".to_owned(), output::instant);
        let (made, label) = (output::instant(token.created_at), token.label.clone());
        [shown(token), token.wayfarer_id.clone(), device, made, ends, label]
    });
    output::list(output::table(["token", "wayfarer", "device", "created", "ends", "label"], rows))
}

async fn revoke(pools: &Pools, named: &str, json: bool) -> Result<()> {
    let found = find(pools, named).await?;
    let token_sha256 =
        found.sha256.as_slice().try_into().context("a hash in message_tokens is not of 32 bytes")?;
    append(pools, TokenCommand::Revoke { token_sha256, wayfarer_id: found.wayfarer_id.clone() }).await?;
    if json {
        let mut object = facts(&found);
        object["revoked"] = true.into();
        output::say(object);
    } else {
        output::say(format_args!("{}  revoked, was valid for {}", shown(&found), found.wayfarer_id));
    }
    Ok(())
}

/// Finds a token by itself or by the first digits of its hash.
async fn find(pools: &Pools, named: &str) -> Result<Token> {
    const NONE: &str = "no such token is valid: `quipu messages token list` shows the valid ones";
    if named.starts_with(PREFIX) {
        return read::token(&pools.session, &token_sha256(named)).await?.context(NONE);
    }
    let beginning = named.to_ascii_lowercase();
    if beginning.len() < 4 || !beginning.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        bail!(
            "`{named}` is neither a token ({PREFIX}…) nor the first four or more hex digits of a token's hash"
        );
    }
    let tokens = read::tokens(&pools.session, None, LISTED_MAX).await?;
    let mut meant = tokens.into_iter().filter(|token| hex::encode(&token.sha256).starts_with(&beginning));
    let found = meant.next().context(NONE)?;
    if meant.next().is_some() {
        bail!("several hashes begin with `{named}`: give more digits");
    }
    Ok(found)
}

fn shown(token: &Token) -> String {
    hex::encode(&token.sha256).chars().take(SHOWN_DIGITS).collect()
}

fn facts(token: &Token) -> Value {
    json!({
        "sha256": hex::encode(&token.sha256), "wayfarer_id": token.wayfarer_id, "device": token.device, "label": token.label,
        "created_at": token.created_at, "expires_at": token.expires_at,
    })
}
