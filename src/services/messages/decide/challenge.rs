//! Challenges that are given over HTTP. The relay keeps nothing for a challenge until it is answered, so no client can displace
//! another's, and any process that knows the key can check it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use thiserror::Error;

/// First bytes under the code: one made with the same key for anything else fits nothing here.
const PURPOSE: &[u8] = b"quipu-challenge-v1";

/// How long a challenge may be answered, in seconds.
const LIFE_S: i64 = 60;

/// Bytes that make each challenge another one.
pub const NONCE_BYTES: usize = 16;
const TIME_BYTES: usize = 8;
const CODE_BYTES: usize = 32;
const CHALLENGE_BYTES: usize = TIME_BYTES + NONCE_BYTES + CODE_BYTES;

/// The key that challenges are made with, the same in all processes of a database.
pub type ChallengeKey = [u8; 32];

/// Whom a challenge is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChallengeScope<'a> {
    /// The relay that the proof is made for.
    pub relay_id: &'a str,
    /// Who wants to prove an identity.
    pub wayfarer_id: &'a str,
    /// The device that the token will be good for, empty for all of them.
    pub device: &'a str,
}

/// Why a challenge is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChallengeError {
    /// It was not made here, or for another relay, wayfarer or device.
    #[error("not a challenge of this relay for this wayfarer_id and device_id: ask for one at /v1/challenge")]
    Foreign,
    /// It is too old.
    #[error("the challenge is older than 60 seconds: ask for another")]
    Expired,
}

impl ChallengeScope<'_> {
    /// A challenge that is good from `now_s` on, unix seconds, for a minute.
    #[must_use]
    pub fn make(&self, key: &ChallengeKey, nonce: [u8; NONCE_BYTES], now_s: i64) -> String {
        let expires_s = now_s.saturating_add(LIFE_S).to_be_bytes();
        let code = self.code(key, expires_s, nonce).finalize().into_bytes();
        URL_SAFE_NO_PAD.encode([&expires_s[..], &nonce, &code].concat())
    }

    /// Whether `challenge` was made for this, and may still be answered at `now_s`, unix seconds.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, key: &ChallengeKey, challenge: &str, now_s: i64) -> Result<(), ChallengeError> {
        let bytes = URL_SAFE_NO_PAD.decode(challenge).ok().and_then(|bytes| bytes.try_into().ok());
        let bytes: [u8; CHALLENGE_BYTES] = bytes.ok_or(ChallengeError::Foreign)?;
        let (time, rest) = bytes.split_first_chunk::<TIME_BYTES>().ok_or(ChallengeError::Foreign)?;
        let (nonce, code) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(ChallengeError::Foreign)?;
        self.code(key, *time, *nonce).verify_slice(code).map_err(|_| ChallengeError::Foreign)?;
        if i64::from_be_bytes(*time) <= now_s { Err(ChallengeError::Expired) } else { Ok(()) }
    }

    fn code(
        &self,
        key: &ChallengeKey,
        expires_s: [u8; TIME_BYTES],
        nonce: [u8; NONCE_BYTES],
    ) -> Hmac<Sha256> {
        let mut code = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
        code.update(PURPOSE);
        // With their lengths: otherwise two different lists of names could be one text.
        for name in [self.relay_id, self.wayfarer_id, self.device] {
            code.update(&(name.len() as u64).to_be_bytes());
            code.update(name.as_bytes());
        }
        code.update(&expires_s);
        code.update(&nonce);
        code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: ChallengeKey = [7; 32];
    const FOR: ChallengeScope<'_> =
        ChallengeScope { relay_id: "ws://127.0.0.1:1/ws", wayfarer_id: "alice", device: "phone" };

    #[test]
    fn a_challenge_is_good_for_a_minute_and_for_what_it_was_made_for() {
        let challenge = FOR.make(&KEY, [1; 16], 1_000);
        assert_eq!(FOR.check(&KEY, &challenge, 1_000), Ok(()));
        assert_eq!(FOR.check(&KEY, &challenge, 1_059), Ok(()));
        assert_eq!(FOR.check(&KEY, &challenge, 1_060), Err(ChallengeError::Expired));
        assert_ne!(FOR.make(&KEY, [2; 16], 1_000), challenge);
        for other in [
            ChallengeScope { relay_id: "wss://r.example", ..FOR },
            ChallengeScope { wayfarer_id: "bob", ..FOR },
            ChallengeScope { device: "", ..FOR },
            ChallengeScope { wayfarer_id: "alicephone", device: "", ..FOR },
        ] {
            assert_eq!(other.check(&KEY, &challenge, 1_000), Err(ChallengeError::Foreign), "{other:?}");
        }
        assert_eq!(FOR.check(&[8; 32], &challenge, 1_000), Err(ChallengeError::Foreign));
    }

    #[test]
    fn nothing_of_a_challenge_can_be_changed() {
        let challenge = FOR.make(&KEY, [1; 16], 1_000);
        for place in 0..challenge.len() {
            let mut other = challenge.clone().into_bytes();
            other[place] = if other[place] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            assert_eq!(FOR.check(&KEY, &other, 1_000), Err(ChallengeError::Foreign), "{place}");
        }
        for other in
            ["", "AAAA", "not base64!", &challenge[1..], &format!("{challenge}A"), &format!("{challenge}=")]
        {
            assert_eq!(FOR.check(&KEY, other, 1_000), Err(ChallengeError::Foreign), "{other}");
        }
    }
}
