//! `quipu tokens`: API tokens of the job queue, made directly in the database. The first one has to be made so.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Context, output};
use crate::services::jobs::append::{CredentialAnswer, CredentialJournal};
use crate::services::jobs::command::{CredentialCommand, NewCredential};
use crate::services::jobs::decide::{NAME_BYTES_MAX, Scope, TOKEN_DAYS_MAX};
use crate::services::jobs::edge::{draw_token, hash};
use crate::services::jobs::read::{self, StoredToken};
use crate::store::append::Writer;
use crate::store::{AppendMetrics, Hints, PoolSizes, Pools};
use crate::telemetry::notice;

/// The actor in journal entries.
const ACTOR: &str = "cli";

/// API tokens of the job queue.
#[derive(Debug, Subcommand)]
pub(super) enum Tokens {
    /// Create a token. It is printed once and not stored.
    Create(Create),
    /// List the valid tokens.
    List {
        /// Print one JSON object for each token.
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token.
    #[command(alias = "delete")]
    Revoke {
        /// Its id, as the list shows it.
        id: i64,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// Create a token.
#[derive(Debug, Args)]
pub(super) struct Create {
    /// A name for people, which the history of jobs shows.
    #[arg(long, value_name = "NAME", value_parser = name, required_unless_present = "place")]
    name: Option<String>,
    /// The name in BlobForge's place.
    #[arg(id = "place", value_name = "NAME", value_parser = name, conflicts_with = "name")]
    name_as_in_blobforge: Option<String>,
    /// Let the token do everything, tokens and secrets of workers included.
    #[arg(long)]
    admin: bool,
    /// What the token may do: read, submit, manage, work; may be repeated [default: all of these].
    #[arg(long = "scope", value_name = "SCOPE", value_parser = scope)]
    scopes: Vec<String>,
    /// Days after which the token expires [default: never].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=TOKEN_DAYS_MAX))]
    expires_in: Option<i64>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX || text.contains(char::is_control) {
        return Err(format!("1 to {NAME_BYTES_MAX} bytes, without control characters"));
    }
    Ok(text.to_owned())
}

fn scope(word: &str) -> Result<String, String> {
    let known = || Scope::GRANTABLE.map(Scope::as_str).join(", ");
    Scope::parse(word).map(|scope| scope.as_str().to_owned()).ok_or_else(|| format!("one of {}", known()))
}

impl Tokens {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode> {
        let pools = Pools::open(&context.urls()?, PoolSizes::default())?;
        let done = match self {
            Self::Create(create) => create.run(&pools).await,
            Self::List { json } => list(&pools, json).await,
            Self::Revoke { id, json } => revoke(&pools, id, json).await,
        };
        pools.close().await;
        done.map(|()| ExitCode::SUCCESS)
    }
}

impl Create {
    async fn run(self, pools: &Pools) -> Result<()> {
        let name = self.name.or(self.name_as_in_blobforge).unwrap_or_default();
        let token = draw_token();
        let create = CredentialCommand::Create(Box::new(NewCredential {
            sha256: hash(&token),
            name: name.clone(),
            worker: None,
            is_admin: self.admin,
            scopes: self.scopes,
            lifetime_s: self.expires_in.map(|days| days * 86_400),
            actor: ACTOR.to_owned(),
        }));
        let CredentialAnswer::Created { id } = append(pools, create).await? else {
            bail!("the token was not created")
        };
        if self.json {
            output::say(json!({ "id": id, "token": token, "name": name, "is_admin": self.admin }));
        } else {
            output::say(token);
            notice(format_args!(
                "token {id} of {name}, not shown again; `quipu tokens revoke {id}` revokes it"
            ));
        }
        Ok(())
    }
}

/// Commits one command.
async fn append(pools: &Pools, command: CredentialCommand) -> Result<CredentialAnswer> {
    let (writer, task) =
        Writer::new(CredentialJournal, pools.write.clone(), Hints::default(), &AppendMetrics::default());
    // The writer is dropped after its only command, which ends the task.
    let (answer, ()) = tokio::join!(async move { writer.append(command).await }, task);
    Ok(answer?)
}

async fn list(pools: &Pools, json: bool) -> Result<()> {
    let tokens = read::tokens(&pools.session).await?;
    if json {
        for token in &tokens {
            output::list(facts(token))?;
        }
        return Ok(());
    }
    if tokens.is_empty() {
        notice("no token is valid: `quipu tokens create --admin --name NAME` creates one");
        return Ok(());
    }
    let rows = tokens.iter().map(|token| {
        let may = match (token.is_admin, token.scopes.is_empty()) {
            (true, _) => "admin".to_owned(),
            (false, true) => Scope::GRANTABLE.map(Scope::as_str).join(", "),
            (false, false) => token.scopes.join(", "),
        };
        let ends = token.expires_at.map_or_else(|| "-".to_owned(), |at| output::instant(at.timestamp()));
        [
            token.id.to_string(),
            output::one_line(&token.name, 64),
            may,
            output::instant(token.created_at.timestamp()),
            ends,
        ]
    });
    output::list(output::table(["id", "name", "may", "created", "ends"], rows))
}

async fn revoke(pools: &Pools, id: i64, json: bool) -> Result<()> {
    let revoke = CredentialCommand::RevokeToken { id, actor: ACTOR.to_owned() };
    if append(pools, revoke).await? == CredentialAnswer::Unknown {
        bail!("there is no token {id}: `quipu tokens list` shows the valid ones");
    }
    if json {
        output::say(json!({ "id": id, "revoked": true }));
    } else {
        output::say(format_args!("{id}  revoked"));
    }
    Ok(())
}

fn facts(token: &StoredToken) -> Value {
    json!({
        "id": token.id, "name": token.name, "is_admin": token.is_admin, "scopes": token.scopes,
        "created_at": token.created_at, "expires_at": token.expires_at,
    })
}
