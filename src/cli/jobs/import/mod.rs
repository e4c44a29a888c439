//! `quipu jobs import`: moves in from BlobForge.
//!
//! The file is read by one thread; what it reads is stored meanwhile. Everything is stored so that it can be stored
//! again: jobs by their unique keys, workers by their ids, tokens and secrets by their hashes.

mod database;
mod rows;
mod workers;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use backon::{ExponentialBuilder, Retryable as _};
use clap::Args;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::base::{Clock as _, SystemClock};
use crate::cli::{Context, output};
use crate::services::jobs::append::{CredentialJournal, StoredImport, ensure_partitions, import_jobs};
use crate::services::jobs::command::{CredentialCommand, ImportedJob, NewCredential};
use crate::services::jobs::read as jobs_read;
use crate::store::append::{Journal, Writer};
use crate::store::{AppendMetrics, Error, Hints, PoolSizes, Pools};
use crate::telemetry::notice;
use database::Database;
use rows::{Refused, TokenRow, WorkerRow};

/// Who the journals say did it.
const ACTOR: &str = "import";

/// Batches that wait to be stored.
const BATCHES_MAX: usize = 2;

/// Commands of one journal that are sent at the same time.
const COMMANDS_MAX: usize = 256;

/// Import BlobForge's database. Jobs keep their state, their times and their attempts, and get new numbers; one
/// that was running is pending. Submitted again they are known. The exit code is 1 if a row is refused.
#[derive(Debug, Args)]
pub(super) struct Import {
    /// The file, such as data/blobforge.db. Stop BlobForge first: what it does later is not imported.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Read and check everything, and store nothing.
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Import administrators' tokens as well: with one of them a client may do everything. Each is named.
    #[arg(long)]
    with_administrators: bool,
    /// Print one JSON object for each refused row, and one with the totals at the end.
    #[arg(long)]
    json: bool,
}

/// What is read from the file, in this order.
enum Part {
    Workers(Vec<Result<WorkerRow, Refused>>),
    Tokens(Vec<Result<TokenRow, Refused>>),
    /// The number of jobs.
    Count(u64),
    Jobs(Vec<Result<(i64, ImportedJob), Refused>>),
}

fn read(file: &Path, parts: &mpsc::Sender<Part>) -> Result<()> {
    let database = Database::open(file)?;
    let pass = |part| parts.blocking_send(part).is_ok();
    let _ = pass(Part::Workers(database.workers()?))
        && pass(Part::Tokens(database.tokens()?))
        && pass(Part::Count(database.count_jobs()?));
    database.jobs(|batch| pass(Part::Jobs(batch)))
}

/// Counts of one table.
#[derive(Debug, Default)]
struct Count {
    imported: u64,
    known: u64,
    refused: u64,
}

impl Count {
    fn add(&mut self, is_known: bool) {
        if is_known { self.known += 1 } else { self.imported += 1 }
    }

    fn to_json(&self) -> Value {
        json!({ "imported": self.imported, "known": self.known, "refused": self.refused })
    }
}

/// What was done.
#[derive(Debug, Default)]
struct Done {
    jobs: Count,
    workers: Count,
    tokens: Count,
    /// Files of the imported jobs.
    files: usize,
    /// Tokens that have expired.
    expired: u64,
}

