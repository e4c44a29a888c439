//! Shards the commands for `message_log` over two writers: while the batch of one is being written to disk,
//! PostgreSQL executes the batch of the other.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

use super::{MessageAnswer, MessageJournal};
use crate::services::messages::command::MessageCommand;
use crate::store::Error;
use crate::store::append::Writer;

/// Number of shards. More would only wait for each other, since all of them wait for the same disk.
pub const SHARDS: usize = 2;

/// Sends each command to the writer of its recipient's shard. All commands of one recipient use the same
/// writer, so they are committed in the order in which they arrived.
#[derive(Debug, Clone)]
pub struct Shards([Writer<MessageJournal>; SHARDS]);

impl Shards {
    /// Creates one shard for each writer.
    #[must_use]
    pub fn new(writers: [Writer<MessageJournal>; SHARDS]) -> Self {
        Self(writers)
    }

    /// Queues a command and waits until it is committed.
    ///
    /// # Errors
    /// As [`Writer::append`].
    pub async fn append(&self, command: MessageCommand) -> Result<MessageAnswer, Error> {
        self.writer_for(&command).append(command).await
    }

    /// Queues a command without waiting for its commit.
    ///
    /// # Errors
    /// As [`Writer::post`].
    pub async fn post(&self, command: MessageCommand) -> Result<(), Error> {
        self.writer_for(&command).post(command).await
    }

    fn writer_for(&self, command: &MessageCommand) -> &Writer<MessageJournal> {
        let [first, second] = &self.0;
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(command.recipient());
        if hash.is_multiple_of(2) { first } else { second }
    }
}
