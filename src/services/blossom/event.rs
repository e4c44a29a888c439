//! What the journals of blobs record, and the results of their queries.

use chrono::{DateTime, Utc};

use crate::base::{Sha256, words};

/// The owner of blobs that were uploaded without a token (`services.blossom.compat_unauthenticated`), so that they are
/// kept as well. No key has this value, so no token can delete them.
pub const ANONYMOUS: [u8; 32] = [0; 32];

/// Longest URL of an upstream in rows, bytes.
pub const UPSTREAM_BYTES_MAX: usize = 512;

/// Longest reason in rows, bytes.
pub const WHY_BYTES_MAX: usize = 500;

/// Longest media type in rows, bytes.
pub const MEDIA_TYPE_BYTES_MAX: usize = 255;

/// Longest URL in rows that names a blob, bytes.
pub const URL_BYTES_MAX: usize = 2_048;

/// Longest text of a report in rows, bytes.
pub const REPORT_BYTES_MAX: usize = 4_096;

words! {
    /// What is known of one copy of a blob.
    ReplicaState {
        /// The upstream took it and was not read back since.
        Accepted = "accepted",
        /// It was read back.
        Readable = "readable",
        /// The upstream refused or broke while taking it, and has no other copy.
        Failed = "failed",
        /// It was there and is not any more, or has other bytes.
        Lost = "lost",
        /// The upstream confirmed that it deleted it.
        Deleted = "deleted",
    }
}

words! {
    /// How a copy was proven.
    Proof {
        /// The upstream answers HEAD with the right size.
        Head = "head",
        /// All bytes were read and have the right hash.
        Hash = "hash",
    }
}

/// What happened to one copy of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReplicaEvent {
    /// The upstream answered an upload or a mirror request with success.
    Accepted,
    /// It was read back for the first time since then.
    Readable,
    /// It was read back again. Its word of reason is that of the proof.
    Proven(Proof),
    /// The upstream refused or broke while taking it.
    Failed,
    /// It was there and is not any more, or has other bytes.
    Lost,
    /// The upstream confirmed the deletion, or has no copy.
    Deleted,
    /// The upstream refused the deletion.
    NotDeleted,
}

impl ReplicaEvent {
    /// The word in `blob_log.kind`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Readable => "readable",
            Self::Proven(_) => "proven",
            Self::Failed => "failed",
            Self::Lost => "lost",
            Self::Deleted => "deleted",
            Self::NotDeleted => "not_deleted",
        }
    }
}

words! {
    /// How a key came to own a blob.
    Ownership {
        /// It uploaded the bytes.
        Uploaded = "uploaded",
        /// It asked for a copy from a URL.
        Mirrored = "mirrored",
        /// An event of a followed key refers to it.
        Adopted = "adopted",
    }
}

/// A blob whose bytes were seen and hashed here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobFacts {
    /// Its hash.
    pub sha256: Sha256,
    /// Its size, bytes.
    pub size: u64,
    /// Its media type in lower case, at most [`MEDIA_TYPE_BYTES_MAX`] bytes.
    pub media_type: String,
}

/// The present state of one copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// URL of the upstream as it is configured, without a slash at its end.
    pub upstream: String,
    /// Its state.
    pub state: ReplicaState,
    /// Since when, by the database's clock.
    pub since: DateTime<Utc>,
    /// The reason that was recorded with this state.
    pub why: Option<String>,
}

/// A blob in the list of an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedBlob {
    /// The blob.
    pub facts: BlobFacts,
    /// When this owner stored it, Unix seconds.
    pub uploaded: i64,
    /// Upstreams with a readable or accepted copy, readable ones first.
    pub upstreams: Vec<String>,
}

/// What is known of a blob, and whether it is banned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LookUp {
    /// The blob, if its bytes were seen here.
    pub blob: Option<KnownBlob>,
    /// The ban in force.
    pub ban: Option<Ban>,
}

/// Everything that a request for one blob is decided by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownBlob {
    /// The blob.
    pub facts: BlobFacts,
    /// Its copies, readable ones first, then accepted ones.
    pub replicas: Vec<Replica>,
    /// How many keys own it; 0: it is not kept.
    pub owners: u64,
    /// When it was first seen here, Unix seconds.
    pub uploaded: i64,
}

/// A ban in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// The banned blob.
    pub sha256: Sha256,
    /// The reason.
    pub why: String,
    /// Since when.
    pub since: DateTime<Utc>,
}

/// What one key stores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Number of blobs.
    pub blobs: u64,
    /// Their sizes, bytes.
    pub bytes: u64,
}

/// A copy that waits for a proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unverified {
    /// The blob.
    pub facts: BlobFacts,
    /// The upstream that accepted it.
    pub upstream: String,
    /// When.
    pub since: DateTime<Utc>,
}

/// A kept blob with fewer copies than wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnderReplicated {
    /// The blob.
    pub facts: BlobFacts,
    /// All its copies, whatever their state.
    pub replicas: Vec<Replica>,
    /// Number of owners.
    pub owners: u64,
    /// Events of followed keys that refer to it.
    pub references: u64,
}

/// A readable copy in the sweep that proves old ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweptReplica {
    /// The blob.
    pub facts: BlobFacts,
    /// The upstream.
    pub upstream: String,
}

/// Numbers of copies of one upstream by state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTotals {
    /// The upstream.
    pub upstream: String,
    /// The state.
    pub state: ReplicaState,
    /// Number of copies.
    pub replicas: u64,
    /// Sizes of the blobs, bytes.
    pub bytes: u64,
}

/// Numbers of blobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlobTotals {
    /// Blobs with an owner.
    pub kept: u64,
    /// Their sizes, bytes.
    pub kept_bytes: u64,
    /// Kept blobs with fewer readable or accepted copies than wanted.
    pub under_replicated: u64,
    /// Kept blobs without any readable or accepted copy.
    pub unavailable: u64,
    /// Copies that wait for a proof.
    pub unverified: u64,
    /// Bans in force.
    pub banned: u64,
    /// Keys that own a blob.
    pub owners: u64,
}

/// A blob that an event of a followed key refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The blob.
    pub sha256: Sha256,
    /// The followed key.
    pub owner: [u8; 32],
    /// URLs at which events name it; empty if they name the hash alone.
    pub urls: Vec<String>,
}

/// A blob that was followed and not found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missed {
    /// The blob.
    pub sha256: Sha256,
    /// The last place it was looked for, and why it is not there.
    pub why: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// An entry of the history of one blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Place in the order of all journals.
    pub position: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// What happened, as in `blob_log.kind`.
    pub kind: String,
    /// The upstream, of an entry about a copy.
    pub upstream: Option<String>,
    /// The key in hexadecimal digits, of an entry about an owner.
    pub owner: Option<String>,
    /// Who caused it.
    pub actor: String,
    /// The reason.
    pub why: Option<String>,
}