impl Import {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode> {
        let pools = if self.dry_run {
            None
        } else {
            Some(Pools::open(&context.urls_to_write().await?, PoolSizes::default())?)
        };
        let (parts, mut arrivals) = mpsc::channel(BATCHES_MAX);
        let file = self.file.clone();
        let reading = tokio::task::spawn_blocking(move || read(&file, &parts));
        let (mut done, mut bar) = (Done::default(), ProgressBar::hidden());
        while let Some(part) = arrivals.recv().await {
            match part {
                Part::Count(jobs) => bar = output::count_bar(jobs, "job", "jobs"),
                Part::Workers(rows) => {
                    let rows = self.taken(rows, &mut done.workers, &bar)?;
                    self.workers(pools.as_ref(), rows, &mut done, &bar).await?;
                }
                Part::Tokens(rows) => {
                    let rows = rows.into_iter().map(|row| row.and_then(|row| self.admitted(row))).collect();
                    let rows = self.taken(rows, &mut done.tokens, &bar)?;
                    tokens(pools.as_ref(), rows, &mut done).await?;
                }
                Part::Jobs(rows) => {
                    let read = u64::try_from(rows.len()).unwrap_or(u64::MAX);
                    let rows = self.taken(rows, &mut done.jobs, &bar)?;
                    self.jobs(pools.as_ref(), rows, &mut done, &bar).await?;
                    bar.inc(read);
                }
            }
        }
        reading.await?.with_context(|| format!("cannot import {}", self.file.display()))?;
        bar.finish_and_clear();
        if let Some(pools) = pools {
            pools.close().await;
        }
        self.report(&done)
    }

    /// The rows that are not refused; the others are named.
    fn taken<T>(
        &self,
        rows: Vec<Result<T, Refused>>,
        count: &mut Count,
        bar: &ProgressBar,
    ) -> Result<Vec<T>> {
        let mut taken = Vec::with_capacity(rows.len());
        for row in rows {
            match row {
                Ok(row) => taken.push(row),
                Err(refused) => {
                    count.refused += 1;
                    bar.suspend(|| self.name(&refused))?;
                }
            }
        }
        Ok(taken)
    }

    /// A token, unless it is an administrator's and those were not asked for.
    fn admitted(&self, row: TokenRow) -> Result<TokenRow, Refused> {
        if !row.is_admin {
            return Ok(row);
        }
        if self.with_administrators {
            notice(format_args!("administrator's token: {}", output::one_line(&row.name, 80)));
            return Ok(row);
        }
        let name = output::one_line(&row.name, 80);
        let reason = format!("`{name}` is an administrator's token: --with-administrators imports it");
        Err(Refused::new("api_tokens", &row.id, reason))
    }

    fn name(&self, refused: &Refused) -> Result<()> {
        if self.json {
            return output::list(refused.to_json());
        }
        let Refused { table, id, reason } = refused;
        notice(format_args!(
            "refused: {table} {}: {}",
            output::one_line(id, 80),
            output::one_line(reason, 200)
        ));
        Ok(())
    }

