//! `quipu url`: where the running instance's database is, for other programs.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use super::{Context, output};
use crate::app::instance;

/// A way into the database.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Door {
    /// The services' writes, through the pooler by transaction.
    Write,
    /// The services' reads, through the pooler by session.
    Session,
    /// For people: reads only, with a time limit for each statement.
    Reader,
    /// Migrations and erasure, straight to the server.
    Owner,
}

/// Prints one URL. It holds a password.
pub(super) fn show(context: &Context, door: Door) -> Result<ExitCode> {
    let instance = instance::running(&context.data)?;
    let url = match door {
        Door::Write => instance.database_url,
        Door::Session => instance.session_database_url,
        Door::Reader => instance.reader_database_url.context(
            "this instance was given its database, and nobody told it the reader's password: ask for `quipu url session`",
        )?,
        Door::Owner => instance.owner_database_url,
    };
    output::say(url);
    Ok(ExitCode::SUCCESS)
}
