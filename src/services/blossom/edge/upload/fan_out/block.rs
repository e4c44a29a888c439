//! A block of a body, which holds its place in the window of the upload as long as it exists.

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::bytes::Bytes;

/// Bytes of a full block. Connections read up to 64 KiB at a time; fewer and larger pieces wake the upstreams less often.
pub(super) const BLOCK_BYTES: usize = 128 * 1024;

/// A block. As [`Bytes`] it is shared by all upstreams, and its place is given back when the last of them drops it.
#[derive(Debug)]
pub(super) struct Block {
    content: Vec<u8>,
    _place: OwnedSemaphorePermit,
}

impl Block {
    pub(super) fn new(place: OwnedSemaphorePermit) -> Self {
        Self { content: Vec::with_capacity(BLOCK_BYTES), _place: place }
    }

    /// Copies as much of `part` as there is room for, and returns the rest.
    pub(super) fn fill<'a>(&mut self, part: &'a [u8]) -> &'a [u8] {
        let (taken, rest) = part.split_at(part.len().min(BLOCK_BYTES - self.content.len()));
        self.content.extend_from_slice(taken);
        rest
    }

    pub(super) fn is_full(&self) -> bool {
        self.content.len() == BLOCK_BYTES
    }

    pub(super) fn content(&self) -> &[u8] {
        &self.content
    }

    pub(super) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.content
    }
}
