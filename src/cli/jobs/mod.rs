//! `quipu jobs`, `quipu workers` and `quipu worker`: clients of the queue of jobs over HTTP, and the import of
//! BlobForge's database.

mod client;
mod download;
mod files;
mod import;
mod manage;
mod resend;
mod server;
mod show;
mod submit;
mod transfer;
mod transfer_error;
mod upload;
mod upload_notes;
mod watch;
pub(super) mod worker;
pub(super) mod workers;

use std::process::ExitCode;

use anyhow::Result;
use clap::builder::RangedI64ValueParser;
use clap::{Args, Subcommand};

use super::{Context, until_signal};
use crate::base::JOB_ATTEMPTS_MAX;
use crate::services::jobs::decide::{PRIORITY_FIRST, PRIORITY_LAST};
use server::ServerArgs;
use upload_notes::Notes;

/// Takes a priority.
fn priority() -> RangedI64ValueParser<i16> {
    clap::value_parser!(i16).range(i64::from(PRIORITY_FIRST)..=i64::from(PRIORITY_LAST))
}

/// Takes a number of attempts.
fn attempts() -> RangedI64ValueParser<i32> {
    clap::value_parser!(i32).range(1..=i64::from(JOB_ATTEMPTS_MAX))
}

/// Submit, list, follow and change jobs.
#[derive(Debug, Args)]
pub(super) struct Jobs {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Submit files, or a job without a file.
    Submit(submit::Submit),
    /// Submit the files of a folder, with tags from their paths.
    Ingest(submit::Ingest),
    /// List jobs.
    List(show::List),
    /// Show a job and its history.
    Show(show::Show),
    /// Download the output of a job, or its source.
    Download(download::Download),
    /// Count jobs and workers by status.
    Stats(show::Stats),
    /// Show what happens to jobs and workers, until Ctrl-C or until the named jobs have ended.
    Watch(watch::Watch),
    /// Make failed, dead or cancelled jobs pending again.
    Retry(manage::Retry),
    /// Cancel jobs. A worker learns it at its next heartbeat.
    Cancel(manage::Cancel),
    /// Change the priority of jobs.
    Priority(manage::Priority),
    /// Import BlobForge's database: jobs with their files, workers, and tokens by their hashes. May be
    /// repeated: what is there already is left alone.
    Import(import::Import),
}

impl Jobs {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode> {
        let Self { server, command } = self;
        let server = || server.open(context);
        let notes = || Notes::of(&context.configuration.environment);
        match command {
            Command::Submit(submit) => until_signal(submit.run(&server()?, notes())).await,
            Command::Ingest(ingest) => until_signal(ingest.run(&server()?, notes())).await,
            Command::List(list) => until_signal(list.run(&server()?)).await,
            Command::Show(show) => until_signal(show.run(&server()?)).await,
            Command::Download(download) => until_signal(download.run(&server()?)).await,
            Command::Stats(stats) => until_signal(stats.run(&server()?)).await,
            Command::Watch(watch) => watch.run(&server()?).await,
            Command::Retry(retry) => until_signal(retry.run(&server()?)).await,
            Command::Cancel(cancel) => until_signal(cancel.run(&server()?)).await,
            Command::Priority(priority) => until_signal(priority.run(&server()?)).await,
            // It writes to the database, not through the server.
            Command::Import(import) => until_signal(import.run(context)).await,
        }
    }
}
