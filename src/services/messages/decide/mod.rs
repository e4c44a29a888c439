//! The rules of messages. They see neither the database nor the clock.

mod challenge;
mod cursor;
mod identity;
mod pushes;
mod quota;
mod ttl;

pub use challenge::{ChallengeError, ChallengeKey, ChallengeScope, NONCE_BYTES};
pub use cursor::DeliveryCursor;
pub use identity::{
    Challenge, Unproven, is_wayfarer_id_v1, proof_relay, prove_key, prove_nostr, token_sha256, wayfarer_id_of,
};
pub use pushes::{Push, UnacknowledgedPushes};
pub use quota::{Quota, Usage, exceeded_bound};
pub use ttl::{TTL_S_DEFAULT, effective_ttl};
