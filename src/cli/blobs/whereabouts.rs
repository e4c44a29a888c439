//! `quipu blobs where`: the copies of a blob, its owners and its history.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use indicatif::HumanBytes;
use serde_json::{Value, json};

use crate::base::Sha256;
use crate::cli::{Context, output};
use crate::services::blossom::event::{HistoryEntry, KnownBlob, LookUp};
use crate::services::blossom::read;
use crate::store::{PoolSizes, Pools};

/// Owners that are shown.
const OWNERS: i64 = 100;

/// Characters of a reason that a table shows.
const SHOWN: usize = 100;

/// Show where the copies of a blob are.
#[derive(Debug, Args)]
pub(in crate::cli) struct Where {
    /// The SHA-256 of the blob.
    #[arg(value_name = "SHA256")]
    sha256: Sha256,
    /// Most entries of the history, the newest.
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(i64).range(0..=10_000))]
    history: i64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Where {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode> {
        let pools = Pools::open(&context.urls_to_write().await?, PoolSizes::default())?;
        let LookUp { blob, ban } = read::look_up(&pools, &self.sha256).await?;
        let history = read::history(&pools, &self.sha256, self.history).await?;
        let owners = read::owners(&pools, &self.sha256, OWNERS).await?;
        let owners: Vec<String> = owners.iter().map(hex::encode).collect();
        pools.close().await;
        if blob.is_none() && ban.is_none() && history.is_empty() {
            bail!("{} is not known here", self.sha256);
        }
        let banned = ban.map(|ban| ban.why);
        if self.json {
            output::list(to_json(self.sha256, blob.as_ref(), &owners, banned.as_deref(), &history))?;
        } else {
            print(self.sha256, blob.as_ref(), &owners, banned.as_deref(), &history)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn to_json(
    sha256: Sha256,
    blob: Option<&KnownBlob>,
    owners: &[String],
    banned: Option<&str>,
    history: &[HistoryEntry],
) -> Value {
    let replicas = blob.iter().flat_map(|blob| &blob.replicas).map(|replica| {
        json!({
            "upstream": replica.upstream, "state": replica.state.as_str(), "since": replica.since, "why": replica.why,
        })
    });
    let history = history.iter().map(|entry| {
        json!({
            "at": entry.at, "kind": entry.kind, "upstream": entry.upstream, "owner": entry.owner,
            "actor": entry.actor, "why": entry.why,
        })
    });
    json!({
        "sha256": sha256,
        "size": blob.map(|blob| blob.facts.size),
        "type": blob.map(|blob| blob.facts.media_type.as_str()),
        "uploaded": blob.map(|blob| blob.uploaded),
        "owners": owners,
        "banned": banned,
        "replicas": replicas.collect::<Value>(),
        "history": history.collect::<Value>(),
    })
}

fn print(
    sha256: Sha256,
    blob: Option<&KnownBlob>,
    owners: &[String],
    banned: Option<&str>,
    history: &[HistoryEntry],
) -> Result<()> {
    let row = |name: &str, value: String| [name.to_owned(), value];
    let mut rows = vec![row("blob", sha256.to_string())];
    if let Some(blob) = blob {
        rows.push(row("size", format!("{} bytes, {}", blob.facts.size, HumanBytes(blob.facts.size))));
        rows.push(row("type", output::one_line(&blob.facts.media_type, SHOWN)));
        rows.push(row("first seen", output::instant(blob.uploaded)));
    }
    if let Some(why) = banned {
        rows.push(row("banned", output::one_line(why, SHOWN)));
    }
    let owned = if owners.is_empty() { "no key: it is not kept".to_owned() } else { owners.join(", ") };
    rows.push(row("owned by", owned));
    output::list(output::pairs(&rows))?;
    output::list("")?;
    let replicas = blob.iter().flat_map(|blob| &blob.replicas).map(|replica| {
        [
            replica.upstream.clone(),
            replica.state.as_str().to_owned(),
            output::instant(replica.since.timestamp()),
            output::one_line(replica.why.as_deref().unwrap_or_default(), SHOWN),
        ]
    });
    output::list(output::table(["upstream", "state", "since", "why"], replicas))?;
    output::list("")?;
    let entries = history.iter().map(|entry| {
        let subject = entry.upstream.clone().or_else(|| entry.owner.clone()).unwrap_or_default();
        [
            output::instant(entry.at.timestamp()),
            entry.kind.clone(),
            subject,
            output::one_line(&entry.actor, SHOWN),
            output::one_line(entry.why.as_deref().unwrap_or_default(), SHOWN),
        ]
    });
    output::list(output::table(["at", "event", "upstream or owner", "by", "why"], entries))
}
