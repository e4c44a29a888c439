//! A blob that can be served.

use axum::http::HeaderValue;

use crate::base::Sha256;
use crate::services::blossom::event::{BlobFacts, KnownBlob, ReplicaState};

/// Type of a blob whose type cannot stand in a header.
const TYPE_DEFAULT: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// A blob, and the upstreams that have it.
#[derive(Debug, Clone)]
pub(super) struct Servable {
    pub(super) sha256: Sha256,
    /// Bytes; of a blob that was never seen here `None` if no upstream states it.
    pub(super) size: Option<u64>,
    pub(super) content_type: HeaderValue,
    pub(super) etag: HeaderValue,
    /// Names of the upstreams whose copies are known to be readable.
    pub(super) holders: Vec<String>,
    /// Names of the upstreams that may have a copy.
    pub(super) doubtful: Vec<String>,
    /// Whether the journal has its copies.
    pub(super) is_recorded: bool,
}

impl Servable {
    /// A blob that the journal does not know.
    pub(super) fn new(sha256: Sha256, size: Option<u64>, media_type: &str, holders: Vec<String>) -> Self {
        let etag = HeaderValue::from_str(&format!("\"{sha256}\""));
        Self {
            sha256,
            size,
            content_type: HeaderValue::from_str(media_type).unwrap_or(TYPE_DEFAULT),
            etag: etag.expect("digits in quotes are a header value"),
            holders,
            doubtful: Vec::new(),
            is_recorded: false,
        }
    }

    /// A blob that the journal knows.
    pub(super) fn of(known: KnownBlob) -> Self {
        let KnownBlob { facts: BlobFacts { sha256, size, media_type }, replicas, .. } = known;
        let with = |is_wanted: fn(ReplicaState) -> bool| -> Vec<String> {
            let wanted = replicas.iter().filter(|replica| is_wanted(replica.state));
            wanted.map(|replica| replica.upstream.clone()).collect()
        };
        let holders = with(|state| state == ReplicaState::Readable);
        let doubtful = with(|state| !matches!(state, ReplicaState::Readable | ReplicaState::Deleted));
        Self { doubtful, is_recorded: true, ..Self::new(sha256, Some(size), &media_type, holders) }
    }
}
