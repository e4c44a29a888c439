//! Rows as plain data.

use chrono::{DateTime, Utc};
use tokio_postgres::Row;

use crate::base::Sha256;
use crate::services::blossom::event::{BlobFacts, Replica, ReplicaState};
use crate::store::Error;

/// The hash in a column.
pub(super) fn sha256(row: &Row, column: usize) -> Result<Sha256, Error> {
    let bytes: &[u8] = row.get(column);
    Sha256::try_from(bytes).map_err(|error| Error::inconsistent("blobs", error.to_string()))
}

/// The key in a column.
pub(super) fn key(row: &Row, column: usize) -> Result<[u8; 32], Error> {
    let bytes: &[u8] = row.get(column);
    bytes.try_into().map_err(|_| Error::inconsistent("blob_owners", "a key has not 32 bytes"))
}

/// The blob in three columns: hash, size, media type.
pub(super) fn facts(row: &Row, column: usize) -> Result<BlobFacts, Error> {
    Ok(BlobFacts {
        sha256: sha256(row, column)?,
        size: unsigned(row.get(column + 1)),
        media_type: row.get(column + 2),
    })
}

/// The copy in four columns: upstream, state, since, why; `None` if there is none.
pub(super) fn replica(row: &Row, column: usize) -> Result<Option<Replica>, Error> {
    let Some(upstream) = row.get::<_, Option<String>>(column) else { return Ok(None) };
    let since: DateTime<Utc> = row.get(column + 2);
    Ok(Some(Replica { upstream, state: state(row, column + 1)?, since, why: row.get(column + 3) }))
}

/// The state of a copy in a column.
pub(super) fn state(row: &Row, column: usize) -> Result<ReplicaState, Error> {
    let word: &str = row.get(column);
    let unknown = || Error::inconsistent("blob_replicas", format!("the state {word} is unknown"));
    ReplicaState::parse(word).ok_or_else(unknown)
}

/// A number that a constraint or its computation keeps from being negative.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
