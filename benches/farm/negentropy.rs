//! The relay's side of NIP-77.

use std::collections::HashMap;

use negentropy::{Id, Negentropy, NegentropyStorageVector};
use nostr_sdk::{ClientMessage, Filter, SubscriptionId};
use serde_json::{Value, json};

use super::relay::Relay;
use super::{Character, answer};

/// Largest message in bytes, before hex encoding; a usual value.
const MESSAGE_MAX: u64 = 60_000;

/// The protocol version in hex. As a complete message it states that both sides hold the same events.
const VERSION: &str = "61";

/// Time range of announced events, in Unix seconds: from 2020-09 to 2025-10.
const ANNOUNCED_SINCE: u64 = 1_600_000_000;
const ANNOUNCED_SPAN: u64 = 160_000_000;

/// The reconciliations of one session.
#[derive(Default)]
pub(super) struct Reconciliations(HashMap<SubscriptionId, Negentropy<'static, NegentropyStorageVector>>);

impl Reconciliations {
    /// Answers one message; `None` if it needs no answer.
    pub(super) fn hear(&mut self, relay: &Relay, message: ClientMessage<'_>) -> Option<Value> {
        match message {
            ClientMessage::NegOpen { subscription_id, .. } if relay.character() == Character::Agrees => {
                Some(json!(["NEG-MSG", subscription_id.as_str(), VERSION]))
            }
            ClientMessage::NegOpen { subscription_id, filter, initial_message, .. } => {
                self.0.insert(subscription_id.clone().into_owned(), held(relay, &filter));
                Some(self.next(&subscription_id, &initial_message))
            }
            ClientMessage::NegMsg { subscription_id, message } => Some(self.next(&subscription_id, &message)),
            ClientMessage::NegClose { subscription_id } => {
                self.0.remove(&*subscription_id);
                None
            }
            _ => Some(json!(["NOTICE", "ERROR: bad msg: unknown cmd"])),
        }
    }

    fn next(&mut self, id: &SubscriptionId, message: &str) -> Value {
        let Some(open) = self.0.get_mut(id) else {
            return json!(["NEG-ERR", id.as_str(), "closed: unknown reconciliation"]);
        };
        let said = hex::decode(message).ok().and_then(|message| open.reconcile(&message).ok());
        if let Some(answer) = said {
            return json!(["NEG-MSG", id.as_str(), hex::encode(answer)]);
        }
        self.0.remove(id);
        json!(["NEG-ERR", id.as_str(), "invalid: cannot be read"])
    }
}

fn held(relay: &Relay, filter: &Filter) -> Negentropy<'static, NegentropyStorageVector> {
    let mut items = NegentropyStorageVector::new();
    let mut insert =
        |second, id| items.insert(second, Id::from_byte_array(id)).expect("it is not sealed yet");
    for stored in answer::all(relay, filter) {
        insert(stored.event.created_at.as_secs(), stored.event.id.to_bytes());
    }
    if let Character::Announces(events) = relay.character() {
        announced(events)
            .filter(|(second, _)| is_asked_for(filter, *second))
            .for_each(|(second, id)| insert(second, id));
    }
    items.seal().expect("it is sealed once");
    Negentropy::owned(items, MESSAGE_MAX).expect("the size is above the least")
}

fn is_asked_for(filter: &Filter, second: u64) -> bool {
    filter.since.is_none_or(|since| since.as_secs() <= second)
        && filter.until.is_none_or(|until| second <= until.as_secs())
}

/// Times and ids of announced events that do not exist.
fn announced(events: usize) -> impl Iterator<Item = (u64, [u8; 32])> {
    let events = u64::try_from(events).expect("64 bits");
    (0..events).map(move |number| {
        let second = ANNOUNCED_SINCE + number * ANNOUNCED_SPAN / events;
        let mut id = [0x5a; 32];
        id[..8].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
        (second, id)
    })
}
