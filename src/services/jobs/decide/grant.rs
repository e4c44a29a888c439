//! What a signed URL of this server allows, and the seal over it.
//!
//! A sealed text is Base64 of JSON with an HMAC-SHA-256 over it, by the key of lease tokens, which all processes
//! share. Nothing is stored for it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::Mac as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use super::LeaseKey;
use super::lease_token::hmac;

/// Longest sealed text, bytes: the longest that this server makes is shorter.
const SEALED_BYTES_MAX: usize = 4_096;

/// A text that can be sealed.
pub trait Sealed: Serialize + DeserializeOwned {
    /// First input of the HMAC, so that a seal for one purpose is not accepted for another.
    const PURPOSE: &'static [u8];
    /// From this time on it is refused, seconds since 1970.
    fn expires(&self) -> i64;
}

/// Methods of signed URLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GrantedMethod {
    /// Read the object.
    #[serde(rename = "GET")]
    Get,
    /// Upload it.
    #[serde(rename = "PUT")]
    Put,
}

/// What a signed URL allows: one method on one object, until a time. An upload has to have the content type, the
/// size and the content that are named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The method.
    pub method: GrantedMethod,
    /// The key of the object.
    pub key: String,
    /// Seconds since 1970.
    pub expires: i64,
    /// Content type of an upload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Exact size of an upload in bytes; `None` only for clients of the original, which state none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// SHA-256 of an upload in hex, if it is known before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The lease under which an output is uploaded. It has to be held when the upload begins and when it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Uuid>,
    /// The multipart upload and its part, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<(Uuid, u32)>,
    /// Who it was given to, for the journal.
    pub actor: String,
}

impl Sealed for Grant {
    const PURPOSE: &'static [u8] = b"quipu-object-v1";

    fn expires(&self) -> i64 {
        self.expires
    }
}

/// A multipart upload that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MultipartGrant {
    /// The key of the object.
    pub key: String,
    /// The storage's id of the upload.
    pub upload: String,
    /// Size of the object in bytes.
    pub size: u64,
    /// Size of each part but the last.
    pub part_size: u64,
    /// Content type of the object.
    pub content_type: String,
    /// SHA-256 of the object in hex, if it is known before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// As in [`Grant`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Uuid>,
    /// Seconds since 1970.
    pub expires: i64,
}

impl Sealed for MultipartGrant {
    const PURPOSE: &'static [u8] = b"quipu-multipart-v1";

    fn expires(&self) -> i64 {
        self.expires
    }
}

impl MultipartGrant {
    /// Number of parts.
    #[must_use]
    pub fn parts(&self) -> u64 {
        self.size.div_ceil(self.part_size.max(1))
    }

    /// SHA-256 of the object, if it is known before.
    #[must_use]
    pub fn sha256(&self) -> Option<[u8; 32]> {
        let mut sha256 = [0; 32];
        hex::decode_to_slice(self.sha256.as_deref()?, &mut sha256).ok()?;
        Some(sha256)
    }

    /// Size of a part, from 1, in bytes; `None` if there is no such part.
    #[must_use]
    pub fn size_of(&self, part: u32) -> Option<u64> {
        let before = u64::from(part.checked_sub(1)?).checked_mul(self.part_size)?;
        let left = self.size.checked_sub(before)?;
        (left > 0).then(|| left.min(self.part_size))
    }
}

/// Why a sealed text is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SealError {
    /// It was not made by this server for this purpose.
    #[error("the signature is not valid")]
    Foreign,
    /// Its time is over.
    #[error("the time of the signature is over")]
    Expired,
}

/// The sealed text.
#[must_use]
pub fn seal<T: Sealed>(key: &LeaseKey, content: &T) -> String {
    let json = serde_json::to_vec(content).expect("texts, numbers and options always serialize");
    let code = hmac(key, T::PURPOSE, &json).finalize().into_bytes();
    format!("{}.{}", URL_SAFE_NO_PAD.encode(&json), URL_SAFE_NO_PAD.encode(code))
}

/// The content of a sealed text. `now` is in seconds since 1970.
///
/// # Errors
/// Why it is refused.
pub fn unseal<T: Sealed>(key: &LeaseKey, text: &str, now: i64) -> Result<T, SealError> {
    let (json, code) =
        text.split_once('.').filter(|_| text.len() <= SEALED_BYTES_MAX).ok_or(SealError::Foreign)?;
    let json = URL_SAFE_NO_PAD.decode(json).map_err(|_| SealError::Foreign)?;
    let code = URL_SAFE_NO_PAD.decode(code).map_err(|_| SealError::Foreign)?;
    hmac(key, T::PURPOSE, &json).verify_slice(&code).map_err(|_| SealError::Foreign)?;
    let content: T = serde_json::from_slice(&json).map_err(|_| SealError::Foreign)?;
    if content.expires() <= now { Err(SealError::Expired) } else { Ok(content) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: LeaseKey = [7; 32];

    fn grant() -> Grant {
        Grant {
            method: GrantedMethod::Put,
            key: "outputs/7/1/output".to_owned(),
            expires: 100,
            content_type: Some("text/plain".to_owned()),
            size: Some(5),
            sha256: None,
            claim: Some(Uuid::from_u128(9)),
            part: None,
            actor: "worker:w".to_owned(),
        }
    }

    #[test]
    fn a_seal_holds_until_its_time_and_for_its_key_and_purpose() {
        let text = seal(&KEY, &grant());
        assert_eq!(unseal::<Grant>(&KEY, &text, 99), Ok(grant()));
        assert_eq!(unseal::<Grant>(&KEY, &text, 100), Err(SealError::Expired));
        assert_eq!(unseal::<Grant>(&[8; 32], &text, 99), Err(SealError::Foreign));
        assert_eq!(unseal::<MultipartGrant>(&KEY, &text, 99), Err(SealError::Foreign));
    }

    #[test]
    fn an_altered_seal_is_refused() {
        let text = seal(&KEY, &grant());
        for index in 0..text.len() {
            let mut other = text.clone().into_bytes();
            other[index] = if other[index] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            assert_eq!(unseal::<Grant>(&KEY, &other, 99), Err(SealError::Foreign), "{index}");
        }
        for other in ["", ".", "e30.", &text[1..], &format!("{text}A"), &"A".repeat(5_000)] {
            assert_eq!(unseal::<Grant>(&KEY, other, 99), Err(SealError::Foreign), "{other}");
        }
    }

    #[test]
    fn a_multipart_upload_has_parts_of_one_size_and_a_rest() {
        let of = |size, part_size| MultipartGrant {
            key: String::new(),
            upload: String::new(),
            size,
            part_size,
            content_type: String::new(),
            sha256: None,
            claim: None,
            expires: 0,
        };
        let upload = of(25, 10);
        assert_eq!(upload.parts(), 3);
        let sizes: Vec<_> = (0..=4).map(|part| upload.size_of(part)).collect();
        assert_eq!(sizes, [None, Some(10), Some(10), Some(5), None]);
        assert_eq!((of(20, 10).parts(), of(20, 10).size_of(3)), (2, None));
        assert_eq!(of(1, u64::MAX).size_of(u32::MAX), None);
    }
}
