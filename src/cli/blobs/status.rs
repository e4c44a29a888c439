//! `quipu blobs status`: tables, or bars that move.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Result;
use indicatif::{HumanBytes, HumanCount, ProgressBar};
use serde::Serialize;

use super::View;
use crate::cli::{Context, output};
use crate::services::blossom::read;
use crate::store::{Error, Pools};

/// Numbers of blobs and of their copies.
#[derive(Debug, Serialize)]
struct Status {
    kept: u64,
    kept_bytes: u64,
    /// Copies that each blob is to have.
    target: usize,
    under_replicated: u64,
    unavailable: u64,
    unverified: u64,
    banned: u64,
    owners: u64,
    upstreams: BTreeMap<String, Upstream>,
}

/// Copies at one upstream by state.
#[derive(Debug, Default, Serialize)]
struct Upstream {
    /// Whether the settings name it.
    configured: bool,
    readable: u64,
    readable_bytes: u64,
    accepted: u64,
    failed: u64,
    lost: u64,
    deleted: u64,
}

pub(super) async fn run(context: &Context, view: View) -> Result<ExitCode> {
    let settings = &context.configuration.settings.services.blossom;
    let names: Vec<String> = settings.upstreams.iter().map(|upstream| upstream.name().to_owned()).collect();
    let target = settings.target(names.len().max(1));
    let urls = context.urls_to_write().await?;
    let pools = Pools::open(&urls, crate::store::PoolSizes::default())?;
    let mut bars = None;
    let ask = async |pools: &Pools| ask(pools, &names, target).await;
    let draw = |status: &Status| bars.get_or_insert_with(|| Bars::new(status)).set(status);
    view.show(pools, ask, print, draw).await?;
    Ok(ExitCode::SUCCESS)
}

async fn ask(pools: &Pools, names: &[String], target: usize) -> Result<Status, Error> {
    let totals = read::totals(pools, i32::try_from(target).unwrap_or(i32::MAX)).await?;
    let mut upstreams: BTreeMap<String, Upstream> = names
        .iter()
        .map(|name| (name.clone(), Upstream { configured: true, ..Upstream::default() }))
        .collect();
    for total in read::upstream_totals(pools).await? {
        // The built-in store has no name in the settings.
        let is_store = names.is_empty() && total.upstream.starts_with("file:");
        let upstream = upstreams.entry(total.upstream).or_default();
        upstream.configured |= is_store;
        let count = match total.state.as_str() {
            "readable" => {
                upstream.readable_bytes = total.bytes;
                &mut upstream.readable
            }
            "accepted" => &mut upstream.accepted,
            "failed" => &mut upstream.failed,
            "lost" => &mut upstream.lost,
            _ => &mut upstream.deleted,
        };
        *count = total.replicas;
    }
    Ok(Status {
        kept: totals.kept,
        kept_bytes: totals.kept_bytes,
        target,
        under_replicated: totals.under_replicated,
        unavailable: totals.unavailable,
        unverified: totals.unverified,
        banned: totals.banned,
        owners: totals.owners,
        upstreams,
    })
}

fn print(status: &Status) -> Result<()> {
    let row = |name: &str, value: String| [name.to_owned(), value];
    output::list(output::pairs(&[
        row("blobs kept", format!("{}, {}", HumanCount(status.kept), HumanBytes(status.kept_bytes))),
        row("copies wanted of each", status.target.to_string()),
        row("with too few copies", HumanCount(status.under_replicated).to_string()),
        row("without any copy", HumanCount(status.unavailable).to_string()),
        row("copies not read back yet", HumanCount(status.unverified).to_string()),
        row("owners", HumanCount(status.owners).to_string()),
        row("banned", HumanCount(status.banned).to_string()),
    ]))?;
    output::list("")?;
    let rows = status.upstreams.iter().map(|(name, upstream)| {
        let name = if upstream.configured { name.clone() } else { format!("{name} (not in the settings)") };
        [
            name,
            HumanCount(upstream.readable).to_string(),
            HumanBytes(upstream.readable_bytes).to_string(),
            HumanCount(upstream.accepted).to_string(),
            HumanCount(upstream.failed).to_string(),
            HumanCount(upstream.lost).to_string(),
            HumanCount(upstream.deleted).to_string(),
        ]
    });
    output::list(output::table(
        ["upstream", "readable", "bytes", "accepted", "failed", "lost", "deleted"],
        rows,
    ))
}

/// Bars for the blobs with enough copies and for each upstream's share.
struct Bars {
    whole: ProgressBar,
    upstreams: BTreeMap<String, ProgressBar>,
    rest: ProgressBar,
}

impl Bars {
    fn new(first: &Status) -> Self {
        let whole = output::part_bar("with enough copies");
        let bar = |name: &String| {
            let bar = output::part_bar("");
            // Names of upstreams are longer than the names of other bars.
            bar.set_prefix(output::one_line(name, 25));
            (name.clone(), bar)
        };
        let upstreams = first.upstreams.keys().map(bar).collect();
        Self { whole, upstreams, rest: output::clock_line() }
    }

    fn set(&self, status: &Status) {
        output::fill(&self.whole, status.kept.saturating_sub(status.under_replicated), status.kept);
        for (name, bar) in &self.upstreams {
            let readable = status.upstreams.get(name).map_or(0, |upstream| upstream.readable);
            output::fill(bar, readable.min(status.kept), status.kept);
        }
        self.rest.set_message(format!(
            "without any copy: {}, not read back yet: {}",
            HumanCount(status.unavailable),
            HumanCount(status.unverified)
        ));
    }
}
