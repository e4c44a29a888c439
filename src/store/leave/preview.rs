//! What an erasure would remove.

use super::{ErasureSubject, Left, holds, list};
use crate::base::Secret;
use crate::store::{Error, owner};

/// Events that a preview shows.
const SHOWN: i64 = 10;

/// Characters of an event's content that a preview reads.
const CONTENT_CHARACTERS: i32 = 200;

/// An event that would leave.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LeavingEvent {
    /// Its id, in hex.
    pub id: String,
    /// Its kind.
    pub kind: i32,
    /// Its author's key, in hex.
    pub pubkey: String,
    /// As signed, unix seconds.
    pub created_at: i64,
    /// At most 200 characters of its content, as signed; `None` where contents are not stored.
    pub content: Option<String>,
}

/// What an erasure would remove.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Preview {
    /// How many rows.
    #[serde(flatten)]
    pub holds: Left,
    /// The oldest of the events, at most ten.
    pub first: Vec<LeavingEvent>,
}

/// The contents are cut after the limit, so that only those that are shown are read.
const FIRST: &str = "
    SELECT encode(id, 'hex'), kind, encode(pubkey, 'hex'), created_at, left(content, $2)
    FROM (SELECT e.* FROM leaving l JOIN events e ON e.created_at = l.created_at AND e.id = l.id
          ORDER BY e.created_at, e.id LIMIT $1) first
    ORDER BY created_at, id";

/// Finds what [`super::erase`] would remove now.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn preview(owner: &Secret, subject: ErasureSubject) -> Result<Preview, Error> {
    let mut client = owner::connect(owner).await?;
    let transaction = client.transaction().await?;
    list(&transaction, subject).await?;
    let (holds, _) = holds(&transaction).await?;
    let rows = transaction.query(FIRST, &[&SHOWN, &CONTENT_CHARACTERS]).await?;
    let first = rows
        .iter()
        .map(|row| LeavingEvent {
            id: row.get(0),
            kind: row.get(1),
            pubkey: row.get(2),
            created_at: row.get(3),
            content: row.get(4),
        })
        .collect();
    Ok(Preview { holds, first })
}
