//! Contents of blobs, files of them, and tokens.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nostr_sdk::{EventBuilder, JsonUtil as _, Keys, Kind, Tag, Timestamp};
use sha2::{Digest as _, Sha256};

/// Bytes of a mebibyte.
pub(crate) const MIB: usize = 1 << 20;

/// Seconds for which tokens hold.
const TOKEN_S: u64 = 7_200;

/// A content of this size that no other number gives.
pub(crate) fn content(number: u64, bytes: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(2).wrapping_add(1);
    let mut content = Vec::with_capacity(bytes + 8);
    while content.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        content.extend_from_slice(&state.to_le_bytes());
    }
    content.truncate(bytes);
    content
}

/// The SHA-256 of a content in hexadecimal digits.
pub(crate) fn sha256(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

/// Writes a file of this size, and returns its hash.
pub(crate) fn write_file(path: &Path, mib: usize, number: u64) -> String {
    let mut file = BufWriter::new(File::create(path).expect("a writable folder"));
    let part = content(number, MIB);
    let mut hash = Sha256::new();
    for _ in 0..mib {
        hash.update(&part);
        file.write_all(&part).expect("room on the disk");
    }
    file.flush().expect("room on the disk");
    hex::encode(hash.finalize())
}

/// Changes the first bytes of a file, so that it is another blob, and returns its hash.
pub(crate) fn change_file(path: &Path, number: u64) -> String {
    let mut file = OpenOptions::new().read(true).write(true).open(path).expect("a file of ours");
    file.write_all(&content(number, 64)).expect("room on the disk");
    file.seek(SeekFrom::Start(0)).expect("a file");
    let (mut hash, mut part) = (Sha256::new(), vec![0; MIB]);
    loop {
        let read = file.read(&mut part).expect("a readable file");
        if read == 0 {
            return hex::encode(hash.finalize());
        }
        hash.update(&part[..read]);
    }
}

/// A key that uploads.
pub(crate) struct User(Keys);

impl User {
    pub(crate) fn new() -> Self {
        Self(Keys::generate())
    }

    /// The value of `Authorization` for the upload of a blob.
    pub(crate) fn token(&self, sha256: &str) -> String {
        let expires = (Timestamp::now().as_secs() + TOKEN_S).to_string();
        let tags = [["t", "upload"], ["expiration", &expires], ["x", sha256]];
        let tags = tags.map(|tag| Tag::parse(tag).expect("a tag"));
        let event = EventBuilder::new(Kind::from(24_242), "a bench").tags(tags);
        let event = event.sign_with_keys(&self.0).expect("a key signs");
        format!("Nostr {}", URL_SAFE_NO_PAD.encode(event.as_json()))
    }
}
