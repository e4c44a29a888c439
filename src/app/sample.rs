//! `quipu up --sample`: its relay, on loopback with generated events, and the mark of its data folder, which
//! keeps generated events out of a real archive.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use backon::{ConstantBuilder, Retryable as _};

use crate::base::{RelayUrl, Secret};
use crate::sample::{SampleGenerator, SampleRelay};
use crate::services::archive::RelayJournal;
use crate::services::archive::command::RelayCommand;
use crate::store::append::Writer;
use crate::store::embedded::write_whole;
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

/// Refuses to add generated events to a real archive, and marks the data folder as that of a sample, before
/// anything is stored.
///
/// # Errors
/// The database has relays or events; the message says what to do. Or it cannot be asked.
pub(super) async fn mark(data: &Path, database: &Secret) -> Result<()> {
    let mark = data.join(MARK);
    if mark.exists() {
        return Ok(());
    }
    if is_in_use(database).await? {
        bail!(
            "the database of {} holds an archive, to which `--sample` would add generated events: name another folder with \
             `--data`, or another database",
            data.display()
        );
    }
    let text = "Its events are generated: `quipu up` refuses this folder without `--sample`.\n";
    Ok(write_whole(&mark, text)?)
}

/// Whether the database has relays or events. Before the first migration it has no table.
async fn is_in_use(url: &Secret) -> Result<bool, Error> {
    let client = owner::connect(url).await?;
    let migrated = "-- is_migrated\nSELECT to_regclass('relays') IS NOT NULL";
    if !client.query_one(migrated, &[]).await?.get::<_, bool>(0) {
        return Ok(false);
    }
    let found = "-- is_in_use\nSELECT EXISTS (SELECT FROM relays) OR EXISTS (SELECT FROM events)";
    Ok(client.query_one(found, &[]).await?.get(0))
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
