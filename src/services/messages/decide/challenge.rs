//! Makes and checks the challenges that clients request over HTTP.
//!
//! A challenge is an HMAC over its scope, its expiry and a nonce. The relay stores nothing until a challenge
//! is answered, so no client can displace another client's challenge, and every process that has the key can
//! check it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use thiserror::Error;

/// First input of the HMAC, so that a code made with the same key for another purpose is not accepted here.
const PURPOSE: &[u8] = b"quipu-challenge-v1";

/// Lifetime of a challenge, in seconds.
const LIFETIME_S: i64 = 60;

/// Random bytes that make each challenge unique.
pub const NONCE_BYTES: usize = 16;
const TIME_BYTES: usize = 8;
const HMAC_BYTES: usize = 32;
const CHALLENGE_BYTES: usize = TIME_BYTES + NONCE_BYTES + HMAC_BYTES;

/// The HMAC key of challenges. All processes of a database share it.
pub type ChallengeKey = [u8; 32];

/// The claim for which a challenge is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChallengeScope<'a> {
    /// URL of the relay for which the proof is made.
    pub relay_id: &'a str,
    /// The identity to prove.
    pub wayfarer_id: &'a str,
    /// The device that the token will be valid for; empty for all devices.
    pub device: &'a str,
}

/// Why a challenge is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChallengeError {
    /// It was not made with this key, or for another relay, wayfarer or device.
    #[error(
        "this relay did not issue the challenge for this wayfarer_id and device_id: request one at /v1/challenge"
    )]
    Foreign,
    /// It has expired.
    #[error("the challenge is older than 60 seconds: request a new one")]
    Expired,
}

impl ChallengeScope<'_> {
    /// Makes a challenge that is valid for 60 seconds from `now_s`, in Unix seconds.
    #[must_use]
    pub fn make(&self, key: &ChallengeKey, nonce: [u8; NONCE_BYTES], now_s: i64) -> String {
        let expires_s = now_s.saturating_add(LIFETIME_S).to_be_bytes();
        let hmac = self.hmac(key, expires_s, nonce).finalize().into_bytes();
        URL_SAFE_NO_PAD.encode([&expires_s[..], &nonce, &hmac].concat())
    }

    /// Checks that `challenge` was made for this scope and has not expired at `now_s`, in Unix seconds.
    ///
    /// # Errors
    /// Why the challenge is refused.
    pub fn check(&self, key: &ChallengeKey, challenge: &str, now_s: i64) -> Result<(), ChallengeError> {
        let bytes = URL_SAFE_NO_PAD.decode(challenge).ok().and_then(|bytes| bytes.try_into().ok());
        let bytes: [u8; CHALLENGE_BYTES] = bytes.ok_or(ChallengeError::Foreign)?;
        let (time, rest) = bytes.split_first_chunk::<TIME_BYTES>().ok_or(ChallengeError::Foreign)?;
        let (nonce, hmac) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(ChallengeError::Foreign)?;
        self.hmac(key, *time, *nonce).verify_slice(hmac).map_err(|_| ChallengeError::Foreign)?;
        if i64::from_be_bytes(*time) <= now_s { Err(ChallengeError::Expired) } else { Ok(()) }
    }

    fn hmac(
        &self,
        key: &ChallengeKey,
        expires_s: [u8; TIME_BYTES],
        nonce: [u8; NONCE_BYTES],
    ) -> Hmac<Sha256> {
        let mut hmac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
        hmac.update(PURPOSE);
        // Each name is preceded by its length: otherwise two different lists of names could give the same
        // input.
        for name in [self.relay_id, self.wayfarer_id, self.device] {
            hmac.update(&(name.len() as u64).to_be_bytes());
            hmac.update(name.as_bytes());
        }
        hmac.update(&expires_s);
        hmac.update(&nonce);
        hmac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: ChallengeKey = [7; 32];
    const SCOPE: ChallengeScope<'_> =
        ChallengeScope { relay_id: "ws://127.0.0.1:1/ws", wayfarer_id: "alice", device: "phone" };

    #[test]
    fn a_challenge_is_valid_for_a_minute_and_for_its_scope_only() {
        let challenge = SCOPE.make(&KEY, [1; 16], 1_000);
        assert_eq!(SCOPE.check(&KEY, &challenge, 1_000), Ok(()));
        assert_eq!(SCOPE.check(&KEY, &challenge, 1_059), Ok(()));
        assert_eq!(SCOPE.check(&KEY, &challenge, 1_060), Err(ChallengeError::Expired));
        assert_ne!(SCOPE.make(&KEY, [2; 16], 1_000), challenge);
        for other in [
            ChallengeScope { relay_id: "wss://r.example", ..SCOPE },
            ChallengeScope { wayfarer_id: "bob", ..SCOPE },
            ChallengeScope { device: "", ..SCOPE },
            ChallengeScope { wayfarer_id: "alicephone", device: "", ..SCOPE },
        ] {
            assert_eq!(other.check(&KEY, &challenge, 1_000), Err(ChallengeError::Foreign), "{other:?}");
        }
        assert_eq!(SCOPE.check(&[8; 32], &challenge, 1_000), Err(ChallengeError::Foreign));
    }

    #[test]
    fn an_altered_challenge_is_refused() {
        let challenge = SCOPE.make(&KEY, [1; 16], 1_000);
        for index in 0..challenge.len() {
            let mut other = challenge.clone().into_bytes();
            other[index] = if other[index] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            assert_eq!(SCOPE.check(&KEY, &other, 1_000), Err(ChallengeError::Foreign), "{index}");
        }
        for other in
            ["", "AAAA", "not base64!", &challenge[1..], &format!("{challenge}A"), &format!("{challenge}=")]
        {
            assert_eq!(SCOPE.check(&KEY, other, 1_000), Err(ChallengeError::Foreign), "{other}");
        }
    }
}
