//! Preview of an erasure.

use super::{ErasureSubject, RemovedRows, count_listed, list_events};
use crate::base::Secret;
use crate::store::{Error, owner};

/// Maximum number of events in a preview.
const SHOWN: i64 = 10;

/// Maximum number of characters of each event's content.
const CONTENT_CHARACTERS: i32 = 200;

/// An event that would be erased.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PreviewEvent {
    /// Event id, in hex.
    pub id: String,
    /// Event kind.
    pub kind: i32,
    /// Public key of the author, in hex.
    pub pubkey: String,
    /// As signed; unix seconds.
    pub created_at: i64,
    /// At most 200 characters of its content; `None` where contents are not stored.
    pub content: Option<String>,
}

/// What an erasure would remove.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Preview {
    /// Number of rows.
    #[serde(flatten)]
    pub holds: RemovedRows,
    /// The oldest of these events, at most ten.
    pub first: Vec<PreviewEvent>,
}

/// The contents are cut after the LIMIT, so only the contents that are shown are read.
const FIRST: &str = "-- preview_events
    SELECT encode(id, 'hex'), kind, encode(pubkey, 'hex'), created_at, left(content, $2)
    FROM (SELECT e.* FROM leaving l JOIN events e ON e.created_at = l.created_at AND e.id = l.id
          ORDER BY e.created_at, e.id LIMIT $1) first
    ORDER BY created_at, id";

/// Finds the events that [`super::erase`] would remove now.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn preview(owner: &Secret, subject: ErasureSubject) -> Result<Preview, Error> {
    let mut client = owner::connect(owner).await?;
    let transaction = client.transaction().await?;
    list_events(&transaction, subject).await?;
    let (holds, _) = count_listed(&transaction).await?;
    let rows = transaction.query(FIRST, &[&SHOWN, &CONTENT_CHARACTERS]).await?;
    let first = rows
        .iter()
        .map(|row| PreviewEvent {
            id: row.get(0),
            kind: row.get(1),
            pubkey: row.get(2),
            created_at: row.get(3),
            content: row.get(4),
        })
        .collect();
    Ok(Preview { holds, first })
}
