//! `quipu up --sample`: its relay, on loopback with generated events, and the mark of its data folder, which
//! keeps generated events out of a real archive.

use std::fs::read_to_string;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use backon::{ConstantBuilder, Retryable as _};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::base::{RelayUrl, Secret};
use crate::sample::{SampleGenerator, SampleRelay};
use crate::services::archive::RelayJournal;
use crate::services::archive::command::RelayCommand;
use crate::store::append::Writer;
use crate::store::embedded::write_whole;
use crate::store::registry::{TABLES, TableKind};
use crate::store::{Error, owner};

/// The file that marks the data folder of a sample.
const MARK: &str = "sample";

/// Pause between two tries to add the relay while the disk is full.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Fixed, so that every sample has the same events: the seed, the number of authors and events, and the time
/// they span.
const SEED: u64 = 7;
const AUTHORS: usize = 600;
const EVENTS: u64 = 20_000;
const YEAR_2025: std::ops::Range<u64> = 1_735_689_600..1_767_225_600;

/// Starts the sample relay.
pub(super) async fn start(port: u16) -> Result<SampleRelay> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let events = tokio::task::spawn_blocking(|| {
        SampleGenerator::new(SEED, AUTHORS, YEAR_2025, EVENTS).collect::<Vec<_>>()
    })
    .await?;
    SampleRelay::start(address, events).await.with_context(|| {
        format!("the sample relay cannot start on port {port}; `--port-base N` moves all listeners")
    })
}

/// Refuses to run a real archive on the data folder of a sample.
///
/// # Errors
/// The folder has the mark; the message says what to do.
pub(super) fn check_real(data: &Path) -> Result<()> {
    if data.join(MARK).exists() {
        bail!(
            "{0} holds the generated events of a sample: add `--sample`, or name another folder with `--data`",
            data.display()
        );
    }
    Ok(())
}

/// Refuses to add generated events to a database that is in use, and marks the data folder as that of a sample,
/// with the identity of its database, before anything is stored.
///
/// # Errors
/// Something is stored in the database, and the mark does not name it; the message says what to do. Or it
/// cannot be asked.
pub(super) async fn mark(data: &Path, database: &Secret) -> Result<()> {
    let client = owner::connect(database).await?;
    let (mark, identity) = (data.join(MARK), identity(&client).await?);
    if read_to_string(&mark).is_ok_and(|marked| marked.lines().any(|line| line == identity)) {
        return Ok(());
    }
    if is_in_use(&client).await? {
        bail!(
            "the database of {} is in use, and `--sample` would add generated events to it: name another folder with \
             `--data`, or another database (a sample that was restored or copied counts as in use, too)",
            data.display()
        );
    }
    let text = "Its events are generated: `quipu up` refuses this folder without `--sample`.";
    Ok(write_whole(&mark, &format!("{text}\n{identity}\n"))?)
}

/// A line that names the database.
async fn identity(client: &Client) -> Result<String, Error> {
    let sql = "-- database_identity
        SELECT format('database %s of server %s', d.oid, s.system_identifier)
        FROM pg_database d CROSS JOIN pg_control_system() s WHERE d.datname = current_database()";
    Ok(client.query_one(sql, &[]).await?.get(0))
}

/// Whether a journal has entries, apart from those that each start writes. Before the first migration there is
/// none, and an older schema has fewer.
async fn is_in_use(client: &Client) -> Result<bool, Error> {
    let journals: Vec<&str> = TABLES
        .iter()
        .filter(|(name, kind)| *kind == TableKind::Journal && !["era", "implementation_log"].contains(name))
        .map(|(name, _)| *name)
        .collect();
    let sql = "-- existing_journals\nSELECT j FROM unnest($1::text[]) AS j WHERE to_regclass(j) IS NOT NULL";
    for row in client.query_typed(sql, &[(&journals, Type::TEXT_ARRAY)]).await? {
        let has_entries = format!("-- has_entries\nSELECT EXISTS (SELECT FROM {})", row.get::<_, &str>(0));
        if client.query_typed(&has_entries, &[]).await?.iter().any(|row| row.get(0)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Adds the sample relay, once there is space on the disk.
///
/// # Errors
/// Of the store, but not [`Error::NoSpace`].
pub(super) async fn add(relays: Writer<RelayJournal>, url: RelayUrl) -> Result<(), Error> {
    let every = ConstantBuilder::default().with_delay(RETRY_EVERY).without_max_times();
    (|| relays.append(RelayCommand::Add { url: url.clone(), source: "operator" }))
        .retry(every)
        .when(|error| matches!(error, Error::NoSpace(_)))
        .await
        .map(|_| ())
}
