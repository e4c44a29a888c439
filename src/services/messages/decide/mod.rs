//! The rules of messages.

mod life;
mod outbox;
mod quota;

pub use life::{TTL_S_DEFAULT, life_of};
pub use outbox::Outbox;
pub use quota::{Quota, Used, over_quota};
