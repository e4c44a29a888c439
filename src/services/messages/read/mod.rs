//! Queries of the messages service.

mod clock;
mod queue;
mod tokens;
mod usage;

pub use clock::DatabaseClock;
pub use queue::{
    DeviceRecord, PageLimit, PageRequest, client_msg_id_exists, device, message_status, pages,
    recipients_with_more,
};
pub use tokens::{Token, token, tokens};
pub use usage::{InboxUsage, recipient_usage, sender_usage};
