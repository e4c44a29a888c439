//! `quipu migrate`, `quipu rebuild`, `quipu verify`, `quipu rebase`.

use std::pin::pin;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use futures_util::StreamExt;
use tokio::time::Instant;

use super::{Context, output};
use crate::app::{self, registry};
use crate::base::counted;
use crate::services::archive::project::verify;
use crate::services::archive::read::event_total;
use crate::store::projection::Upkeep;
use crate::store::verify::{self as store_verify, Finding};
use crate::store::{PoolSizes, Pools, owner};
use crate::telemetry::notice;

/// Verify the tables against the journals. The exit code is 1 when a check fails.
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Also verify the id and signature of every stored event.
    #[arg(long)]
    events: bool,
    /// Print one JSON object for each check.
    #[arg(long)]
    json: bool,
}

/// Most broken events that are shown by name; further ones are counted.
const SHOWN_MAX: usize = 20;

impl Verify {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode> {
        let urls = context.urls()?;
        let owner = urls.owner()?;
        let started = Instant::now();
        let mut findings = registry::verify_tables(owner).await?;
        if self.events {
            let pools = Pools::open(&urls, PoolSizes::default())?;
            findings.push(check_events(&pools).await?);
            pools.close().await;
        }
        let scope = if self.events { "events" } else { "tables" };
        // The result is printed even if it cannot be recorded, for instance in a read-only database.
        if let Err(error) = store_verify::record(owner, scope, started.elapsed(), &findings).await {
            notice(format_args!("the result is not recorded for the metrics: {error}"));
        }
        for finding in &findings {
            if self.json {
                output::say(serde_json::to_string(finding)?);
            } else {
                output::say(format_args!(
                    "{} {}",
                    if finding.problems.is_empty() { "ok   " } else { "WRONG" },
                    finding.check
                ));
                for problem in &finding.problems {
                    output::say(format_args!("        {problem}"));
                }
            }
        }
        let sound = findings.iter().all(|finding| finding.problems.is_empty());
        Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

async fn check_events(pools: &Pools) -> Result<Finding> {
    let total = u64::try_from(event_total(&pools.read).await?).unwrap_or(0);
    let bar = output::count_bar(total, "event", "events");
    let mut problems = Vec::new();
    let (mut checked, mut broken) = (0_u64, 0_usize);
    let mut proofs = pin!(verify::events(&pools.read));
    while let Some(proof) = proofs.next().await {
        checked += 1;
        bar.inc(1);
        if let Some(problem) = proof? {
            broken += 1;
            if problems.len() < SHOWN_MAX {
                problems.push(problem);
            }
        }
    }
    bar.finish_and_clear();
    if broken > problems.len() {
        problems.push(format!("and {} more", broken - problems.len()));
    }
    let check = format!("id and signature of {}", counted(checked, "event", "events"));
    Ok(Finding { check, problems })
}

/// The names of all projections, separated by commas.
pub(super) fn projection_names() -> String {
    registry::projections().map(|projection| projection.name).collect::<Vec<_>>().join(", ")
}

/// Migrates the schema.
pub(super) async fn migrate(context: &Context) -> Result<ExitCode> {
    app::migrate(&context.configuration, &context.urls()?).await?;
    notice("the schema is as this Quipu needs it");
    Ok(ExitCode::SUCCESS)
}

/// Recreates one projection from its journals.
pub(super) async fn rebuild(context: &Context, name: &str) -> Result<ExitCode> {
    let Some(projection) = registry::projections().find(|projection| projection.name == name) else {
        bail!("there is no projection `{name}`; there are: {}", projection_names());
    };
    let urls = context.urls()?;
    let mut client = owner::connect(urls.owner()?).await?;
    projection.rebuild(&mut client).await?;
    // A projection that follows ticks is filled now, whether or not a projector runs.
    let pools = Pools::open(&urls, PoolSizes::default())?;
    if projection.upkeep == Upkeep::Ticks {
        projection.catch_up(&pools.write).await?;
    }
    pools.close().await;
    output::say(format_args!("{name} was recreated from its journals"));
    Ok(ExitCode::SUCCESS)
}

/// Opens a new era.
pub(super) async fn rebase(context: &Context) -> Result<ExitCode> {
    match owner::rebase(context.urls()?.owner()?).await? {
        Some(era) => output::say(format_args!(
            "era {era} is open; projections will be rebuilt when the services start"
        )),
        None => output::say("nothing to do: the database is still in the cluster in which it was written"),
    }
    Ok(ExitCode::SUCCESS)
}
