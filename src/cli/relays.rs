//! `quipu relays`: look at, add and retire relays.

mod candidates;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use serde_json::json;

use super::{Context, output};
use crate::app::Parts;
use crate::base::RelayUrl;
use crate::lifecycle::Lifecycle;
use crate::services::archive::RelayAnswer;
use crate::services::archive::command::RelayCommand;
use crate::services::archive::read::{self, RelayRow};
use crate::store::{DoorSizes, Doors, Relay};
use crate::telemetry::Metrics;

/// Relays read at once.
const PAGE: i64 = 1_000;

/// Look at, add and retire relays.
#[derive(Debug, Subcommand)]
pub(super) enum Relays {
    /// Make relays known; known ones stay as they are.
    Add {
        /// `wss://…` or `ws://…`; private addresses are taken, because you name them.
        #[arg(required = true, value_name = "URL")]
        urls: Vec<String>,
        /// One JSON object a relay.
        #[arg(long)]
        json: bool,
    },
    /// Crawl a relay no longer. What it has shown stays.
    Retire {
        /// Its URL.
        #[arg(value_name = "URL")]
        url: String,
        /// Why; it is recorded.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// List all relays, in the order of their URLs.
    List {
        /// List instead the URLs that somebody named and that have not proven to be relays yet.
        #[arg(long)]
        candidates: bool,
        /// One JSON object a relay.
        #[arg(long)]
        json: bool,
    },
}

impl Relays {
    pub(super) async fn run(self, context: Context) -> Result<ExitCode> {
        match self {
            Self::Add { urls, json } => add(context, urls, json).await,
            Self::Retire { url, reason } => retire(context, &url, reason.trim()).await,
            Self::List { candidates: true, json } => candidates::list(&context, json).await,
            Self::List { candidates: false, json } => list(&context, json).await,
        }
    }
}

async fn add(context: Context, urls: Vec<String>, json: bool) -> Result<ExitCode> {
    // All are looked at before any is added.
    let parse = |url: &String| RelayUrl::parse(url).with_context(|| format!("`{url}`"));
    let relays: Vec<RelayUrl> = urls.iter().map(parse).collect::<Result<_>>()?;
    let database = context.urls()?;
    let lifecycle = Lifecycle::new(Duration::from_secs(5));
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"));
    let parts = Parts::open(&database, context.configuration.settings, lifecycle.clone(), metrics)?;
    let writer = parts.relay_writer();
    for url in relays {
        let answer = writer.append(RelayCommand::Add { url: url.clone(), source: "operator" }).await?;
        let RelayAnswer::Known { relay, is_new } = answer else { continue };
        if json {
            output::say(format_args!("{}", json!({ "url": url, "number": relay.0, "new": is_new })));
        } else {
            output::say(format_args!("{url}  {}", if is_new { "added" } else { "known already" }));
        }
    }
    drop((writer, parts));
    lifecycle.drain();
    lifecycle.run_until_stopped(futures_util::stream::pending::<&str>()).await;
    Ok(ExitCode::SUCCESS)
}

async fn retire(context: Context, url: &str, reason: &str) -> Result<ExitCode> {
    if reason.is_empty() {
        bail!("--reason: a relay is retired with its reason, which must not be empty");
    }
    let url = RelayUrl::parse(url).with_context(|| format!("`{url}`"))?;
    let database = context.urls()?;
    let lifecycle = Lifecycle::new(Duration::from_secs(5));
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"));
    let parts = Parts::open(&database, context.configuration.settings, lifecycle.clone(), metrics)?;
    let Some(known) = find(&parts.doors, &url).await? else {
        bail!("{url} is not known: `quipu relays list` shows those that are");
    };
    if known.retired_at.is_some() {
        output::say(format_args!("{url}  retired already"));
    } else {
        let detail = json!({ "reason": reason });
        parts.relay_writer().append(RelayCommand::Retire { relay: Relay(known.number), detail }).await?;
        output::say(format_args!("{url}  retired"));
    }
    drop(parts);
    lifecycle.drain();
    lifecycle.run_until_stopped(futures_util::stream::pending::<&str>()).await;
    Ok(ExitCode::SUCCESS)
}

/// The relay with this URL, as of now.
async fn find(doors: &Doors, url: &RelayUrl) -> Result<Option<RelayRow>> {
    let mut after = String::new();
    loop {
        let page = read::relays(&doors.session, &after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(None) };
        after.clone_from(&last.url);
        if let Some(found) = page.into_iter().find(|relay| relay.url == url.as_str()) {
            return Ok(Some(found));
        }
    }
}

async fn list(context: &Context, json: bool) -> Result<ExitCode> {
    let doors = Doors::open(&context.urls()?, DoorSizes::default())?;
    let mut after = String::new();
    let mut shown = 0;
    loop {
        let page = read::relays(&doors.read, &after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after.clone_from(&last.url);
        shown += page.len();
        show(&page, json)?;
    }
    if shown == 0 && !json {
        eprintln!("no relays yet: `quipu up` enters the seeds, `quipu relays add URL` adds one");
    }
    doors.close().await;
    Ok(ExitCode::SUCCESS)
}

fn show(page: &[RelayRow], json: bool) -> Result<()> {
    if json {
        for relay in page {
            output::say(serde_json::to_string(relay)?);
        }
        return Ok(());
    }
    let rows = page.iter().map(|relay| {
        let last = relay.last_event_timestamp.map_or_else(|| "-".to_owned(), output::instant);
        let state = if relay.retired_at.is_some() { "retired" } else { "crawled" };
        [relay.url.clone(), relay.network.clone(), state.to_owned(), relay.sightings.to_string(), last]
    });
    output::say(output::table(["relay", "network", "state", "sightings", "newest event"], rows));
    Ok(())
}
