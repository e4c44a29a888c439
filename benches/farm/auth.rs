//! NIP-42: who may ask.

use nostr_sdk::{Event, Kind, TagStandard};

use super::Character;
use super::relay::Relay;

/// What stands between a client and the events.
pub(super) struct Doorkeeper {
    challenge: Option<String>,
    url: String,
    is_open: bool,
}

impl Doorkeeper {
    pub(super) fn new(relay: &Relay) -> Self {
        let asks = relay.character() == Character::Auth;
        let challenge = asks.then(|| hex::encode(rand::random::<[u8; 16]>()));
        Self { is_open: challenge.is_none(), challenge, url: relay.url() }
    }

    /// What a client has to sign, if it has to.
    pub(super) fn challenge(&self) -> Option<&str> {
        self.challenge.as_deref()
    }

    /// Why a question is not answered.
    pub(super) fn refusal(&self) -> Option<&'static str> {
        (!self.is_open).then_some("auth-required: members only")
    }

    /// N-42.4, but for the time: kind, signature, our challenge, our URL.
    pub(super) fn admit(&mut self, event: &Event) -> bool {
        let tags = || event.tags.iter().filter_map(|tag| tag.as_standardized());
        let challenged = tags().any(|tag| {
            matches!(tag, TagStandard::Challenge(challenge) if Some(challenge.as_str()) == self.challenge())
        });
        let ours = tags().any(
            |tag| matches!(tag, TagStandard::Relay(url) if url.as_str_without_trailing_slash() == self.url),
        );
        let admitted = event.kind == Kind::Authentication && challenged && ours && event.verify().is_ok();
        self.is_open |= admitted;
        admitted
    }
}
