//! `quipu blobs adopt`: follow keys, so that the blobs of their events are kept here.

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use nostr_sdk::{PublicKey, ToBech32 as _};
use serde_json::json;

use super::list::pubkey;
use super::opened::Opened;
use crate::cli::{Context, output};
use crate::services::blossom::command::BlobCommand;
use crate::services::blossom::event::Missed;
use crate::services::blossom::read;
use crate::store::Pools;

/// Keys that are listed.
const KEYS: i64 = 100_000;

/// Who the journal says did it.
pub(super) const ACTOR: &str = "local";

/// Follow keys, or list those that are followed.
#[derive(Debug, Args)]
pub(in crate::cli) struct Adopt {
    /// A key to follow, as hex or npub1…; may be repeated. The service finds its blobs, and keeps them from now on.
    #[arg(long = "pubkey", short, value_name = "KEY", value_parser = pubkey)]
    pubkeys: Vec<PublicKey>,
    /// Follow the keys no longer. What was adopted is kept: its owner can delete it.
    #[arg(long, requires = "pubkeys")]
    stop: bool,
    /// Most blobs to list that could not be found.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(i64).range(0..=100_000))]
    missed: i64,
    /// Print one JSON object for each key and each missed blob.
    #[arg(long)]
    json: bool,
}

impl Adopt {
    pub(super) async fn run(self, context: Context) -> Result<ExitCode> {
        let configured = context.configuration.settings.services.blossom.followed_keys();
        if self.stop
            && let Some(key) = self.pubkeys.iter().find(|key| configured.contains(&key.to_bytes()))
        {
            bail!("{key} is followed by services.blossom.follow_pubkeys: take it out of the settings");
        }
        let opened = Opened::new(context).await?;
        for key in &self.pubkeys {
            let command =
                BlobCommand::Follow { pubkey: key.to_bytes(), is_on: !self.stop, actor: ACTOR.to_owned() };
            opened.react.journal.append(command).await?;
            show(key, !self.stop, self.json)?;
        }
        if self.pubkeys.is_empty() {
            self.list(&opened.react.pools, configured).await?;
        }
        opened.close().await;
        Ok(ExitCode::SUCCESS)
    }

    async fn list(&self, pools: &Pools, configured: BTreeSet<[u8; 32]>) -> Result<()> {
        let mut keys = read::followed_keys(pools, KEYS).await?;
        keys.extend(configured);
        for key in &keys {
            // 32 bytes need not be a point of the curve; the command and the settings take no others.
            if let Ok(key) = PublicKey::from_slice(key) {
                show(&key, true, self.json)?;
            }
        }
        let missed = read::missed(pools, self.missed).await?;
        if self.json {
            for Missed { sha256, why, at } in &missed {
                output::list(json!({ "missed": sha256, "why": why, "at": at }))?;
            }
            return Ok(());
        }
        if keys.is_empty() {
            output::list("No key is followed: `quipu blobs adopt --pubkey npub1…` follows one.")?;
        }
        if !missed.is_empty() {
            output::list("")?;
            let rows = missed.iter().map(|missed| {
                [
                    missed.sha256.to_string(),
                    output::instant(missed.at.timestamp()),
                    output::one_line(&missed.why, 200),
                ]
            });
            output::list(output::table(["not found", "last looked for", "last place"], rows))?;
        }
        Ok(())
    }
}

fn show(key: &PublicKey, is_on: bool, json: bool) -> Result<()> {
    if json {
        return output::list(json!({ "pubkey": key.to_hex(), "followed": is_on }));
    }
    let shown = key.to_bech32().unwrap_or_else(|_| key.to_hex());
    output::list(format_args!("{shown}  {}", if is_on { "followed" } else { "not followed any longer" }))
}
