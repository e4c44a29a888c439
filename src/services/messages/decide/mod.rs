//! The rules of messages.

mod challenge;
mod handed;
mod identity;
mod life;
mod outbox;
mod quota;

pub use challenge::{ChallengeFor, ChallengeKey, ChallengeRefused, NONCE_BYTES};
pub use handed::{HandOver, Handed};
pub use identity::{
    Challenge, Unproven, is_wayfarer_id_v1, proof_relay, prove_key, prove_nostr, token_sha256, wayfarer_id_of,
};
pub use life::{TTL_S_DEFAULT, life_of};
pub use outbox::Outbox;
pub use quota::{Quota, Used, over_quota};
