//! An event before its signature, and the authors who sign.
//!
//! Drafting is sequential, because drafts refer to earlier ids; signing is the slow part and needs nothing
//! but the draft, so it can run on any core without changing a byte: BIP-340 with no auxiliary randomness
//! gives one signature for one message and key.

use nostr_sdk::secp256k1::{Keypair, Message, SECP256K1};
use nostr_sdk::{Event, EventId, Kind, PublicKey, Tag, Tags, Timestamp};
use sha2::{Digest, Sha256};

/// Somebody who writes sample events.
#[derive(Debug)]
pub(super) struct Author {
    keys: Keypair,
    /// Whose events they are.
    pub(super) pubkey: PublicKey,
    /// The same as lower-case hex.
    pub(super) hex: String,
}

impl Author {
    /// The author with this number under this seed. The key is no secret: it follows from both.
    pub(super) fn new(seed: u64, index: usize) -> Self {
        let secret = Sha256::digest(format!("quipu sample author {index} of seed {seed}"));
        let keys = Keypair::from_seckey_slice(SECP256K1, &secret)
            .expect("all but one of 2^128 hashes are secret keys");
        let pubkey = PublicKey::from_byte_array(keys.x_only_public_key().0.serialize());
        Self { keys, pubkey, hex: pubkey.to_hex() }
    }
}

/// What a kind's builder decides about an event.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) kind: u16,
    /// Place among the authors.
    pub(super) author: usize,
    pub(super) tags: Vec<Tag>,
    pub(super) content: String,
}

/// An event that has its id and waits for its signature.
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
    /// Gives a body its time and id.
    pub(super) fn new(body: Body, created_at: u64, authors: &[Author]) -> Self {
        let (created_at, kind) = (Timestamp::from_secs(created_at), Kind::from(body.kind));
        let tags = Tags::from_list(body.tags);
        let id = EventId::new(&authors[body.author].pubkey, &created_at, &kind, &tags, &body.content);
        Self { id, author: body.author, created_at, kind, tags, content: body.content }
    }

    /// Signs; the same draft always gives the same signature.
    pub(super) fn sign(self, authors: &[Author]) -> Event {
        let author = &authors[self.author];
        let message = Message::from_digest(self.id.to_bytes());
        let sig = SECP256K1.sign_schnorr_no_aux_rand(&message, &author.keys);
        Event::new(self.id, author.pubkey, self.created_at, self.kind, self.tags, self.content, sig)
    }
}

/// A tag from its values.
pub(super) fn tag<const N: usize>(values: [&str; N]) -> Tag {
    const { assert!(N > 0, "a tag has a name") };
    Tag::parse(values).expect("the list is not empty")
}
