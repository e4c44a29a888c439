//! Looks at one copy: by its size, or by all of its bytes.

use futures_util::StreamExt as _;

use super::ReactParts;
use crate::base::Sha256;
use crate::services::blossom::append::BlobAnswer;
use crate::services::blossom::command::{BlobCommand, ReplicaResult};
use crate::services::blossom::event::{BlobFacts, Proof, ReplicaEvent};
use crate::services::blossom::upstream::{Upstream, UpstreamError};
use crate::store::Error;

/// Who the journal says did it.
pub(super) const ACTOR: &str = "quipu";

/// What a look at a copy found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It is there.
    Readable(Proof),
    /// It is not there.
    Absent,
    /// Other bytes are there.
    OtherBytes(String),
    /// The upstream does not answer, or refuses: nothing is known.
    Unknown(String),
}

impl Finding {
    /// The entry about a copy that counted as readable; nothing if nothing is known.
    #[must_use]
    pub fn of_readable(self, upstream: &str) -> Option<ReplicaResult> {
        let (event, why) = match self {
            Self::Readable(proof) => (ReplicaEvent::Proven(proof), None),
            Self::Absent => (ReplicaEvent::Lost, Some("it is not there any more".to_owned())),
            Self::OtherBytes(why) => (ReplicaEvent::Lost, Some(why)),
            Self::Unknown(_) => return None,
        };
        Some(ReplicaResult { upstream: upstream.to_owned(), event, why })
    }
}

/// Looks at the copy of a blob at an upstream. A size that the upstream does not tell, or tells differently, is found
/// out from the bytes.
pub async fn check_replica(upstream: &Upstream, blob: &BlobFacts, proof: Proof) -> Finding {
    if proof == Proof::Head {
        match upstream.head(&blob.sha256).await {
            Ok(Some(facts)) if facts.size == Some(blob.size) => return Finding::Readable(Proof::Head),
            Ok(Some(_)) => {}
            Ok(None) => return Finding::Absent,
            Err(error) => return Finding::Unknown(error.reason),
        }
    }
    read(upstream, blob).await
}

/// Reads all bytes of a copy.
async fn read(upstream: &Upstream, blob: &BlobFacts) -> Finding {
    let reader = match upstream.get(&blob.sha256, None).await {
        Ok(Some(reader)) => reader,
        Ok(None) => return Finding::Absent,
        Err(error) => return Finding::Unknown(error.reason),
    };
    if let Some(size) = reader.size
        && size != blob.size
    {
        return Finding::OtherBytes(format!("it has {size} bytes there, and {} here", blob.size));
    }
    let Ok(reader) = reader.limited(blob.size) else {
        return Finding::OtherBytes(format!("it has more bytes there than {}", blob.size));
    };
    let mut bytes = reader.verified(blob.sha256).bytes;
    while let Some(piece) = bytes.next().await {
        match piece {
            Ok(_) => {}
            Err(error) if is_other_content(&error) => {
                return Finding::OtherBytes("it has other bytes there".to_owned());
            }
            Err(error) => return Finding::Unknown(error.reason),
        }
    }
    Finding::Readable(Proof::Hash)
}

/// Whether a blob that is read to the end, or to its known size, is another one.
pub(super) fn is_other_content(error: &UpstreamError) -> bool {
    error.is_other_bytes() || error.status == Some(413)
}

/// Looks at a copy that counts as readable, and records what was found.
///
/// # Errors
/// When the database fails.
pub async fn prove_copy(
    parts: &ReactParts,
    upstream: &Upstream,
    blob: &BlobFacts,
    proof: Proof,
) -> Result<Finding, Error> {
    let found = check_replica(upstream, blob, proof).await;
    if let Some(result) = found.clone().of_readable(upstream.name()) {
        record(parts, blob.sha256, vec![result]).await?;
    }
    Ok(found)
}

/// Commits entries about copies of one blob, and counts them.
pub(super) async fn record(
    parts: &ReactParts,
    sha256: Sha256,
    results: Vec<ReplicaResult>,
) -> Result<(), Error> {
    if results.is_empty() {
        return Ok(());
    }
    let events: Vec<_> = results.iter().map(|result| (result.upstream.clone(), result.event)).collect();
    let command = BlobCommand::Replicas { sha256, results, actor: ACTOR.to_owned() };
    let _: BlobAnswer = parts.journal.append(command).await?;
    for (name, event) in events {
        if let Some(upstream) = parts.upstreams.named(&name) {
            upstream.count_recorded(event);
        }
        if event == ReplicaEvent::Lost {
            tracing::warn!(upstream = name, blob = %sha256, "a copy of {sha256} at {name} is lost");
        }
    }
    Ok(())
}
