//! Decides whether one more message of a sender or a recipient exceeds a quota.

/// Limits of a quota; 0 means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// Messages.
    pub messages: u64,
    /// Bytes of decoded payloads.
    pub bytes: u64,
}

/// The part of a quota that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Messages.
    pub messages: u64,
    /// Bytes of decoded payloads.
    pub bytes: u64,
}

/// Returns the limit that one more message of `bytes` would exceed: its unit, the limit, and the amount in
/// use.
#[must_use]
pub fn exceeded_bound(quota: Quota, used: Usage, bytes: u64) -> Option<(&'static str, u64, u64)> {
    if quota.messages > 0 && used.messages >= quota.messages {
        return Some(("messages", quota.messages, used.messages));
    }
    let is_exceeded = quota.bytes > 0 && used.bytes.saturating_add(bytes) > quota.bytes;
    is_exceeded.then_some(("bytes", quota.bytes, used.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_message_that_fits_is_accepted_and_the_next_names_the_exceeded_limit() {
        let quota = Quota { messages: 3, bytes: 100 };
        assert_eq!(exceeded_bound(quota, Usage { messages: 2, bytes: 90 }, 10), None);
        assert_eq!(exceeded_bound(quota, Usage { messages: 2, bytes: 91 }, 10), Some(("bytes", 100, 91)));
        assert_eq!(exceeded_bound(quota, Usage { messages: 3, bytes: 0 }, 1), Some(("messages", 3, 3)));
        assert_eq!(exceeded_bound(Quota::default(), Usage { messages: u64::MAX, bytes: u64::MAX }, 1), None);
    }
}
