//! Authentication (NIP-42).

use nostr_sdk::{ClientMessage, EventBuilder, Keys, RelayUrl};
use tokio::time::Instant;

use super::{RelayError, RelaySession};
use crate::net::remote_text::sanitize;

impl RelaySession {
    /// Answers the relay's challenge with `keys`. The answer is signed only for the URL that was dialled
    /// (N-42.9). Waits for a challenge that has not arrived yet: relays may send it after the refusal that
    /// made it necessary (N-42.7).
    ///
    /// # Errors
    /// [`RelayError::NoChallenge`], [`RelayError::AuthRefused`]: the session can continue. Any other error
    /// ends the session.
    pub async fn authenticate(&mut self, keys: &Keys) -> Result<(), RelayError> {
        let challenge = self.wait_for_challenge().await?;
        let unusable = |e: String| RelayError::AuthRefused(sanitize(&e));
        let url = RelayUrl::parse(self.url.as_str()).map_err(|e| unusable(e.to_string()))?;
        let answer = EventBuilder::auth(challenge, url);
        let event = answer.sign_with_keys(keys).map_err(|e| unusable(e.to_string()))?;
        let id = event.id;
        self.send(&ClientMessage::auth(event)).await?;
        let verdict = self.read_ok(id).await?;
        if verdict.accepted { Ok(()) } else { Err(RelayError::AuthRefused(verdict.message)) }
    }

    async fn wait_for_challenge(&mut self) -> Result<String, RelayError> {
        let until = Instant::now() + self.timeouts.idle;
        loop {
            if let Some(challenge) = &self.challenge {
                return Ok(challenge.clone());
            }
            match self.next_text(until).await {
                Ok(Some(text)) => drop(self.handle_session_frame(&text)?),
                Ok(None) | Err(RelayError::Silent(_)) => return Err(RelayError::NoChallenge),
                Err(error) => return Err(error),
            }
        }
    }
}
