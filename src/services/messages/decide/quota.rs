//! How much one sender and one recipient may use.

/// Bounds; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// Messages.
    pub messages: u64,
    /// Bytes of decoded payloads.
    pub bytes: u64,
}

/// What is used of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Messages.
    pub messages: u64,
    /// Bytes of decoded payloads.
    pub bytes: u64,
}

/// The bound that one more message of `bytes` would pass: its unit, the limit, and what is used already.
#[must_use]
pub fn exceeded_bound(quota: Quota, used: Usage, bytes: u64) -> Option<(&'static str, u64, u64)> {
    if quota.messages > 0 && used.messages >= quota.messages {
        return Some(("messages", quota.messages, used.messages));
    }
    let is_over = quota.bytes > 0 && used.bytes.saturating_add(bytes) > quota.bytes;
    is_over.then_some(("bytes", quota.bytes, used.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_that_fits_is_taken_and_the_next_is_told_which_bound_it_is() {
        let quota = Quota { messages: 3, bytes: 100 };
        assert_eq!(exceeded_bound(quota, Usage { messages: 2, bytes: 90 }, 10), None);
        assert_eq!(exceeded_bound(quota, Usage { messages: 2, bytes: 91 }, 10), Some(("bytes", 100, 91)));
        assert_eq!(exceeded_bound(quota, Usage { messages: 3, bytes: 0 }, 1), Some(("messages", 3, 3)));
        assert_eq!(exceeded_bound(Quota::default(), Usage { messages: u64::MAX, bytes: u64::MAX }, 1), None);
    }
}
