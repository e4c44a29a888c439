//! `quipu messages`: tokens and keys that prove who somebody is, and a client that sends and receives.

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
use url::{Host, Url};

use super::Context;
use crate::base::{Network, Secret, is_local_ip, is_local_name};
use crate::net::Outside;
use crate::services::messages::decide::wayfarer_id_of;
use client::{Login, Proof};

/// Tokens, keys, and a client that sends and receives.
#[derive(Debug, Subcommand)]
pub(super) enum Messages {
    /// Create, list and revoke the bearer tokens that prove a `wayfarer_id` to this relay.
    #[command(subcommand)]
    Token(token::Tokens),
    /// Make an ed25519 key, which proves a `wayfarer_id` to any relay that asks for proof.
    #[command(subcommand)]
    Key(key::Key),
    /// Send a message; answered when it is on the relay's disk.
    Send(exchange::Send),
    /// Get the messages that wait.
    Pull(exchange::Pull),
    /// Show messages as they come, those that wait first; until Ctrl-C.
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

/// Which relay, and as whom.
#[derive(Debug, Args)]
struct Who {
    /// The relay.
    #[arg(long, default_value = "ws://127.0.0.1:4705/ws", value_name = "URL")]
    url: Url,
    /// Your `wayfarer_id`; with --key that of the key.
    #[arg(long = "as", value_name = "ID")]
    wayfarer_id: Option<String>,
    /// What this device is called; each device acknowledges for itself.
    #[arg(long, default_value = "cli", value_name = "NAME")]
    device: String,
    /// A bearer token that proves --as; better in the environment, where other users do not see it.
    #[arg(long, env = "QUIPU_MESSAGES_TOKEN", hide_env_values = true, value_name = "TOKEN", value_parser = secret)]
    token: Option<Secret>,
    /// A key of `quipu messages key create`, which answers the relay's challenge. It goes before a token.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Sign challenges of the relay that calls itself this, and of no other.
    #[arg(long, requires = "key", value_name = "NAME")]
    relay_id: Option<String>,
}

#[expect(clippy::unnecessary_wraps, reason = "the shape that clap asks for")]
fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}

impl Who {
    fn login(self, context: &Context) -> Result<Login> {
        if !matches!(self.url.scheme(), "ws" | "wss") {
            bail!("--url: `{}` is no WebSocket's URL: ws://host/ws or wss://host/ws", self.url);
        }
        let proof = match (&self.key, self.token) {
            (Some(file), _) => Proof::Key(key::read(file)?),
            (None, Some(token)) => {
                if is_overheard(&self.url) {
                    eprintln!(
                        "quipu: the token goes to {} unencrypted, use wss:// where it is offered",
                        self.url
                    );
                }
                Proof::Token(token)
            }
            (None, None) => Proof::None,
        };
        let wayfarer_id = match (&proof, self.wayfarer_id) {
            (Proof::Key(key), claimed) => {
                let own = wayfarer_id_of(&key.verifying_key().to_bytes());
                if claimed.is_some_and(|claimed| claimed != own) {
                    bail!("--as: the key proves {own} and nobody else; leave --as out");
                }
                own
            }
            (_, Some(claimed)) => claimed,
            (_, None) => bail!(
                "say who you are: `--as ID`, with a token of `quipu messages token create`, or `--key FILE`"
            ),
        };
        let outside = Outside::new(&context.configuration.settings.networks).context("networks")?;
        Ok(Login { outside, url: self.url, wayfarer_id, device: self.device, proof, relay_id: self.relay_id })
    }
}

/// Whether strangers may read what goes there.
fn is_overheard(url: &Url) -> bool {
    let is_local = match url.host() {
        Some(Host::Domain(name)) => is_local_name(name) || Network::of_host(name) != Network::Clearnet,
        Some(Host::Ipv4(ip)) => is_local_ip(ip.into()),
        Some(Host::Ipv6(ip)) => is_local_ip(ip.into()),
        None => true,
    };
    url.scheme() == "ws" && !is_local
}