    /// Stores a batch of jobs. If the database refuses it, each job by itself, and names those that it refuses.
    async fn jobs(
        &self,
        pools: Option<&Pools>,
        rows: Vec<(i64, ImportedJob)>,
        done: &mut Done,
        bar: &ProgressBar,
    ) -> Result<()> {
        let files = |job: &ImportedJob| job.facts["files"].as_array().map_or(0, Vec::len);
        let Some(pools) = pools else {
            done.jobs.imported += u64::try_from(rows.len()).unwrap_or(u64::MAX);
            done.files += rows.iter().map(|(_, job)| files(job)).sum::<usize>();
            return Ok(());
        };
        let (ids, batch): (Vec<i64>, Vec<ImportedJob>) = rows.into_iter().unzip();
        if batch.is_empty() {
            return Ok(());
        }
        let mut stored: Vec<Option<StoredImport>> = Vec::with_capacity(batch.len());
        match store(pools, &batch).await {
            Ok(all) => stored.extend(all.into_iter().map(Some)),
            Err(Error::Data(_)) => {
                for (id, job) in ids.iter().zip(&batch) {
                    match store(pools, std::slice::from_ref(job)).await {
                        Ok(one) => stored.push(one.into_iter().next()),
                        Err(Error::Data(error)) => {
                            stored.push(None);
                            done.jobs.refused += 1;
                            let refused = Refused::new("jobs", id, error.to_string());
                            bar.suspend(|| self.name(&refused))?;
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            Err(error) => return Err(error.into()),
        }
        for (job, stored) in batch.iter().zip(stored) {
            let Some(stored) = stored else { continue };
            done.jobs.add(stored.is_known);
            if !stored.is_known {
                done.files += files(job);
            }
        }
        Ok(())
    }

    fn report(&self, done: &Done) -> Result<ExitCode> {
        let Done { jobs, workers, tokens, files, expired } = done;
        if self.json {
            output::list(json!({
                "dry_run": self.dry_run, "jobs": jobs.to_json(), "workers": workers.to_json(), "tokens": tokens.to_json(),
                "expired_tokens": expired, "files": files,
            }))?;
        } else {
            let row = |name: &str, count: &Count| {
                [
                    name.to_owned(),
                    count.imported.to_string(),
                    count.known.to_string(),
                    count.refused.to_string(),
                ]
            };
            let rows = [row("jobs", jobs), row("workers", workers), row("tokens", tokens)];
            let imported = if self.dry_run { "to import" } else { "imported" };
            output::list(output::table(["", imported, "known", "refused"], rows))?;
            output::list(format_args!("{files} files of these jobs; {expired} expired tokens left out"))?;
        }
        let has_refused = jobs.refused + workers.refused + tokens.refused > 0;
        Ok(if has_refused { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// Stores tokens by their hashes.
async fn tokens(pools: Option<&Pools>, rows: Vec<TokenRow>, done: &mut Done) -> Result<()> {
    let now = SystemClock.now();
    let mut commands = Vec::new();
    for row in rows {
        let lifetime_s = row.expires_at.map(|at| at.timestamp() - now.timestamp());
        if lifetime_s.is_some_and(|left| left <= 0) {
            done.expired += 1;
            continue;
        }
        commands.push((row, lifetime_s));
    }
    let known = match pools {
        Some(pools) => jobs_read::tokens(&pools.session).await?.len(),
        None => 0,
    };
    let asked = commands.len();
    let create = commands.into_iter().map(|(row, lifetime_s)| {
        CredentialCommand::Create(Box::new(NewCredential {
            sha256: row.sha256,
            name: row.name,
            worker: None,
            is_admin: row.is_admin,
            scopes: row.scopes,
            lifetime_s,
            actor: ACTOR.to_owned(),
        }))
    });
    let create: Vec<CredentialCommand> = create.collect();
    let Some(pools) = pools else {
        done.tokens.imported += u64::try_from(asked).unwrap_or(u64::MAX);
        return Ok(());
    };
    send(CredentialJournal, pools, create).await?;
    let new = jobs_read::tokens(&pools.session).await?.len().saturating_sub(known).min(asked);
    done.tokens.imported += u64::try_from(new).unwrap_or(u64::MAX);
    done.tokens.known += u64::try_from(asked - new).unwrap_or(u64::MAX);
    Ok(())
}

/// Stores a batch of jobs.
async fn store(pools: &Pools, batch: &[ImportedJob]) -> Result<Vec<StoredImport>, Error> {
    let backoff = ExponentialBuilder::default().with_jitter();
    let store = || async {
        // The numbers of one batch lie in the partitions that exist after this.
        ensure_partitions(pools).await?;
        import_jobs(pools, batch, ACTOR).await
    };
    store.retry(backoff).when(Error::is_transient).await
}

/// Commits commands to a journal. Returns their answers in their order.
async fn send<J: Journal>(
    journal: J,
    pools: &Pools,
    commands: Vec<J::Command>,
) -> Result<Vec<J::Answer>, Error> {
    let (writer, task) =
        Writer::new(journal, pools.write.clone(), Hints::default(), &AppendMetrics::default());
    // The writer is dropped after its last command, which ends the task.
    let sending = async move {
        let answers = stream::iter(commands).map(|command| writer.append(command));
        answers.buffered(COMMANDS_MAX).try_collect::<Vec<_>>().await
    };
    let (answers, ()) = tokio::join!(sending, task);
    answers
}
