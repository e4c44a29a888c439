//! Authentication of clients (NIP-42).

use nostr_sdk::{Event, Kind, TagStandard};

use super::Character;
use super::relay::Relay;

/// Authentication state of one session.
pub(super) struct AuthCheck {
    challenge: Option<String>,
    url: String,
    is_open: bool,
}

impl AuthCheck {
    pub(super) fn new(relay: &Relay) -> Self {
        let asks = relay.character() == Character::Auth;
        let challenge = asks.then(|| hex::encode(rand::random::<[u8; 16]>()));
        Self { is_open: challenge.is_none(), challenge, url: relay.url() }
    }

    /// The challenge that a client must sign, if authentication is required.
    pub(super) fn challenge(&self) -> Option<&str> {
        self.challenge.as_deref()
    }

    /// The reason why a request is refused; `None` if it is answered.
    pub(super) fn refusal(&self) -> Option<&'static str> {
        (!self.is_open).then_some("auth-required: members only")
    }

    /// Checks N-42.4 except for the time: kind, signature, our challenge, our URL.
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
