//! `quipu relays`: list, show, add, retire and restore relays.

mod candidates;
mod state;
mod wait;

use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use super::{Context, output};
use crate::app::{Parts, instance};
use crate::base::{Network, RelayUrl};
use crate::lifecycle::Lifecycle;
use crate::services::archive::command::RelayCommand;
use crate::services::archive::read::{self, RelayDetail, RelayFilter, RelayRow};
use crate::services::archive::{RelayAnswer, RelayJournal, ask};
use crate::store::Pools;
use crate::telemetry::{Metrics, notice};

/// Relays in one query.
const PAGE: usize = 1_000;

/// Relays that wait for their commit at the same time; the writer puts them into few transactions.
const AT_ONCE: usize = 256;

/// List, show, add, retire and restore relays.
#[derive(Debug, Subcommand)]
pub(super) enum Relays {
    /// Add relays. A relay that is known from seeds or events counts as named by you from then on.
    Add {
        /// `wss://…` or `ws://…`. Private addresses and local names are allowed, because you name them.
        #[arg(required = true, value_name = "URL")]
        urls: Vec<String>,
        /// Show how each relay is checked, dialled and read, until everything it holds is archived or a
        /// session with it fails.
        #[arg(long)]
        wait: bool,
        /// Timeout of `--wait`, in seconds.
        #[arg(long, value_name = "SECONDS", default_value = "60", requires = "wait", value_parser = clap::value_parser!(u32).range(1..=86_400))]
        timeout: u32,
        /// Print one JSON object for each relay; with `--wait` one for each step of a relay.
        #[arg(long)]
        json: bool,
    },
    /// Stop crawling a relay. Its events stay, and `restore` starts crawling it again.
    Retire(state::Change),
    /// Crawl a retired relay again.
    Restore(state::Change),
    /// List relays: first those that can be read, by the number of events they have.
    List(List),
    /// Show everything that is known about one relay.
    Show {
        /// The relay's URL.
        #[arg(value_name = "URL")]
        url: String,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// List relays, in the order of their URLs.
#[derive(Debug, Args)]
pub(super) struct List {
    /// Only relays of this network: clearnet, tor, i2p or loki.
    #[arg(long, value_name = "NETWORK", value_parser = network)]
    network: Option<Network>,
    /// Only relays that the newest check could read; `--readable=false` for the others.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    readable: Option<bool>,
    /// Only retired relays; `--retired=false` for the others.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    retired: Option<bool>,
    /// List candidates instead: URLs that were found and have not proven to be relays yet.
    #[arg(long, conflicts_with_all = ["network", "readable", "retired"])]
    candidates: bool,
    /// Print one JSON object for each relay.
    #[arg(long)]
    json: bool,
}

fn network(text: &str) -> Result<Network, String> {
    let all = [Network::Clearnet, Network::Tor, Network::I2p, Network::Loki];
    let found = all.into_iter().find(|network| network.as_str() == text);
    found.ok_or_else(|| format!("one of: {}", all.map(Network::as_str).join(", ")))
}

impl Relays {
    pub(super) async fn run(self, context: Context) -> Result<ExitCode> {
        match self {
            Self::Add { urls, wait, timeout, json } => {
                let wait_max = wait.then(|| Duration::from_secs(timeout.into()));
                add(context, urls, wait_max, json).await
            }
            Self::Retire(change) => change.retire(context).await,
            Self::Restore(change) => change.restore(context).await,
            Self::List(List { candidates: true, json, .. }) => candidates::list(&context, json).await,
            Self::List(list) => list.run(&context).await,
            Self::Show { url, json } => show(&context, &url, json).await,
        }
    }
}

/// The parts of the process, for one command.
struct Opened {
    parts: Parts,
    lifecycle: Lifecycle,
}

impl Opened {
    async fn new(context: Context) -> Result<Self> {
        let database = context.urls_to_write().await?;
        let lifecycle = Lifecycle::new(Duration::from_secs(5));
        let metrics = Metrics::new(env!("CARGO_PKG_VERSION"));
        let parts = Parts::open(&database, context.configuration.settings, lifecycle.clone(), metrics)?;
        Ok(Self { parts, lifecycle })
    }

    async fn close(self) {
        drop(self.parts);
        self.lifecycle.drain();
        self.lifecycle.run_until_stopped(stream::pending::<&str>()).await;
    }
}

async fn add(
    context: Context,
    urls: Vec<String>,
    wait_max: Option<Duration>,
    json: bool,
) -> Result<ExitCode> {
    // All URLs are parsed before any relay is added.
    let parse = |url: &String| {
        RelayUrl::parse(url).with_context(|| {
            format!("`{url}` cannot be added; nothing was: a relay is wss://host or ws://host")
        })
    };
    let relays: Vec<RelayUrl> = urls.iter().map(parse).collect::<Result<_>>()?;
    let only = match wait_max {
        Some(_) => instance::only_relays(&context.data, &context.urls()?),
        None => Vec::new(),
    };
    let opened = Opened::new(context).await?;
    let writer = opened.parts.writer(RelayJournal);
    let mut added = Vec::new();
    let bar = output::count_bar(relays.len() as u64, "relay", "relays");
    let offer = async |url: RelayUrl| {
        let answer = writer.append(RelayCommand::Add { url: url.clone(), source: "operator" }).await?;
        Ok::<_, anyhow::Error>((url, answer))
    };
    let mut answers = Box::pin(stream::iter(relays).map(offer).buffered(AT_ONCE));
    while let Some((url, answer)) = answers.try_next().await? {
        bar.inc(1);
        let RelayAnswer::Known { relay, is_new } = answer else { continue };
        if wait_max.is_some() && !is_new {
            ask(&opened.parts.pools, relay).await?;
        }
        added.push(url.to_string());
        bar.suspend(|| {
            if json {
                output::say(json!({ "url": url, "number": relay.0, "new": is_new }));
            } else {
                output::say(format_args!("{url}  {}", if is_new { "added" } else { "known already" }));
            }
        });
    }
    bar.finish_and_clear();
    drop(answers);
    drop(writer);
    let ended = match wait_max {
        Some(wait_max) => {
            let is_dialled = |url: &String| only.is_empty() || only.contains(url);
            let (dialled, left_out): (Vec<String>, Vec<String>) = added.into_iter().partition(is_dialled);
            wait::say_left_out(&left_out, &only, json);
            let ended = wait::until_archived(&opened.parts.pools, dialled, wait_max, json).await;
            if left_out.is_empty() { ended } else { ended.map(|_| ExitCode::FAILURE) }
        }
        None => Ok(ExitCode::SUCCESS),
    };
    opened.close().await;
    ended
}

fn address(url: &str) -> Result<RelayUrl> {
    RelayUrl::parse(url).with_context(|| format!("`{url}` is no relay's URL: wss://host or ws://host"))
}

/// The current facts about the relay with this URL.
async fn known(pools: &Pools, url: &RelayUrl) -> Result<RelayDetail> {
    let found = read::relay(&pools.session, url.as_str()).await?;
    found.with_context(|| {
        format!(
            "{url} is not known: `quipu relays list` shows those that are, `quipu relays add {url}` adds it"
        )
    })
}

impl List {
    async fn run(self, context: &Context) -> Result<ExitCode> {
        let pools = context.pools_to_read().await?;
        let filter = RelayFilter {
            url: None,
            network: self.network.map(|network| network.as_str().to_owned()),
            readable: self.readable,
            retired: self.retired,
        };
        let mut shown = 0;
        let line = output::count_line("relay", "relays");
        let mut pages = pin!(read::relays(&pools.read, &filter).try_chunks(PAGE));
        while let Some(page) = pages.try_next().await.map_err(|error| error.1)? {
            shown += page.len();
            line.inc(page.len() as u64);
            line.suspend(|| list(&page, self.json))?;
        }
        line.finish_and_clear();
        if shown == 0 && !self.json {
            let restricted = self.network.is_some() || self.readable.is_some() || self.retired.is_some();
            notice(format_args!(
                "{}",
                if restricted {
                    "no relay matches: `quipu relays list` without filters shows all"
                } else {
                    "no relays yet: `quipu up` enters the seeds, `quipu relays add URL` adds one"
                }
            ));
        }
        pools.close().await;
        Ok(ExitCode::SUCCESS)
    }
}

fn list(page: &[RelayRow], json: bool) -> Result<()> {
    if json {
        for relay in page {
            output::list(serde_json::to_string(relay)?)?;
        }
        return Ok(());
    }
    let rows = page.iter().map(|relay| {
        let last = relay.last_event_timestamp.map_or_else(|| "-".to_owned(), output::instant);
        [relay.url.clone(), relay.network.clone(), state::words(relay), relay.sightings.to_string(), last]
    });
    output::list(output::table(["relay", "network", "state", "sightings", "newest event"], rows))
}

async fn show(context: &Context, url: &str, json: bool) -> Result<ExitCode> {
    let url = address(url)?;
    let pools = context.pools_to_read().await?;
    let relay = known(&pools, &url).await?;
    if json {
        output::list(serde_json::to_string(&relay)?)?;
    } else {
        output::list(format!(" {url}\n{}", output::pairs(&facts(&relay))))?;
    }
    pools.close().await;
    Ok(ExitCode::SUCCESS)
}

/// The facts about a relay as rows of a table.
fn facts(relay: &RelayDetail) -> Vec<[String; 2]> {
    let row = |name: &str, value: String| [name.to_owned(), value];
    let or_none = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let windows = &relay.windows;
    let mut rows = vec![
        row("number", relay.row.number.to_string()),
        row("network", relay.row.network.clone()),
        row("state", state::words(&relay.row)),
        row(
            "known since",
            format!(
                "{}, from {}",
                relay.row.inserted_at.format("%Y-%m-%d %H:%M:%S"),
                or_none(relay.row.source.clone())
            ),
        ),
        row("sightings", relay.row.sightings.to_string()),
        row("newest event", or_none(relay.row.last_event_timestamp.map(output::instant))),
        row("windows", format!("{} complete, {} with gaps", windows.complete, windows.gaps)),
        row("complete up to", or_none(windows.complete_until.map(output::instant))),
    ];
    match &relay.check {
        None => rows.push(row("checked", "never".to_owned())),
        Some(snapshot) => {
            let document = snapshot.nip11.clone().map(|document| Value::Object(document).to_string());
            rows.push(row("checked", output::instant(snapshot.generated_at)));
            rows.push(row("information (NIP-11)", or_none(document)));
            rows.push(row("check (NIP-66)", snapshot.nip66().to_string()));
        }
    }
    let entry = |entry: &Value| {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        let at: String = text("at").chars().take(19).collect();
        [at.replace('T', " "), format!("{} {}", text("kind"), entry["detail"])]
    };
    rows.extend(relay.entries.iter().map(entry));
    rows
}
