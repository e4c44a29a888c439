//! Makes and checks lease tokens, by which a worker proves its lease.
//!
//! A token names a lease and carries an HMAC over it, so that nothing is stored for it, every process can
//! check it, and the answer to a repeated claim has the same token. Whether the lease is still the present one
//! is decided from the journal.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use thiserror::Error;
use uuid::Uuid;

use crate::services::jobs::command::FencedLease;

/// First input of the HMAC, so that a code made with the same key for another purpose is not accepted here.
const PURPOSE: &[u8] = b"quipu-lease-v1";

const JOB_BYTES: usize = 8;
const ATTEMPT_BYTES: usize = 4;
const CLAIM_BYTES: usize = 16;
/// Half of an HMAC-SHA-256: 128 bits.
const CODE_BYTES: usize = 16;
const TOKEN_BYTES: usize = JOB_BYTES + ATTEMPT_BYTES + CLAIM_BYTES + CODE_BYTES;

/// The HMAC key of lease tokens. All processes of a database share it.
pub type LeaseKey = [u8; 32];

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LeaseTokenError {
    /// It was not made by this server.
    #[error("not a lease token of this server")]
    Foreign,
    /// It is the token of another job.
    #[error("the lease token of another job")]
    OtherJob,
}

/// The token of a lease.
#[must_use]
pub fn lease_token(key: &LeaseKey, job: i64, lease: FencedLease) -> String {
    let named = [&job.to_be_bytes()[..], &lease.attempt.to_be_bytes(), lease.claim.as_bytes()].concat();
    let code = hmac(key, PURPOSE, &named).finalize().into_bytes();
    URL_SAFE_NO_PAD.encode([&named[..], &code[..CODE_BYTES]].concat())
}

/// The lease that a token names, which has to be one of `job`.
///
/// # Errors
/// Why the token is refused.
pub fn read_lease_token(key: &LeaseKey, job: i64, token: &str) -> Result<FencedLease, LeaseTokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| bytes.try_into().ok());
    let bytes: [u8; TOKEN_BYTES] = bytes.ok_or(LeaseTokenError::Foreign)?;
    let (named, code) = bytes.split_at(TOKEN_BYTES - CODE_BYTES);
    hmac(key, PURPOSE, named).verify_truncated_left(code).map_err(|_| LeaseTokenError::Foreign)?;
    let (of_job, rest) = named.split_first_chunk::<JOB_BYTES>().ok_or(LeaseTokenError::Foreign)?;
    let (attempt, claim) = rest.split_first_chunk::<ATTEMPT_BYTES>().ok_or(LeaseTokenError::Foreign)?;
    if i64::from_be_bytes(*of_job) != job {
        return Err(LeaseTokenError::OtherJob);
    }
    let claim = Uuid::from_slice(claim).map_err(|_| LeaseTokenError::Foreign)?;
    Ok(FencedLease { attempt: i32::from_be_bytes(*attempt), claim })
}

/// The HMAC of a content for one purpose: a code for one purpose is not accepted for another.
pub(super) fn hmac(key: &LeaseKey, purpose: &[u8], content: &[u8]) -> Hmac<Sha256> {
    let mut hmac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    hmac.update(purpose);
    hmac.update(content);
    hmac
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: LeaseKey = [7; 32];
    const LEASE: FencedLease = FencedLease { attempt: 3, claim: Uuid::from_u128(0x1234) };

    #[test]
    fn a_token_names_its_lease_and_is_good_for_its_job_alone() {
        let token = lease_token(&KEY, 42, LEASE);
        assert_eq!(read_lease_token(&KEY, 42, &token), Ok(LEASE));
        assert_eq!(read_lease_token(&KEY, 43, &token), Err(LeaseTokenError::OtherJob));
        assert_eq!(read_lease_token(&[8; 32], 42, &token), Err(LeaseTokenError::Foreign));
    }

    #[test]
    fn an_altered_token_is_refused() {
        let token = lease_token(&KEY, 42, LEASE);
        for index in 0..token.len() {
            let mut other = token.clone().into_bytes();
            other[index] = if other[index] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            assert!(read_lease_token(&KEY, 42, &other).is_err(), "{index}");
        }
        for other in ["", "AAAA", "not base64!", &token[1..], &format!("{token}A"), &format!("{token}=")] {
            assert_eq!(read_lease_token(&KEY, 42, other), Err(LeaseTokenError::Foreign), "{other}");
        }
    }
}
