//! `quipu blobs verify`, `repair` and `equalize`: what the service does by itself, now and with a progress bar.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, bail};
use clap::Args;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::ProgressBar;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::opened::Opened;
use crate::base::{Sha256, counted};
use crate::cli::{Context, output};
use crate::services::blossom::event::{BlobFacts, Proof, ReplicaState};
use crate::services::blossom::react::{self, Finding, ReactParts, Repaired, prove_copy};
use crate::services::blossom::read;
use crate::services::blossom::upstream::Upstream;
use crate::telemetry::notice;

/// Copies read from the database at a time.
const PAGE: i64 = 500;

/// Copies looked at at the same time.
const AT_ONCE: usize = 16;

/// Prove copies now. Works with the settings of the service: give the same ones.
#[derive(Debug, Args)]
pub(in crate::cli) struct Verify {
    /// Only the copies of these blobs.
    #[arg(value_name = "SHA256")]
    blobs: Vec<Sha256>,
    /// Read all bytes and compare their hash. Without it the upstreams are asked for the size.
    #[arg(long)]
    full: bool,
    /// Only the copies at this upstream.
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Print one JSON object for each copy that is not proven, and one with the totals at the end.
    #[arg(long)]
    json: bool,
}

/// Counts of looks.
#[derive(Debug, Default)]
struct Looks {
    proven: AtomicU64,
    lost: AtomicU64,
    unknown: AtomicU64,
}

