//! What the room asks the database.

mod clock;
mod queue;
mod tokens;
mod used;

pub use clock::DatabaseClock;
pub use queue::{Asked, Most, Shown, is_known, life, pages, shown, with_more};
pub use tokens::{Token, token, tokens};
pub use used::{Waiting, used_by_recipient, used_by_sender};
