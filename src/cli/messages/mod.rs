//! `quipu messages`: tokens and keys that prove an identity, and a client that sends and receives messages.

mod client;
mod exchange;
mod frame;
mod key;
mod line;
mod token;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use url::Url;

use super::Context;
use super::exposure::is_exposed;
use crate::app::instance;
use crate::base::Secret;
use crate::net::Egress;
use crate::services::messages::decide::wayfarer_id_of;
use crate::telemetry::notice;
use client::{Login, Proof};

/// Manage tokens and keys; send and receive messages.
#[derive(Debug, Subcommand)]
pub(super) enum Messages {
    /// Create, list and revoke the bearer tokens that prove a `wayfarer_id` to this relay.
    #[command(subcommand)]
    Token(token::Tokens),
    /// Create an ed25519 key, which proves a `wayfarer_id` to every relay that asks for proof.
    #[command(subcommand)]
    Key(key::Key),
    /// Send a message. Succeeds when the message is on the relay's disk.
    Send(exchange::Send),
    /// Get waiting messages.
    Pull(exchange::Pull),
    /// Show waiting messages, then new ones as they arrive, until Ctrl-C.
    Tail(exchange::Tail),
}

impl Messages {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode> {
        match self {
            Self::Token(tokens) => tokens.run(context).await,
            Self::Key(key) => key.run(),
            Self::Send(send) => send.run(context).await,
            Self::Pull(pull) => pull.run(context).await,
            Self::Tail(tail) => tail.run(context).await,
        }
    }
}

/// The relay, and the identity of the client.
#[derive(Debug, Args)]
struct LoginArgs {
    /// The relay's URL. Without it: that of the instance on `--data`, or else `ws://127.0.0.1:4705/ws`.
    #[arg(long, value_name = "URL")]
    url: Option<Url>,
    /// Your `wayfarer_id`. With --key it is that of the key.
    #[arg(long = "as", value_name = "ID")]
    wayfarer_id: Option<String>,
    /// The name of this device. Each device acknowledges messages separately.
    #[arg(long, default_value = "cli", value_name = "NAME")]
    device: String,
    /// A bearer token that proves --as. Prefer the environment variable: other users of the machine can see
    /// arguments.
    #[arg(long, env = "QUIPU_MESSAGES_TOKEN", hide_env_values = true, value_name = "TOKEN", value_parser = secret)]
    token: Option<Secret>,
    /// A key file of `quipu messages key create`, which signs the relay's challenge. It takes precedence over
    /// a token.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Sign only challenges that name this relay.
    #[arg(long, requires = "key", value_name = "NAME")]
    relay_id: Option<String>,
}

#[expect(clippy::unnecessary_wraps, reason = "the shape that clap asks for")]
fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}

impl LoginArgs {
    fn login(self, context: &Context) -> Result<Login> {
        let url = self.url.map_or_else(|| instance_url(context), Ok)?;
        if !matches!(url.scheme(), "ws" | "wss") {
            bail!("--url: `{url}` is not a WebSocket URL: expected ws://host/ws or wss://host/ws");
        }
        let proof = match (&self.key, self.token) {
            (Some(file), _) => Proof::Key(key::read(file)?),
            (None, Some(token)) => {
                if is_exposed(&url) {
                    notice(format_args!(
                        "quipu: the token is sent to {url} unencrypted; use wss:// if the relay offers it"
                    ));
                }
                Proof::Token(token)
            }
            (None, None) => Proof::None,
        };
        let wayfarer_id = match (&proof, self.wayfarer_id) {
            (Proof::Key(key), claimed) => {
                let own = wayfarer_id_of(&key.verifying_key().to_bytes());
                if claimed.is_some_and(|claimed| claimed != own) {
                    bail!("--as: the key proves another id, {own}; omit --as");
                }
                own
            }
            (_, Some(claimed)) => claimed,
            (_, None) => bail!(
                "an identity is needed: `--as ID` with a token of `quipu messages token create`, or `--key FILE`"
            ),
        };
        let outside = Egress::new(&context.configuration.settings.networks).context("networks")?;
        Ok(Login { outside, url, wayfarer_id, device: self.device, proof, relay_id: self.relay_id })
    }
}

/// The relay of the instance that runs on the data folder, or the default address of one.
fn instance_url(context: &Context) -> Result<Url> {
    let running = instance::running(&context.data).ok();
    let address = running.and_then(|instance| instance.services.get("messages").cloned());
    let address = address.unwrap_or_else(|| "127.0.0.1:4705".to_owned());
    Url::parse(&format!("ws://{address}/ws")).with_context(|| format!("the instance's address `{address}`"))
}
