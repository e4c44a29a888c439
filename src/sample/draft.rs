//! Events before signing, and the authors who sign them.
//!
//! Drafts are created sequentially, because they refer to earlier ids. Signing is the slow part and depends
//! only on the draft, so it can run on any core without changing a byte: BIP-340 without auxiliary randomness
//! gives one signature per message and key.

use nostr_sdk::secp256k1::{Keypair, Message, SECP256K1};
use nostr_sdk::{Event, EventId, Kind, PublicKey, Tag, Tags, Timestamp};
use sha2::{Digest, Sha256};

/// An author of sample events.
#[derive(Debug)]
pub(super) struct Author {
    keys: Keypair,
    /// Public key.
    pub(super) pubkey: PublicKey,
    /// Public key as lower-case hex.
    pub(super) hex: String,
}

impl Author {
    /// Derives author number `index` from the seed. The key is not secret.
    pub(super) fn new(seed: u64, index: usize) -> Self {
        let secret = Sha256::digest(format!("quipu sample author {index} of seed {seed}"));
        let keys = Keypair::from_seckey_slice(SECP256K1, &secret)
            .expect("all but one of 2^128 hashes are secret keys");
        let pubkey = PublicKey::from_byte_array(keys.x_only_public_key().0.serialize());
        Self { keys, pubkey, hex: pubkey.to_hex() }
    }
}

/// The parts of an event that depend on its kind.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) kind: u16,
    /// Index among the authors.
    pub(super) author: usize,
    pub(super) tags: Vec<Tag>,
    pub(super) content: String,
}

/// An unsigned event with its id.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) id: EventId,
    pub(super) author: usize,
    pub(super) created_at: Timestamp,
    pub(super) kind: Kind,
    pub(super) tags: Tags,
    pub(super) content: String,
}

impl Draft {
    /// Adds the time and computes the id.
    pub(super) fn new(body: Body, created_at: u64, authors: &[Author]) -> Self {
        let (created_at, kind) = (Timestamp::from_secs(created_at), Kind::from(body.kind));
        let tags = Tags::from_list(body.tags);
        let id = EventId::new(&authors[body.author].pubkey, &created_at, &kind, &tags, &body.content);
        Self { id, author: body.author, created_at, kind, tags, content: body.content }
    }

    /// Signs the draft; the same draft always gives the same signature.
    pub(super) fn sign(self, authors: &[Author]) -> Event {
        let author = &authors[self.author];
        let message = Message::from_digest(self.id.to_bytes());
        let sig = SECP256K1.sign_schnorr_no_aux_rand(&message, &author.keys);
        Event::new(self.id, author.pubkey, self.created_at, self.kind, self.tags, self.content, sig)
    }
}

/// Builds a tag.
pub(super) fn tag<const N: usize>(values: [&str; N]) -> Tag {
    const { assert!(N > 0, "a tag has a name") };
    Tag::parse(values).expect("the list is not empty")
}
