//! Divides the commands of one journal over several writers: while the batch of one is being written to disk,
//! PostgreSQL executes the batch of another.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Error;
use super::append::{Journal, Writer};

/// Number of writers of a journal with shards. More would only wait for each other, since all of them wait for the
/// same disk.
pub const SHARDS: usize = 2;

/// The writers of one journal. Each command goes to the writer that [`Journal::shard`] names. Clones share them.
pub struct Shards<J: Journal> {
    writers: Arc<[Writer<J>; SHARDS]>,
    /// Number of commands so far that any writer may take.
    turn: Arc<AtomicUsize>,
}

impl<J: Journal> Shards<J> {
    /// One shard for each writer.
    #[must_use]
    pub fn new(writers: [Writer<J>; SHARDS]) -> Self {
        Self { writers: Arc::new(writers), turn: Arc::default() }
    }

    /// Queues a command and waits until it is committed.
    ///
    /// # Errors
    /// As [`Writer::append`].
    pub async fn append(&self, command: J::Command) -> Result<J::Answer, Error> {
        self.writer_for(&command).append(command).await
    }

    /// Queues a command without waiting for its commit.
    ///
    /// # Errors
    /// As [`Writer::post`].
    pub async fn post(&self, command: J::Command) -> Result<(), Error> {
        self.writer_for(&command).post(command).await
    }

    fn writer_for(&self, command: &J::Command) -> &Writer<J> {
        let shard = J::shard(command).unwrap_or_else(|| self.turn.fetch_add(1, Ordering::Relaxed));
        &self.writers[shard % SHARDS]
    }
}

impl<J: Journal> Clone for Shards<J> {
    fn clone(&self) -> Self {
        Self { writers: Arc::clone(&self.writers), turn: Arc::clone(&self.turn) }
    }
}

impl<J: Journal> fmt::Debug for Shards<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shards({})", J::NAME)
    }
}
