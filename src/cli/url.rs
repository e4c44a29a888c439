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
    /// For people: reads everything but messages, with a time limit for each statement.
    Reader,
    /// The same, and reads messages.
    MessagesReader,
    /// For programs that hand over events and relays by SQL: insert_event, insert_relay, insert_relay_metadata.
    Writer,
    /// Migrations and erasure, straight to the server.
    Owner,
}

/// Prints one URL. It holds a password.
pub(super) fn show(context: &Context, door: Door) -> Result<ExitCode> {
    let instance = instance::running(&context.data)?;
    let unknown = "this instance was given the URLs of its database, and the password of this role was not among them: \
                   ask the administrator of the server, or use `quipu url session`";
    let url = match door {
        Door::Write => instance.database_url,
        Door::Session => instance.session_database_url,
        Door::Reader => instance.reader_database_url.context(unknown)?,
        Door::MessagesReader => instance.messages_reader_database_url.context(unknown)?,
        Door::Writer => instance.writer_database_url.context(unknown)?,
        Door::Owner => instance.owner_database_url,
    };
    output::say(url);
    Ok(ExitCode::SUCCESS)
}
