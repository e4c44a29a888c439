//! Commits commands to `message_log` and `message_tokens`, and notifies the sessions that wait for their
//! effects.

mod subscribers;
mod tokens;
mod working;

use std::collections::HashSet;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use tokio_postgres::types::Type;
use uuid::Uuid;

pub use subscribers::{Mailbox, PendingUpdates, Subscribers};
pub use tokens::{TokenAnswer, TokenJournal};
pub use working::{challenge_key, move_positions, register_device};

use super::command::{MessageCommand, NewMessage};
use super::event::{Accepted, Message};
use super::metrics::MessageMetrics;
use crate::store::append::{Client, Journal};
use crate::store::{Error, Hints};

/// Most weight in one transaction. A command weighs 1, and a message 1 more for each KiB of its payload.
const BATCH_WEIGHT_MAX: usize = 4_096;

/// The answer to a command, given after the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageAnswer {
    /// The message is on disk.
    Accepted(Accepted),
    /// The `client_msg_id` was used for another message, which stays unchanged.
    Mismatch,
    /// The acknowledgement is on disk.
    Acknowledged {
        /// The message's number.
        number: i64,
    },
    /// The recipient has no message with this id.
    Unknown,
    /// The answer to a recorded push, for which no caller waits.
    Noted,
}

/// The journal of messages. After each commit it notifies the sessions of this process, and sends hints to
/// other processes.
#[derive(Debug, Clone)]
pub struct MessageJournal {
    /// The registry of this process's sessions.
    pub subscribers: Subscribers,
    /// Hints for other processes.
    pub hints: Hints,
    /// Metrics of committed messages.
    pub metrics: MessageMetrics,
}

const APPEND: &str = "-- append_messages
    SELECT is_send, place, status, number, id, received_s, expires_s
    FROM quipu_append_messages($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)";

/// The arguments of `quipu_append_messages`, one array for each column, and the indexes of their commands.
#[derive(Default)]
struct Columns<'a> {
    sends: Vec<usize>,
    messages: Vec<&'a NewMessage>,
    acks: Vec<usize>,
    ack_ids: Vec<Uuid>,
    ack_recipients: Vec<&'a str>,
    ack_devices: Vec<&'a str>,
    ack_pushed_us: Vec<Option<i64>>,
    pushes: Vec<i64>,
    push_devices: Vec<&'a str>,
    push_us: Vec<i64>,
}

impl<'a> Columns<'a> {
    fn of(commands: &'a [MessageCommand]) -> Self {
        let mut columns = Self::default();
        for (index, command) in commands.iter().enumerate() {
            match command {
                MessageCommand::Send(message) => {
                    columns.sends.push(index);
                    columns.messages.push(message);
                }
                MessageCommand::Acknowledge { msg_id, recipient, device, pushed_us } => {
                    columns.acks.push(index);
                    columns.ack_ids.push(*msg_id);
                    columns.ack_recipients.push(recipient);
                    columns.ack_devices.push(device);
                    columns.ack_pushed_us.push(*pushed_us);
                }
                MessageCommand::Push { message, device, pushed_us, .. } => {
                    columns.pushes.push(*message);
                    columns.push_devices.push(device);
                    columns.push_us.push(*pushed_us);
                }
            }
        }
        columns
    }

    async fn send(&self, client: &Client) -> Result<Vec<tokio_postgres::Row>, Error> {
        let m = &self.messages;
        let ids: Vec<Uuid> = m.iter().map(|m| m.msg_id).collect();
        let senders: Vec<&str> = m.iter().map(|m| m.sender.as_str()).collect();
        let recipients: Vec<&str> = m.iter().map(|m| m.recipient.as_str()).collect();
        let client_ids: Vec<Option<&str>> = m.iter().map(|m| m.client_msg_id.as_deref()).collect();
        let ttls: Vec<i64> = m.iter().map(|m| m.ttl_s).collect();
        let effective_ttls: Vec<i64> = m.iter().map(|m| m.effective_ttl_s).collect();
        let hashes: Vec<&[u8]> = m.iter().map(|m| m.payload_sha256.as_slice()).collect();
        let sizes: Vec<i32> = m.iter().map(|m| m.payload_bytes).collect();
        let generations: Vec<i16> = m.iter().map(|m| m.generation.number()).collect();
        let payloads: Vec<&str> = m.iter().map(|m| m.payload.as_str()).collect();
        Ok(client
            .query_typed(
                APPEND,
                &[
                    (&ids, Type::UUID_ARRAY),
                    (&senders, Type::TEXT_ARRAY),
                    (&recipients, Type::TEXT_ARRAY),
                    (&client_ids, Type::TEXT_ARRAY),
                    (&ttls, Type::INT8_ARRAY),
                    (&effective_ttls, Type::INT8_ARRAY),
                    (&hashes, Type::BYTEA_ARRAY),
                    (&sizes, Type::INT4_ARRAY),
                    (&generations, Type::INT2_ARRAY),
                    (&payloads, Type::TEXT_ARRAY),
                    (&self.ack_ids, Type::UUID_ARRAY),
                    (&self.ack_recipients, Type::TEXT_ARRAY),
                    (&self.ack_devices, Type::TEXT_ARRAY),
                    (&self.ack_pushed_us, Type::INT8_ARRAY),
                    (&self.pushes, Type::INT8_ARRAY),
                    (&self.push_devices, Type::TEXT_ARRAY),
                    (&self.push_us, Type::INT8_ARRAY),
                ],
            )
            .await?)
    }
}

