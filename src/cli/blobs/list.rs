//! `quipu blobs list`: the blobs of a key, from a Blossom server.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use indicatif::HumanBytes;
use nostr_sdk::PublicKey;
use serde_json::Value;

use super::server::{ANSWER_WITHIN, Ask, Server, ServerArgs};
use crate::base::Sha256;
use crate::cli::{Context, output};
use crate::net::{Content, Verb};
use crate::services::blossom::decide::authorization::Verb as Action;

/// Blobs asked for at a time.
const PAGE: usize = 100;

/// List the blobs of a key, the newest first.
#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    /// The key, as hex or npub1…. Without it your own.
    #[arg(value_name = "PUBKEY", value_parser = pubkey)]
    pubkey: Option<PublicKey>,
    /// Most blobs; without it all.
    #[arg(long, short, value_name = "N")]
    limit: Option<usize>,
    /// Print one JSON object for each blob.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// A public key of the command line.
pub(super) fn pubkey(text: &str) -> Result<PublicKey, String> {
    PublicKey::parse(text).map_err(|_| "expected 64 hex digits or npub1…".to_owned())
}

impl List {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode> {
        let server = self.server.open(context)?;
        let own = server.keys().map(nostr_sdk::Keys::public_key);
        let key =
            self.pubkey.or(own).context("whose blobs? Give a public key, or your own key by --key-file")?;
        let (mut shown, mut cursor) = (0, None);
        let line = output::count_line("blob", "blobs");
        let most = self.limit.unwrap_or(usize::MAX);
        while shown < most {
            let page = page(&server, &key, (most - shown).min(PAGE), cursor).await?;
            let last =
                page.last().and_then(|blob| blob["sha256"].as_str()).and_then(|digits| digits.parse().ok());
            // A server that knows no cursor answers with the same page again.
            if last.is_none() || last == cursor {
                break;
            }
            let rows = &page[..page.len().min(most - shown)];
            shown += rows.len();
            line.inc(u64::try_from(rows.len()).unwrap_or(u64::MAX));
            line.suspend(|| show(rows, self.json))?;
            cursor = last;
        }
        line.finish_and_clear();
        Ok(ExitCode::SUCCESS)
    }
}

async fn page(server: &Server, key: &PublicKey, limit: usize, cursor: Option<Sha256>) -> Result<Vec<Value>> {
    let after = cursor.map_or_else(String::new, |cursor| format!("&cursor={cursor}"));
    let path = format!("/list/{}?limit={limit}{after}", key.to_hex());
    let asked = server.ask(Ask {
        verb: Verb::Get,
        path: &path,
        action: Action::List,
        blob: None,
        content: Content::None,
        within: ANSWER_WITHIN,
    });
    Ok(asked.await?.1)
}

fn show(rows: &[Value], json: bool) -> Result<()> {
    if json {
        return rows.iter().try_for_each(output::list);
    }
    for blob in rows {
        let text = |name: &str| output::one_line(blob[name].as_str().unwrap_or_default(), 512);
        let uploaded = blob["uploaded"].as_i64().map_or_else(|| "-".to_owned(), output::instant);
        let size = blob["size"].as_u64().unwrap_or_default();
        output::list(format_args!(
            "{uploaded}  {:>12}  {:<24}  {}",
            HumanBytes(size).to_string(),
            text("type"),
            text("url")
        ))?;
    }
    Ok(())
}