impl Verify {
    pub(super) async fn run(self, context: Context) -> Result<ExitCode> {
        let opened = Opened::new(context).await?;
        let looks = Looks::default();
        let done = self.prove(&opened.react, &looks).await;
        opened.close().await;
        done?;
        let [proven, lost, unknown] =
            [&looks.proven, &looks.lost, &looks.unknown].map(|count| count.load(Ordering::Relaxed));
        if self.json {
            output::list(json!({ "proven": proven, "lost": lost, "unknown": unknown }))?;
        } else {
            let copies = counted(proven, "copy is", "copies are");
            output::list(format_args!("{copies} proven, {lost} lost, {unknown} could not be asked for"))?;
        }
        Ok(if lost > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    async fn prove(&self, parts: &ReactParts, looks: &Looks) -> Result<()> {
        let wanted = named(parts, self.upstream.as_deref())?;
        if !self.blobs.is_empty() {
            let bar = output::count_bar(length(self.blobs.len()), "blob", "blobs");
            for sha256 in &self.blobs {
                let Some(blob) = read::look_up(&parts.pools, sha256).await?.blob else {
                    bail!("{sha256} is not known here");
                };
                for replica in &blob.replicas {
                    let upstream = wanted.iter().find(|upstream| upstream.name() == replica.upstream);
                    // A copy that counts as lost may be there again.
                    let is_known = matches!(
                        replica.state,
                        ReplicaState::Readable | ReplicaState::Accepted | ReplicaState::Lost
                    );
                    if let Some(upstream) = upstream.filter(|_| is_known) {
                        self.look(parts, upstream, &blob.facts, looks, &bar).await?;
                    }
                }
                bar.inc(1);
            }
            bar.finish_and_clear();
            return Ok(());
        }
        let totals = read::upstream_totals(&parts.pools).await?;
        let is_wanted = |name: &str| wanted.iter().any(|upstream| upstream.name() == name);
        let readable = totals
            .iter()
            .filter(|total| total.state == ReplicaState::Readable && is_wanted(&total.upstream))
            .map(|total| total.replicas);
        let bar = output::count_bar(readable.sum(), "copy", "copies");
        for upstream in &wanted {
            let mut after = Sha256::MIN;
            loop {
                let page = read::copies_at(&parts.pools, upstream.name(), after, PAGE).await?;
                let Some(last) = page.last() else { break };
                after = last.facts.sha256;
                stream::iter(page)
                    .map(|copy| {
                        let bar = &bar;
                        async move {
                            self.look(parts, upstream, &copy.facts, looks, bar).await?;
                            bar.inc(1);
                            Ok::<_, anyhow::Error>(())
                        }
                    })
                    .buffer_unordered(AT_ONCE)
                    .try_collect::<()>()
                    .await?;
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    async fn look(
        &self,
        parts: &ReactParts,
        upstream: &Upstream,
        blob: &BlobFacts,
        looks: &Looks,
        bar: &ProgressBar,
    ) -> Result<()> {
        let proof = if self.full { Proof::Hash } else { Proof::Head };
        let (count, state, why) = match prove_copy(parts, upstream, blob, proof).await? {
            Finding::Readable(_) => {
                looks.proven.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Finding::Absent => (&looks.lost, "lost", "it is not there".to_owned()),
            Finding::OtherBytes(why) => (&looks.lost, "lost", why),
            Finding::Unknown(why) => (&looks.unknown, "unknown", why),
        };
        count.fetch_add(1, Ordering::Relaxed);
        let (sha256, name) = (blob.sha256, upstream.name());
        bar.suspend(|| {
            if self.json {
                output::list(json!({ "sha256": sha256, "upstream": name, "state": state, "why": why }))
            } else {
                output::list(format_args!("{sha256}  {name}  {state}: {}", output::one_line(&why, 200)))
            }
        })
    }
}

/// All upstreams, or the one with this name.
fn named(parts: &ReactParts, name: Option<&str>) -> Result<Vec<Upstream>> {
    let Some(name) = name else { return Ok(parts.upstreams.list().to_vec()) };
    let Some(upstream) = parts.upstreams.named(name.trim_end_matches('/')) else {
        let known: Vec<&str> = parts.upstreams.list().iter().map(Upstream::name).collect();
        bail!("`{name}` is no upstream of the settings; there are: {}", known.join(", "));
    };
    Ok(vec![upstream.clone()])
}

fn length(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Copy blobs with too few copies now. Works with the settings of the service: give the same ones.
#[derive(Debug, Args)]
pub(in crate::cli) struct Repair {
    /// Only these blobs.
    #[arg(value_name = "SHA256")]
    blobs: Vec<Sha256>,
    /// Print one JSON object for each blob, and one with the totals at the end.
    #[arg(long)]
    json: bool,
}

impl Repair {
    pub(super) async fn run(self, context: Context) -> Result<ExitCode> {
        let opened = Opened::new(context).await?;
        let target = opened.react.settings.target(opened.upstreams());
        let repair = react::Repair::new(Arc::clone(&opened.react));
        repair_all(opened, repair, target, &self.blobs, self.json).await
    }
}

/// Copy every kept blob to every upstream, whatever `replicas_target` says. Works with the settings of the service:
/// give the same ones.
#[derive(Debug, Args)]
pub(in crate::cli) struct Equalize {
    /// Only to this upstream.
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Print one JSON object for each blob, and one with the totals at the end.
    #[arg(long)]
    json: bool,
}

impl Equalize {
    pub(super) async fn run(self, context: Context) -> Result<ExitCode> {
        let opened = Opened::new(context).await?;
        let target = opened.upstreams();
        let mut repair = react::Repair::new(Arc::clone(&opened.react));
        if let Some(name) = &self.upstream {
            let upstream = named(&opened.react, Some(name))?;
            repair = repair.towards(upstream[0].name());
        }
        repair_all(opened, repair, target, &[], self.json).await
    }
}

async fn repair_all(
    opened: Opened,
    repair: react::Repair,
    target: usize,
    blobs: &[Sha256],
    json: bool,
) -> Result<ExitCode> {
    let (copied, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let parts = Arc::clone(&opened.react);
    let totals = read::totals(&parts.pools, i32::try_from(target).unwrap_or(i32::MAX)).await?;
    let blobs_max = if blobs.is_empty() { totals.under_replicated } else { length(blobs.len()) };
    let bar = output::count_bar(blobs_max, "blob", "blobs");
    let tell = |sha256: Sha256, done: &Repaired| {
        bar.inc(1);
        copied.fetch_add(length(done.copied.len()), Ordering::Relaxed);
        failed.fetch_add(length(done.failed.len()), Ordering::Relaxed);
        bar.suspend(|| say(sha256, done, json));
    };
    if blobs.is_empty() {
        let drain = CancellationToken::new();
        while repair.pass(target, &drain, |blob, done| tell(blob.sha256, done)).await? {}
    } else {
        for sha256 in blobs {
            let done = repair.repair(*sha256, target).await?;
            tell(*sha256, &done.unwrap_or_default());
        }
    }
    bar.finish_and_clear();
    // Reads back what was accepted just now, because the service may not run.
    react::Verify::new(Arc::clone(&parts)).pass(&CancellationToken::new()).await?;
    drop((repair, parts));
    opened.close().await;
    let [copied, failed] = [&copied, &failed].map(|count| count.load(Ordering::Relaxed));
    if json {
        output::list(json!({ "copied": copied, "failed": failed, "unavailable": totals.unavailable }))?;
    } else {
        output::list(format_args!("{} made, {failed} failed", counted(copied, "copy", "copies")))?;
        if totals.unavailable > 0 {
            notice(format_args!("quipu: {} blobs have no copy that could be copied", totals.unavailable));
        }
    }
    Ok(if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Says what was done for a blob.
fn say(sha256: Sha256, done: &Repaired, json: bool) {
    if json {
        output::say(json!({ "sha256": sha256, "copied": done.copied, "failed": done.failed }));
        return;
    }
    for upstream in &done.copied {
        output::say(format_args!("{sha256}  copied to {upstream}"));
    }
    for why in &done.failed {
        output::say(format_args!("{sha256}  not copied: {}", output::one_line(why, 200)));
    }
}
