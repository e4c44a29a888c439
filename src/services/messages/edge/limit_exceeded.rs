//! The limits of clients, as a refusal names them.

/// A limit that one more request would exceed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LimitExceeded {
    /// Too many requests in a unit of time.
    Rate {
        /// The field that the refusal names.
        field: &'static str,
        /// The kind of requests counted, for people.
        counted: &'static str,
        /// The unit of time.
        per: &'static str,
        /// How many are allowed.
        limit: u32,
    },
    /// The sender's quota for 24 hours.
    Sent {
        /// `messages` or `bytes`.
        unit: &'static str,
        /// The limit.
        limit: u64,
        /// The usage before this message.
        used: u64,
    },
    /// The sender's share of the recipient's inbox.
    Share {
        /// `messages` or `bytes`.
        unit: &'static str,
        /// The limit.
        limit: u64,
        /// Messages or bytes of this sender that wait.
        used: u64,
    },
    /// The recipient's inbox is full.
    Inbox,
}
