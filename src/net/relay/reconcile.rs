//! Set reconciliation (NIP-77): who has what the other lacks, without sending what both have.

use std::borrow::Cow;

use negentropy::{Id, Negentropy, NegentropyStorageBase as _, NegentropyStorageVector};
use nostr_sdk::{ClientMessage, Filter, SubscriptionId};
use tokio::time::Instant;

use super::frame::Frame;
use super::{RelayError, RelaySession};
use crate::net::error::words;

/// Most bytes of one message of ours, in hex twice that: the figure that nostr-sdk and the relays built with it use.
const MESSAGE_BYTES_MAX: u64 = 60_000;

/// Most ids that a relay may announce in one reconciliation, about 1 MB in memory. A stretch of time with more of them is to be split.
pub const ANNOUNCED_IDS_MAX: usize = 20_000;

/// Most questions of one reconciliation. Each settles at least one range, and ours are sixteenths.
const ROUNDS_MAX: u32 = 10_000;

/// What two sides do not have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Ids that only we have.
    pub have: Vec<[u8; 32]>,
    /// Ids that only the relay has.
    pub need: Vec<[u8; 32]>,
    /// Questions it took.
    pub rounds: u32,
}

impl RelaySession {
    /// Compares our `items` (all we hold of what `filter` asks for) with what the relay holds.
    ///
    /// # Errors
    /// [`RelayError::NegUnsupported`], [`RelayError::NegRefused`]; the session can go on, and pages tell the same. With
    /// [`RelayError::Flooded`] and [`RelayError::Slow`] a shorter stretch of time may work, in a new session.
    pub async fn reconcile(
        &mut self,
        filter: &Filter,
        mut items: NegentropyStorageVector,
    ) -> Result<Difference, RelayError> {
        // It may be sealed already, which changes nothing.
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
        // A relay that does not know the word would only complain of it.
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
        let until = Instant::now() + self.answer_max;
        let (mut have, mut need) = (Vec::new(), Vec::new());
        for round in 1..=ROUNDS_MAX {
            let theirs = self.read_answer(id, round == 1, until).await?;
            let next = ours
                .reconcile_with_ids(&theirs, &mut have, &mut need)
                .map_err(|e| malformed(round == 1, &e.to_string()))?;
            // A relay may name the same id of ours again in every round.
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

    /// The relay's next message. Before the first one, silence, CLOSED or a complaint mean that it does not know NIP-77.
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
                Ok(None) => return Err(RelayError::Slow(self.answer_max)),
                Err(error) => return Err(error),
            };
            match self.filed(&text)? {
                Some(Frame::NegMsg { of, message }) if of == id.as_str() => {
                    self.wanted();
                    return hex::decode(message.as_bytes()).map_err(|e| malformed(is_first, &e.to_string()));
                }
                Some(Frame::NegErr { of, reason }) if of == id.as_str() => {
                    self.wanted();
                    return Err(RelayError::NegRefused(words(&reason)));
                }
                Some(Frame::Closed { of, .. }) if of == id.as_str() => {
                    self.wanted();
                    return Err(RelayError::NegUnsupported);
                }
                Some(Frame::Notice { message }) if is_first && is_about_the_word(&message) => {
                    self.wanted();
                    return Err(RelayError::NegUnsupported);
                }
                _ => {}
            }
        }
    }
}

/// Whether a NOTICE says that NEG-OPEN is not known here.
fn is_about_the_word(notice: &str) -> bool {
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

/// An answer that is none: from the start it is another protocol (a byte tells which version a relay speaks, N-77.2), later
/// a fault.
fn malformed(is_first: bool, why: &str) -> RelayError {
    if is_first {
        RelayError::NegUnsupported
    } else {
        RelayError::NegRefused(words(&format!("malformed: {why}")))
    }
}

fn bytes(ids: Vec<Id>) -> Vec<[u8; 32]> {
    ids.into_iter().map(|id| *id).collect()
}

#[cfg(test)]
mod tests {
    use super::is_about_the_word;

    #[test]
    fn n_77_notices_of_relays_that_do_not_know_it() {
        for notice in [
            "ERROR: bad msg: negentropy disabled",
            "invalid: unknown command NEG-OPEN",
            "could not parse command",
            "unrecognised message type",
        ] {
            assert!(is_about_the_word(notice), "{notice}");
        }
        for notice in ["rate-limited: slow down", "welcome to this relay"] {
            assert!(!is_about_the_word(notice), "{notice}");
        }
    }
}
