//! `quipu url`: the URLs of the database, for other programs.

use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;

use super::{Context, output};
use crate::app::instance;
use crate::store::embedded::SharedRole;

/// A role and a route into the database.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Door {
    /// The services' writes, through the pooler by transaction.
    Write,
    /// The services' reads, through the pooler by session.
    Session,
    /// For analysts: reads everything but messages, with a time limit for each statement.
    Reader,
    /// For analysts who may also read messages.
    MessagesReader,
    /// For programs that insert events, relays and jobs by SQL: `insert_event`, `insert_relay`,
    /// `insert_relay_metadata`, `quipu_submit_job`.
    Writer,
    /// Migrations and erasure, straight to the server.
    Owner,
    /// The superuser of Quipu's own PostgreSQL, straight to the server: sees and ends sessions of every role.
    Admin,
}

/// Prints one URL of the environment or of the running instance. The URL holds a password.
pub(super) fn show(context: &Context, door: Door) -> Result<ExitCode> {
    let person = |person| instance::find_person(&context.data, &context.configuration.database, person);
    let url = match door {
        Door::Write => context.urls()?.write,
        Door::Session => context.urls()?.session,
        Door::Owner => context.urls()?.owner()?.clone(),
        Door::Admin => instance::find_admin(&context.data, &context.configuration.database)?,
        Door::Reader => person(SharedRole::Reader)?,
        Door::MessagesReader => person(SharedRole::MessagesReader)?,
        Door::Writer => person(SharedRole::Writer)?,
    };
    output::list(url.expose())?;
    Ok(ExitCode::SUCCESS)
}
