//! Set reconciliation (NIP-77): finds the events that only one side has, without transferring the events that
//! both have.

use std::borrow::Cow;

use negentropy::{Id, Negentropy, NegentropyStorageBase as _, NegentropyStorageVector};
use nostr_sdk::{ClientMessage, Filter, SubscriptionId};
use tokio::time::Instant;

use super::frame::Frame;
use super::{RelayError, RelaySession};
use crate::net::remote_text::sanitize;

/// Longest message that we send, in bytes; hex encoding doubles it. nostr-sdk and the relays built with it
/// use the same figure.
const MESSAGE_BYTES_MAX: u64 = 60_000;

/// Ids that a relay may announce in one reconciliation, about 1 MB in memory. A time range with more ids must
/// be split.
pub const ANNOUNCED_IDS_MAX: usize = 20_000;

/// Rounds of one reconciliation. Each round settles at least one range, and we split ranges into sixteen
/// parts.
const ROUNDS_MAX: u32 = 10_000;

/// The ids that only one side has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Ids that only we have.
    pub have: Vec<[u8; 32]>,
    /// Ids that only the relay has.
    pub need: Vec<[u8; 32]>,
    /// Rounds that the reconciliation took.
    pub rounds: u32,
}

impl RelaySession {
    /// Compares our `items` (all ids that we hold for `filter`) with the relay's.
    ///
    /// # Errors
    /// [`RelayError::NegUnsupported`], [`RelayError::NegRefused`]: the session can continue, and pages give
    /// the same result. After [`RelayError::Flooded`] or [`RelayError::Slow`] a shorter time range in a new
    /// session may succeed.
    pub async fn reconcile(
        &mut self,
        filter: &Filter,
        mut items: NegentropyStorageVector,
    ) -> Result<Difference, RelayError> {
        // Fails if the items are already sealed, which is harmless.
        let _ = items.seal();
        let held = items.size().unwrap_or_default();
        let mut ours = Negentropy::owned(items, MESSAGE_BYTES_MAX).map_err(|_| RelayError::NegUnsupported)?;
        let first = ours.initiate().map_err(|_| RelayError::NegUnsupported)?;
        let id = SubscriptionId::new(format!("neg{}", self.next_number()));
        self.send(&ClientMessage::NegOpen {
            subscription_id: Cow::Borrowed(&id),
            filter: Cow::Borrowed(filter),
            id_size: None,
            initial_message: Cow::Owned(hex::encode(first)),
        })
        .await?;
        let difference = self.compare(&id, &mut ours, held).await;
        // A relay that does not know NEG-OPEN would only answer NEG-CLOSE with an error.
        if !matches!(difference, Err(RelayError::NegUnsupported | RelayError::NegRefused(_))) {
            self.send(&ClientMessage::NegClose { subscription_id: Cow::Owned(id) }).await?;
        }
        difference
    }

    async fn compare(
        &mut self,
        id: &SubscriptionId,
        ours: &mut Negentropy<'_, NegentropyStorageVector>,
        held: usize,
    ) -> Result<Difference, RelayError> {
        let until = Instant::now() + self.answer_timeout;
        let (mut have, mut need) = (Vec::new(), Vec::new());
        for round in 1..=ROUNDS_MAX {
            let theirs = self.read_answer(id, round == 1, until).await?;
            let next = ours
                .reconcile_with_ids(&theirs, &mut have, &mut need)
                .map_err(|e| malformed(round == 1, &e.to_string()))?;
            // Bounded by `held` too: a relay could name the same ids again in every round.
            if need.len() > ANNOUNCED_IDS_MAX || have.len() > held {
                return Err(RelayError::Flooded);
            }
            let Some(next) = next else {
                return Ok(Difference { have: bytes(have), need: bytes(need), rounds: round });
            };
            self.send(&ClientMessage::NegMsg {
                subscription_id: Cow::Borrowed(id),
                message: Cow::Owned(hex::encode(next)),
            })
            .await?;
        }
        Err(RelayError::Flooded)
    }

    /// Reads the relay's next message. In the first round, no message, CLOSED, or a NOTICE about an unknown
    /// command means that the relay does not support NIP-77.
    async fn read_answer(
        &mut self,
        id: &SubscriptionId,
        is_first: bool,
        until: Instant,
    ) -> Result<Vec<u8>, RelayError> {
        loop {
            let text = match self.next_text(until).await {
                Ok(Some(text)) => text,
                Ok(None) | Err(RelayError::Silent(_)) if is_first => return Err(RelayError::NegUnsupported),
                Ok(None) => return Err(RelayError::Slow(self.answer_timeout)),
                Err(error) => return Err(error),
            };
            match self.handle_session_frame(&text)? {
                Some(Frame::NegMsg { subscription, message }) if subscription == id.as_str() => {
                    self.reset_unrequested();
                    return hex::decode(message.as_bytes()).map_err(|e| malformed(is_first, &e.to_string()));
                }
                Some(Frame::NegErr { subscription, reason }) if subscription == id.as_str() => {
                    self.reset_unrequested();
                    return Err(RelayError::NegRefused(sanitize(&reason)));
                }
                Some(Frame::Closed { subscription, .. }) if subscription == id.as_str() => {
                    self.reset_unrequested();
                    return Err(RelayError::NegUnsupported);
                }
                Some(Frame::Notice { message }) if is_first && means_neg_open_is_unknown(&message) => {
                    self.reset_unrequested();
                    return Err(RelayError::NegUnsupported);
                }
                _ => {}
            }
        }
    }
}

/// Whether a NOTICE means that the relay does not know NEG-OPEN.
fn means_neg_open_is_unknown(notice: &str) -> bool {
    const SIGNS: [&str; 11] = [
        "neg",
        "unknown",
        "unsupported",
        "not supported",
        "unrecogni",
        "not implemented",
        "invalid",
        "bad msg",
        "parse",
        "command",
        "malformed",
    ];
    let notice = notice.to_lowercase();
    SIGNS.iter().any(|sign| notice.contains(sign))
}

/// A message that cannot be decoded. In the first round it is another protocol version (the first byte is the
/// version, N-77.2); later it is a fault of the relay.
fn malformed(is_first: bool, why: &str) -> RelayError {
    if is_first {
        RelayError::NegUnsupported
    } else {
        RelayError::NegRefused(sanitize(&format!("malformed: {why}")))
    }
}

fn bytes(ids: Vec<Id>) -> Vec<[u8; 32]> {
    ids.into_iter().map(|id| *id).collect()
}

#[cfg(test)]
mod tests {
    use super::means_neg_open_is_unknown;

    #[test]
    fn n_77_notices_of_relays_that_do_not_know_it() {
        for notice in [
            "ERROR: bad msg: negentropy disabled",
            "invalid: unknown command NEG-OPEN",
            "could not parse command",
            "unrecognised message type",
        ] {
            assert!(means_neg_open_is_unknown(notice), "{notice}");
        }
        for notice in ["rate-limited: slow down", "welcome to this relay"] {
            assert!(!means_neg_open_is_unknown(notice), "{notice}");
        }
    }
}
