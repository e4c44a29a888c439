//! Authentication (NIP-42).

use nostr_sdk::{ClientMessage, EventBuilder, Keys, RelayUrl};
use tokio::time::Instant;

use super::{RelayError, RelaySession};
use crate::net::error::words;

impl RelaySession {
    /// Answers the relay's challenge with this key. It is signed for the URL that was dialled and no other (N-42.9). A
    /// challenge that has not come yet is waited for: it may follow the refusal that made it necessary (N-42.7).
    ///
    /// # Errors
    /// [`RelayError::NoChallenge`], [`RelayError::AuthRefused`]; the session can go on. Otherwise what ends a session.
    pub async fn authenticate(&mut self, keys: &Keys) -> Result<(), RelayError> {
        let challenge = self.awaited_challenge().await?;
        let unusable = |e: String| RelayError::AuthRefused(words(&e));
        let url = RelayUrl::parse(self.url.as_str()).map_err(|e| unusable(e.to_string()))?;
        let answer = EventBuilder::auth(challenge, url);
        let event = answer.sign_with_keys(keys).map_err(|e| unusable(e.to_string()))?;
        let id = event.id;
        self.send(&ClientMessage::auth(event)).await?;
        let verdict = self.read_ok(id).await?;
        if verdict.accepted { Ok(()) } else { Err(RelayError::AuthRefused(verdict.message)) }
    }

    async fn awaited_challenge(&mut self) -> Result<String, RelayError> {
        let until = Instant::now() + self.patience.idle;
        loop {
            if let Some(challenge) = &self.challenge {
                return Ok(challenge.clone());
            }
            match self.next_text(until).await {
                Ok(Some(text)) => drop(self.filed(&text)?),
                Ok(None) | Err(RelayError::Silent(_)) => return Err(RelayError::NoChallenge),
                Err(error) => return Err(error),
            }
        }
    }
}
