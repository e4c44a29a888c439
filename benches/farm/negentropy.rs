//! NIP-77, the relay's side.

use std::collections::HashMap;

use negentropy::{Id, Negentropy, NegentropyStorageVector};
use nostr_sdk::{ClientMessage, Filter, SubscriptionId};
use serde_json::{Value, json};

use super::answer;
use super::relay::Relay;

/// Largest message, in bytes before hex, as usual on the network.
const MESSAGE_MAX: u64 = 60_000;

/// The reconciliations of one session.
#[derive(Default)]
pub(super) struct Reconciliations(HashMap<SubscriptionId, Negentropy<'static, NegentropyStorageVector>>);

impl Reconciliations {
    /// Answers one message. `None` where there is nothing to say.
    pub(super) fn hear(&mut self, relay: &Relay, message: ClientMessage<'_>) -> Option<Value> {
        match message {
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
    for stored in answer::all(relay, filter) {
        let id = Id::from_byte_array(stored.event.id.to_bytes());
        items.insert(stored.event.created_at.as_secs(), id).expect("it is not sealed yet");
    }
    items.seal().expect("it is sealed once");
    Negentropy::owned(items, MESSAGE_MAX).expect("the size is above the least")
}
