//! What can be asked of the journals of blobs.

use super::event::{BlobFacts, Ownership, ReplicaEvent};
use crate::base::Sha256;

/// A command for the journals of blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobCommand {
    /// Records a blob whose bytes were hashed here, and what the upstreams did with it.
    Store(StoreBlob),
    /// Records what happened to copies. A blob that is not known is not recorded.
    Replicas {
        /// The blob.
        sha256: Sha256,
        /// What happened, in this order.
        results: Vec<ReplicaResult>,
        /// Who caused it.
        actor: String,
    },
    /// Ends a key's ownership.
    Disown {
        /// The blob.
        sha256: Sha256,
        /// The key.
        owner: [u8; 32],
        /// Who caused it.
        actor: String,
    },
    /// Refuses the blob from now on, whether it is known or not.
    Ban {
        /// The blob.
        sha256: Sha256,
        /// The reason, shown to clients.
        why: String,
        /// Who caused it.
        actor: String,
    },
    /// Ends a ban.
    Unban {
        /// The blob.
        sha256: Sha256,
        /// Who caused it.
        actor: String,
    },
    /// Records that a wanted blob was found nowhere.
    Missed {
        /// The blob.
        sha256: Sha256,
        /// The last place, and why it is not there.
        why: String,
    },
    /// Records a report about blobs (kind 1984); a report that is known changes nothing.
    Report(BlobReport),
    /// Follows a key, or ends it.
    Follow {
        /// The key.
        pubkey: [u8; 32],
        /// Whether it is followed from now on.
        is_on: bool,
        /// Who caused it.
        actor: String,
    },
    /// Records that events of a followed key refer to blobs; what is known changes nothing.
    Want(Vec<WantedBlob>),
}

/// A blob whose bytes were hashed here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreBlob {
    /// The blob.
    pub facts: BlobFacts,
    /// Who owns it from now on. Without one it is not kept.
    pub owner: Option<NewOwner>,
    /// What the upstreams did with it.
    pub results: Vec<ReplicaResult>,
    /// Who caused it.
    pub actor: String,
}

/// An owner to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOwner {
    /// The key.
    pub pubkey: [u8; 32],
    /// How it came to the blob.
    pub how: Ownership,
    /// The URL that a copy came from.
    pub origin: Option<String>,
    /// Bytes that the key may own, this blob included.
    pub bytes_max: Option<i64>,
    /// Blobs that the key may own, this one included.
    pub blobs_max: Option<i64>,
}

/// What happened to one copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaResult {
    /// URL of the upstream as it is configured, without a slash at its end.
    pub upstream: String,
    /// What happened.
    pub event: ReplicaEvent,
    /// The reason. Cut to the limit of the column; of a proof the word of the proof stands in its place.
    pub why: Option<String>,
}

/// A report about blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobReport {
    /// Id of the event.
    pub event_id: [u8; 32],
    /// Its author.
    pub reporter: [u8; 32],
    /// The blobs with the kind of report of each, such as `malware`; one entry for each blob.
    pub blobs: Vec<(Sha256, String)>,
    /// Its text. Cut to the limit of the column.
    pub content: String,
    /// The event as it was signed, JSON.
    pub event: String,
}

/// A reference of an event to a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedBlob {
    /// The blob.
    pub sha256: Sha256,
    /// The followed key.
    pub owner: [u8; 32],
    /// Id of the event.
    pub event_id: [u8; 32],
    /// The URL at which it is named, if there is one. A reference by one that is longer than
    /// [`super::event::URL_BYTES_MAX`] is not recorded.
    pub url: Option<String>,
}