impl MessageJournal {
    /// Notifies waiting sessions, here and in other processes, of committed commands.
    fn notify(&self, commands: &[MessageCommand], answers: &[MessageAnswer]) {
        let mut recipients: HashSet<&str> = HashSet::new();
        for (command, answer) in commands.iter().zip(answers) {
            match (command, answer) {
                (MessageCommand::Send(new), MessageAnswer::Accepted(accepted)) if !accepted.is_repeated => {
                    self.metrics.persisted();
                    recipients.insert(&new.recipient);
                    if self.subscribers.has_subscriber(&new.recipient) {
                        self.subscribers.publish(&Arc::new(message(new, accepted)));
                    }
                }
                (
                    MessageCommand::Acknowledge { recipient, device, .. },
                    MessageAnswer::Acknowledged { number },
                ) => {
                    self.subscribers.acknowledge(recipient, device, *number);
                }
                _ => {}
            }
        }
        self.hints.announce(recipients.into_iter().map(|recipient| self.subscribers.hash(recipient)));
    }
}

fn message(new: &NewMessage, accepted: &Accepted) -> Message {
    Message {
        number: accepted.number,
        msg_id: accepted.msg_id,
        sender: new.sender.clone(),
        recipient: new.recipient.as_str().into(),
        received_at: accepted.received_at,
        expires_at: accepted.expires_at,
        generation: new.generation,
        payload: new.payload.clone(),
    }
}

impl Journal for MessageJournal {
    type Command = MessageCommand;
    type Answer = MessageAnswer;
    const NAME: &'static str = "message_log";
    const QUEUE_MAX: usize = 4_096;
    const WAKES_LOOPS: bool = false;

    fn batch_weight_max(&self) -> usize {
        BATCH_WEIGHT_MAX
    }

    fn weight(command: &MessageCommand) -> usize {
        match command {
            MessageCommand::Send(message) => 1 + message.payload.len() / 1_024,
            MessageCommand::Acknowledge { .. } | MessageCommand::Push { .. } => 1,
        }
    }

    /// All commands of one recipient are committed in the order in which they arrived.
    fn shard(command: &MessageCommand) -> Option<usize> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(command.recipient());
        Some(usize::from(!hash.is_multiple_of(2)))
    }

    async fn append(
        &self,
        client: &mut Client,
        _batch: Uuid,
        commands: &[MessageCommand],
    ) -> Result<Vec<MessageAnswer>, Error> {
        let columns = Columns::of(commands);
        let rows = columns.send(client).await?;
        let mut answers = vec![MessageAnswer::Noted; commands.len()];
        for row in rows {
            let (is_send, index, status): (bool, i32, &str) = (row.get(0), row.get(1), row.get(2));
            let indexes = if is_send { &columns.sends } else { &columns.acks };
            let answer = match status {
                "accepted" | "repeated" => MessageAnswer::Accepted(Accepted {
                    number: row.get(3),
                    msg_id: row.get(4),
                    received_at: row.get(5),
                    expires_at: row.get(6),
                    is_repeated: status == "repeated",
                }),
                "mismatch" => MessageAnswer::Mismatch,
                "acknowledged" => MessageAnswer::Acknowledged { number: row.get(3) },
                "unknown" => MessageAnswer::Unknown,
                other => {
                    let problem = format!("quipu_append_messages returned the unknown status {other}");
                    return Err(Error::inconsistent("message_log", problem));
                }
            };
            let index = usize::try_from(index).ok().and_then(|index| indexes.get(index));
            if let Some(slot) = index.and_then(|index| answers.get_mut(*index)) {
                *slot = answer;
            }
        }
        self.notify(commands, &answers);
        Ok(answers)
    }

    /// Always `None`, so the batch is sent again: each message has its id before it is sent and
    /// acknowledgements are unique, so a repeated batch changes nothing and gets the same answers.
    async fn lookup(
        &self,
        _client: &Client,
        _batch: Uuid,
        _commands: &[MessageCommand],
    ) -> Result<Option<Vec<MessageAnswer>>, Error> {
        Ok(None)
    }
}
