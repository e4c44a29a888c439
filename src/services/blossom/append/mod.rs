//! Commits commands to the journals of blobs, and reads and writes the cursors of loops.

mod changes;
mod commands;
mod cursors;

use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

pub use changes::{Changes, Mark};
pub use cursors::{cursors_at, move_cursor, read_cursor};

use super::command::BlobCommand;
use crate::base::Sha256;
use crate::store::Error;
use crate::store::append::{Client, Journal};

/// Most weight in one transaction. A command weighs 1, and 1 more for each result, reference or reported blob, and
/// for each 4 KiB of a report.
const BATCH_WEIGHT_MAX: usize = 1_024;

/// Bytes of a report that weigh as much as one command.
const WEIGHED_BYTES: usize = 4_096;

/// The answer to a command, given after the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobAnswer {
    /// The blob is recorded.
    Stored {
        /// Whether the blob was unknown or this owner is new.
        is_new: bool,
        /// When it got this owner, or without an owner when it was first seen; Unix seconds.
        uploaded: i64,
    },
    /// The fact is recorded, or was before.
    Recorded,
    /// The key does not own the blob.
    Disowned {
        /// Whether it owned it before.
        was_owner: bool,
        /// Owners that are left.
        owners_left: i64,
    },
    /// The key does not own the blob, for this reason. What upstreams did with it is recorded, unless the blob
    /// was erased.
    Refused(BlobRefusal),
}

/// Why a blob gets no owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobRefusal {
    /// It is banned.
    Banned {
        /// The reason.
        why: String,
    },
    /// The key would own more bytes than it may.
    OverBytes {
        /// The limit.
        max: i64,
    },
    /// The key would own more blobs than it may.
    OverBlobs {
        /// The limit.
        max: i64,
    },
}

/// The journals of blobs. After each commit, what is remembered of its blobs counts as old, here and in other processes.
#[derive(Debug, Clone)]
pub struct BlobJournal {
    /// Which blobs have changed.
    pub changes: Changes,
}

const APPEND: &str = "-- append_blobs
    SELECT place, outcome, flag, number, why FROM quipu_append_blobs($1, $2) ORDER BY place";

impl Journal for BlobJournal {
    type Command = BlobCommand;
    type Answer = BlobAnswer;
    const NAME: &'static str = "blob_log";
    const QUEUE_MAX: usize = 4_096;

    fn batch_weight_max(&self) -> usize {
        BATCH_WEIGHT_MAX
    }

    fn weight(command: &BlobCommand) -> usize {
        1 + match command {
            BlobCommand::Store(store) => store.results.len(),
            BlobCommand::Replicas { results, .. } => results.len(),
            BlobCommand::Report(report) => report.blobs.len() * (1 + report.event.len() / WEIGHED_BYTES),
            BlobCommand::Want(wanted) => wanted.len(),
            BlobCommand::Disown { .. }
            | BlobCommand::Ban { .. }
            | BlobCommand::Unban { .. }
            | BlobCommand::Missed { .. }
            | BlobCommand::Follow { .. } => 0,
        }
    }

    async fn append(
        &self,
        client: &mut Client,
        batch: Uuid,
        commands: &[BlobCommand],
    ) -> Result<Vec<BlobAnswer>, Error> {
        let json: Value = commands.iter().map(commands::json).collect();
        let rows = client.query_typed(APPEND, &[(&batch, Type::UUID), (&json, Type::JSONB)]).await?;
        self.changes.committed(commands.iter().filter_map(changed));
        rows.iter().map(answer).collect()
    }

    /// Always `None`, so the batch is sent again: the function stores a batch once, and gives the same answers.
    async fn lookup(
        &self,
        _client: &Client,
        _batch: Uuid,
        _commands: &[BlobCommand],
    ) -> Result<Option<Vec<BlobAnswer>>, Error> {
        Ok(None)
    }
}

/// The blob whose look-up the command may change.
const fn changed(command: &BlobCommand) -> Option<Sha256> {
    match command {
        BlobCommand::Store(store) => Some(store.facts.sha256),
        BlobCommand::Replicas { sha256, .. }
        | BlobCommand::Disown { sha256, .. }
        | BlobCommand::Ban { sha256, .. }
        | BlobCommand::Unban { sha256, .. } => Some(*sha256),
        BlobCommand::Missed { .. }
        | BlobCommand::Report(_)
        | BlobCommand::Follow { .. }
        | BlobCommand::Want(_) => None,
    }
}

fn answer(row: &Row) -> Result<BlobAnswer, Error> {
    let (outcome, flag, number): (&str, Option<bool>, Option<i64>) = (row.get(1), row.get(2), row.get(3));
    let flag = flag.unwrap_or_default();
    let number = number.unwrap_or_default();
    Ok(match outcome {
        "stored" => BlobAnswer::Stored { is_new: flag, uploaded: number },
        "recorded" => BlobAnswer::Recorded,
        "disowned" => BlobAnswer::Disowned { was_owner: flag, owners_left: number },
        "banned" => {
            let why: Option<String> = row.get(4);
            BlobAnswer::Refused(BlobRefusal::Banned { why: why.unwrap_or_default() })
        }
        "over_bytes" => BlobAnswer::Refused(BlobRefusal::OverBytes { max: number }),
        "over_blobs" => BlobAnswer::Refused(BlobRefusal::OverBlobs { max: number }),
        other => return Err(Error::inconsistent("blob_log", format!("the outcome {other} is unknown"))),
    })
}
