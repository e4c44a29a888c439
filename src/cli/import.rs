//! `quipu import`: Nostr events from JSON lines, in constant memory.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
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
use crate::base::nostr_event::{EVENT_BYTES_MAX, Refusal, Refusals};
use crate::lifecycle::{Lifecycle, stop_signals, until_signals};
use crate::services::archive::command::RelayCommand;
use crate::services::archive::{RelayAnswer, RelayJournal};
use crate::store::ingest::{Intake, PageOutcome, Source, read_all};
use crate::store::{self, Relay};
use crate::telemetry::{Metrics, notice};

/// Most lines and bytes of a chunk, which is verified and stored as one page.
const CHUNK_LINES: usize = 1_000;
const CHUNK_BYTES: usize = 2 * 1024 * 1024;

/// Most chunks that are being verified or wait for their commit.
const CHUNKS_IN_FLIGHT: usize = 6;

/// Verify and store Nostr events from JSON lines, one event a line.
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

/// A part of the file.
#[derive(Debug, Default)]
struct Chunk {
    first_line: u64,
    last_line: u64,
    bytes: u64,
    lines: Vec<String>,
    refused: Refusals,
}

/// The totals of the whole file.
#[derive(Debug, Default)]
struct Totals {
    /// The last line of the chunks whose storing has begun.
    last_line: u64,
    stored: u64,
    known: u64,
    refused: Refusals,
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
        self.report(&total);
        drop((intake, parts));
        lifecycle.drain();
        lifecycle.run_until_stopped(&mut signals).await;
        if !stop.is_cancelled() {
            return Ok(ExitCode::SUCCESS);
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
        total.stored += u64::from(outcome.stored);
        total.known += u64::from(outcome.known);
        total.refused.merge(&outcome.refused);
        bar.inc(chunk.bytes);
        bar.set_message(format!(
            "{} new, {} known, {} refused",
            total.stored,
            total.known,
            total.refused.total()
        ));
        if self.json {
            let part = json!({
                "lines": [chunk.first_line, chunk.last_line], "stored": outcome.stored, "known": outcome.known,
                "refused": outcome.refused.to_json(),
            });
            output::say(part);
        }
    }

    fn report(&self, total: &Totals) {
        if self.json {
            let all = json!({ "total": true, "stored": total.stored, "known": total.known, "refused": total.refused.to_json() });
            output::say(all);
            return;
        }
        output::say(format_args!(
            "{} new, {} stored before or kept away by an erasure, {} refused",
            total.stored,
            total.known,
            total.refused.total()
        ));
        for (reason, count) in total.refused.iter() {
            output::say(format_args!("  {count} {reason}"));
        }
    }
}

async fn store_chunk(
    intake: &Intake,
    relay: Option<Relay>,
    mut chunk: Chunk,
) -> Result<(Chunk, PageOutcome), store::Error> {
    let (events, mut refused) = read_all(std::mem::take(&mut chunk.lines)).await;
    refused.merge(&chunk.refused);
    let outcome = intake.offer(relay, events, refused).await?;
    Ok((chunk, outcome))
}

/// Cuts the input into chunks, on a thread of its own. A line that is too long or not UTF-8 is counted and
/// skipped.
fn read_chunks(reader: impl Read, chunks: &mpsc::Sender<Chunk>) -> Result<()> {
    let mut reader = BufReader::with_capacity(256 * 1024, reader);
    let longest = u64::try_from(EVENT_BYTES_MAX)? + 2;
    let mut chunk = Chunk { first_line: 1, ..Chunk::default() };
    let mut line = Vec::new();
    let mut number = 0;
    let mut held = 0;
    loop {
        line.clear();
        let mut read = reader.by_ref().take(longest).read_until(b'\n', &mut line)? as u64;
        if read == 0 {
            break;
        }
        number += 1;
        if line.last() != Some(&b'\n') && read == longest {
            read += skip_line(&mut reader)?;
            chunk.refused.add(Refusal::TooLarge);
        } else {
            match std::str::from_utf8(&line).map(str::trim) {
                Ok("") => {}
                Ok(text) => {
                    held += text.len();
                    chunk.lines.push(text.to_owned());
                }
                Err(_) => chunk.refused.add(Refusal::Malformed),
            }
        }
        chunk.bytes += read;
        chunk.last_line = number;
        if chunk.lines.len() >= CHUNK_LINES || held >= CHUNK_BYTES {
            held = 0;
            let next = Chunk { first_line: number + 1, ..Chunk::default() };
            if chunks.blocking_send(std::mem::replace(&mut chunk, next)).is_err() {
                return Ok(());
            }
        }
    }
    if chunk.last_line > 0 {
        // If the receiver was dropped, it has already reported its error.
        let _ = chunks.blocking_send(chunk);
    }
    Ok(())
}

/// Skips the rest of the line. Returns the number of skipped bytes.
fn skip_line(reader: &mut impl BufRead) -> std::io::Result<u64> {
    Ok(reader.skip_until(b'\n')? as u64)
}
