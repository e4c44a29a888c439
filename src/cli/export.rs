//! `quipu export`: stored events as JSON lines, streamed.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use futures_util::StreamExt;

use super::{Context, output};
use crate::base::{RelayUrl, counted};
use crate::services::archive::read::{EventFilter, event_total, stored_events};
use crate::store::Pools;
use crate::telemetry::notice;

/// Write stored events as JSON lines, oldest first, exactly as they were signed.
#[derive(Debug, Args)]
pub(super) struct Export {
    /// Only events from this `created_at` on, unix seconds.
    #[arg(long, value_name = "SECONDS")]
    since: Option<i64>,
    /// Only events up to this `created_at`, unix seconds.
    #[arg(long, value_name = "SECONDS")]
    until: Option<i64>,
    /// Only these kinds.
    #[arg(long = "kind", value_name = "KIND", value_parser = clap::value_parser!(i32).range(0..=65_535))]
    kinds: Vec<i32>,
    /// Only events of these authors: public keys in hex or npub.
    #[arg(long = "author", value_name = "KEY", value_parser = public_key)]
    authors: Vec<[u8; 32]>,
    /// Only events that this relay has shown.
    #[arg(long, value_name = "URL")]
    relay: Option<String>,
    /// Write to this file instead of standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// A public key in hex or npub.
pub(super) fn public_key(text: &str) -> Result<[u8; 32], String> {
    nostr_sdk::PublicKey::parse(text).map(nostr_sdk::PublicKey::to_bytes).map_err(|e| e.to_string())
}

impl Export {
    pub(super) async fn run(self, context: Context) -> Result<ExitCode> {
        let relay = self.relay.as_deref().map(RelayUrl::parse).transpose().context("--relay")?;
        let filter = EventFilter {
            since: self.since,
            until: self.until,
            kinds: self.kinds,
            authors: self.authors.iter().map(|key| key.to_vec()).collect(),
            relay: relay.map(String::from),
        };
        let pools = context.pools_to_read().await?;
        let mut out: Box<dyn Write> = match &self.output {
            Some(path) => {
                Box::new(File::create(path).with_context(|| format!("cannot write {}", path.display()))?)
            }
            None => Box::new(std::io::stdout()),
        };
        let total = u64::try_from(event_total(&pools.read).await?).unwrap_or(0);
        let bar = output::count_bar(total, "event", "events");
        let exported = write_events(&pools, &filter, &mut out, &bar).await;
        bar.finish_and_clear();
        pools.close().await;
        let Exported { written, unreadable } = exported?;
        notice(counted(written, "event", "events"));
        if unreadable > 0 {
            bail!(
                "{} cannot be read and had to be left out: `quipu verify --events` names what is broken",
                counted(unreadable, "event", "events")
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The numbers of events that were written and that could not be read.
#[derive(Debug, Default)]
struct Exported {
    written: u64,
    unreadable: u64,
}

async fn write_events(
    pools: &Pools,
    filter: &EventFilter,
    out: &mut dyn Write,
    bar: &indicatif::ProgressBar,
) -> Result<Exported> {
    let mut out = BufWriter::with_capacity(256 * 1024, out);
    let mut events = pin!(stored_events(&pools.read, filter));
    let mut exported = Exported::default();
    while let Some(event) = events.next().await {
        let json = match event?.json() {
            Ok(Some(json)) => json,
            Ok(None) => bail!(
                "this implementation stores neither tags nor content, so events cannot be returned as they were signed"
            ),
            Err(unreadable) => {
                bar.suspend(|| notice(format_args!("{unreadable}; skipped")));
                exported.unreadable += 1;
                continue;
            }
        };
        output::written(writeln!(out, "{json}"))?;
        exported.written += 1;
        bar.inc(1);
    }
    output::written(out.flush())?;
    Ok(exported)
}
