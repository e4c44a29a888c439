//! Names of blobs in paths: a hash, and an extension that says nothing.

use crate::base::Sha256;

/// Longest extension, bytes.
const EXTENSION_BYTES_MAX: usize = 10;

/// The name of a blob: `<sha256>` or `<sha256>.<extension>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobName<'a> {
    /// The hash.
    pub sha256: Sha256,
    /// The extension without its dot; empty if there is none.
    pub extension: &'a str,
}

/// Why a path names no blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// The hash.
    #[error("expected the SHA-256 of a blob, 64 hexadecimal digits")]
    Hash,
    /// The extension.
    #[error("expected an extension of 1 to 10 letters and digits")]
    Extension,
}

impl<'a> BlobName<'a> {
    /// Reads the last part of a path.
    ///
    /// # Errors
    /// When the hash or the extension cannot be one.
    pub fn parse(name: &'a str) -> Result<Self, BadName> {
        let (digits, extension) =
            name.split_once('.').map_or((name, None), |(digits, rest)| (digits, Some(rest)));
        let sha256 = digits.parse().map_err(|_| BadName::Hash)?;
        let is_good = |extension: &str| {
            !extension.is_empty()
                && extension.len() <= EXTENSION_BYTES_MAX
                && extension.bytes().all(|byte| byte.is_ascii_alphanumeric())
        };
        match extension {
            None => Ok(Self { sha256, extension: "" }),
            Some(extension) if is_good(extension) => Ok(Self { sha256, extension }),
            Some(_) => Err(BadName::Extension),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bl_01_10_a_hash_is_read_with_and_without_an_extension_and_bl_01_12_what_is_none_is_refused() {
        let hash = Sha256::of(b"");
        for (text, extension) in [
            (hash.to_string(), ""),
            (hash.to_string().to_uppercase(), ""),
            (format!("{hash}.png"), "png"),
            (format!("{hash}.MP4"), "MP4"),
            (format!("{hash}.abcdefghij"), "abcdefghij"),
        ] {
            assert_eq!(BlobName::parse(&text), Ok(BlobName { sha256: hash, extension }), "{text}");
        }
        for text in
            ["", "favicon.ico", &hash.to_string()[1..], &format!("{hash}0"), &format!(" {hash}"), "%00"]
        {
            assert_eq!(BlobName::parse(text), Err(BadName::Hash), "{text}");
        }
        for extension in ["", "abcdefghijk", "tar.gz", "a b", "%2e", "ä", "p\r"] {
            let text = format!("{hash}.{extension}");
            assert_eq!(BlobName::parse(&text), Err(BadName::Extension), "{text}");
        }
    }
}
