//! Two writers of one journal: while the batch of one is on its way to disk, that of the other is carried out.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

use super::{MessageAnswer, MessageJournal};
use crate::services::messages::command::MessageCommand;
use crate::store::Error;
use crate::store::append::Writer;

/// How many. More would only wait for each other: what they wait for is one disk.
pub const LANES: usize = 2;

/// The way in for messages. Everything about one recipient takes one lane, so that it is committed in the order in which it came.
#[derive(Debug, Clone)]
pub struct Lanes([Writer<MessageJournal>; LANES]);

impl Lanes {
    /// Lanes of these writers.
    #[must_use]
    pub fn new(writers: [Writer<MessageJournal>; LANES]) -> Self {
        Self(writers)
    }

    /// As [`Writer::append`].
    ///
    /// # Errors
    /// As [`Writer::append`].
    pub async fn append(&self, command: MessageCommand) -> Result<MessageAnswer, Error> {
        self.of(&command).append(command).await
    }

    /// As [`Writer::post`].
    ///
    /// # Errors
    /// As [`Writer::post`].
    pub async fn post(&self, command: MessageCommand) -> Result<(), Error> {
        self.of(&command).post(command).await
    }

    fn of(&self, command: &MessageCommand) -> &Writer<MessageJournal> {
        let [first, second] = &self.0;
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(command.recipient());
        if hash.is_multiple_of(2) { first } else { second }
    }
}
