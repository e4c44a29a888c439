//! `quipu import`: Nostr events from JSON lines, in constant memory.

mod chunks;
mod totals;

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use indicatif::ProgressBar;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Context, INTERRUPTED, output};
use crate::app::{Parts, instance};
use crate::base::RelayUrl;
use crate::base::nostr_event::{Refusal, Refusals};
use crate::lifecycle::{Lifecycle, stop_signals, until_signals};
use crate::services::archive::command::RelayCommand;
use crate::services::archive::{RelayAnswer, RelayJournal};
use crate::store::ingest::{Intake, PageOutcome, Source, read_all};
use crate::store::{self, Relay};
use crate::telemetry::{Metrics, notice};
use chunks::{Chunk, read_chunks};
use totals::{Totals, lines_json};

/// Most chunks that are being verified or wait for their commit.
const CHUNKS_IN_FLIGHT: usize = 6;

/// Verify and store Nostr events from JSON lines, one event a line. Names the first refused lines and counts
/// all by reason. The exit code is 1 when every line was refused.
#[derive(Debug, Args)]
pub(super) struct Import {
    /// The file to read, or `-` for standard input.
    file: PathBuf,
    /// Also record that this relay showed the events.
    #[arg(long, value_name = "URL")]
    relay: Option<String>,
    /// Print one JSON object for each committed part of the file, and one with the totals at the end.
    #[arg(long)]
    json: bool,
}

impl Import {
    pub(super) async fn run(self, context: Context) -> Result<ExitCode> {
        let urls = context.urls()?;
        let lifecycle = Lifecycle::new(Duration::from_secs(5));
        let metrics = Metrics::new(env!("CARGO_PKG_VERSION"));
        let database = instance::own_database(&context.data, &context.configuration.database);
        let parts = Parts::open(&urls, context.configuration.settings, lifecycle.clone(), metrics)?;
        parts.watch_space(database);
        let relay = self.relay(&parts).await?;
        let (reader, size): (Box<dyn Read + Send>, _) = if self.file.as_os_str() == "-" {
            (Box::new(std::io::stdin()), None)
        } else {
            let file =
                File::open(&self.file).with_context(|| format!("cannot open {}", self.file.display()))?;
            let size = file.metadata()?.len();
            (Box::new(file), Some(size))
        };
        let (chunks, arrivals) = mpsc::channel(2);
        let reading = tokio::task::spawn_blocking(move || read_chunks(reader, &chunks));
        let intake = parts.intake(Source::Import);
        let bar = output::byte_bar(size);
        let (mut signals, stop) = (stop_signals()?, CancellationToken::new());
        let storing = self.store_all(&intake, relay, arrivals, &bar, &stop);
        let outcome = until_signals(&mut signals, &stop, "events are imported", storing).await;
        bar.finish_and_clear();
        let Some(outcome) = outcome else {
            notice("quipu: aborted; import the file again: events that are stored already are skipped");
            return Ok(ExitCode::from(INTERRUPTED));
        };
        let total = outcome?;
        if !stop.is_cancelled() {
            reading.await?.with_context(|| format!("cannot read {}", self.file.display()))?;
        }
        let code = total.report(self.json);
        drop((intake, parts));
        lifecycle.drain();
        lifecycle.run_until_stopped(&mut signals).await;
        if !stop.is_cancelled() {
            return Ok(code);
        }
        notice(format_args!(
            "quipu: stopped after line {} of {}; everything up to it was imported",
            total.last_line,
            self.file.display()
        ));
        Ok(ExitCode::from(INTERRUPTED))
    }

    async fn relay(&self, parts: &Parts) -> Result<Option<Relay>> {
        let Some(url) = &self.relay else { return Ok(None) };
        let url = RelayUrl::parse(url).context("--relay")?;
        match parts.writer(RelayJournal).append(RelayCommand::Add { url, source: "operator" }).await? {
            RelayAnswer::Known { relay, .. } => Ok(Some(relay)),
            RelayAnswer::Recorded | RelayAnswer::Found(_) => Ok(None),
        }
    }

    async fn store_all(
        &self,
        intake: &Intake,
        relay: Option<Relay>,
        mut arrivals: mpsc::Receiver<Chunk>,
        bar: &ProgressBar,
        stop: &CancellationToken,
    ) -> Result<Totals> {
        let mut total = Totals::default();
        let mut commits = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                chunk = arrivals.recv(), if commits.len() < CHUNKS_IN_FLIGHT => match chunk {
                    Some(chunk) => {
                        total.last_line = chunk.last_line;
                        commits.push(store_chunk(intake, relay, chunk));
                    }
                    None => break,
                },
                Some(done) = commits.next() => self.committed(&mut total, bar, done?),
            }
        }
        // Wait for the chunks that are still being stored.
        while let Some(done) = commits.next().await {
            self.committed(&mut total, bar, done?);
        }
        Ok(total)
    }

    fn committed(&self, total: &mut Totals, bar: &ProgressBar, (chunk, outcome): (Chunk, PageOutcome)) {
        total.add(&outcome, &chunk.refused);
        bar.inc(chunk.bytes);
        bar.set_message(total.in_short());
        if self.json {
            output::say(json!({
                "lines": [chunk.first_line, chunk.last_line], "stored": outcome.stored, "known": outcome.known,
                "refused": outcome.refused.to_json(), "refused_lines": lines_json(chunk.refused),
            }));
        }
    }
}

/// Verifies and stores a chunk. What is refused is added to [`Chunk::refused`], which is sorted afterwards.
async fn store_chunk(
    intake: &Intake,
    relay: Option<Relay>,
    mut chunk: Chunk,
) -> Result<(Chunk, PageOutcome), store::Error> {
    let (numbers, texts): (Vec<u64>, Vec<String>) = std::mem::take(&mut chunk.lines).into_iter().unzip();
    let (mut events, mut event_lines, mut unread) = (Vec::new(), Vec::new(), Refusals::default());
    for (line, read) in numbers.into_iter().zip(read_all(texts).await) {
        match read {
            Ok(event) => {
                events.push(event);
                event_lines.push(line);
            }
            Err(reason) => chunk.refused.push((line, reason)),
        }
    }
    for (_, reason) in &chunk.refused {
        unread.add(*reason);
    }
    let outcome = intake.offer(relay, events, unread).await?;
    let line_of = |(place, reason): &(usize, Refusal)| Some((*event_lines.get(*place)?, *reason));
    chunk.refused.extend(outcome.refused_at.iter().filter_map(line_of));
    chunk.refused.sort_unstable();
    Ok((chunk, outcome))
}
