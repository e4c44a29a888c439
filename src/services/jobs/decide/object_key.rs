//! Keys of files. A client can name no other object: neither one of another job, nor a backup beside them.

use std::fmt;

use super::SubmissionError;

/// Longest name of an output, bytes.
const NAME_BYTES_MAX: usize = 128;

/// Name of the output of a client that chooses none.
pub const OUTPUT_NAME: &str = "output";

/// The key of a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ObjectKey {
    /// `sources/SHA-256`, in lower-case hex: the key says what the content is, so that an upload can replace it
    /// only by itself.
    Source([u8; 32]),
    /// `outputs/JOB/ATTEMPT/NAME`: what a worker that has lost its lease still uploads lies beside the output of
    /// the next attempt, never in its place.
    Output {
        /// Number of the job.
        job: i64,
        /// Number of the lease.
        attempt: i32,
        /// Name that the worker chose.
        name: String,
    },
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(sha256) => write!(f, "sources/{}", hex::encode(sha256)),
            Self::Output { job, attempt, name } => write!(f, "outputs/{job}/{attempt}/{name}"),
        }
    }
}

impl ObjectKey {
    /// The key of the source with this hash; `None` if the hash is no SHA-256 in lower-case hex.
    #[must_use]
    pub fn of_source(source_hash: &str) -> Option<Self> {
        let mut sha256 = [0; 32];
        hex::decode_to_slice(source_hash, &mut sha256).ok()?;
        let key = Self::Source(sha256);
        // Only one spelling.
        (hex::encode(sha256) == source_hash).then_some(key)
    }

    /// The key of an output.
    ///
    /// # Errors
    /// When the name is out of its limits.
    pub fn of_output(job: i64, attempt: i32, name: &str) -> Result<Self, SubmissionError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty()
            || name.len() > NAME_BYTES_MAX
            || name.starts_with('.')
            || !name.chars().all(is_plain)
        {
            let problem = format!(
                "must have 1 to {NAME_BYTES_MAX} of the characters A-Z, a-z, 0-9, `.`, `_`, `-`, and not begin with `.`"
            );
            return Err(SubmissionError { field: "name", problem });
        }
        Ok(Self::Output { job, attempt, name: name.to_owned() })
    }

    /// Reads a key.
    ///
    /// # Errors
    /// When it is none that a client can name.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, SubmissionError> {
        let parts: Vec<&str> = text.split('/').collect();
        let key = match parts[..] {
            ["sources", hash] => Self::of_source(hash),
            ["outputs", job, attempt, name] => match (job.parse(), attempt.parse()) {
                (Ok(job), Ok(attempt)) => Self::of_output(job, attempt, name).ok(),
                _ => None,
            },
            _ => None,
        };
        // Numbers have several spellings, of which one is a key.
        key.filter(|key| key.to_string() == text).ok_or_else(|| SubmissionError {
            field,
            problem: "must be `sources/` and a SHA-256 in lower-case hex, or `outputs/JOB/ATTEMPT/NAME`"
                .to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_one_spelling_each() {
        let hash = "0123456789abcdef".repeat(4);
        for text in [
            format!("sources/{hash}"),
            "outputs/7/2/output".to_owned(),
            "outputs/7/1/a-b_c.tar.gz".to_owned(),
        ] {
            assert_eq!(ObjectKey::parse("key", &text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn no_other_object_can_be_named() {
        let hash = "0123456789abcdef".repeat(4);
        for text in [
            String::new(),
            "litestream/generations/1".to_owned(),
            "backups/today".to_owned(),
            "staging/x".to_owned(),
            "outputs".to_owned(),
            "outputs/abc".to_owned(),
            format!("outputs/{hash}"),
            "outputs/7/output".to_owned(),
            "outputs/7/1/".to_owned(),
            "outputs/7/1/..".to_owned(),
            "outputs/7/1/.x".to_owned(),
            "outputs/7/1/a/b".to_owned(),
            "outputs/7/1/../../8/1/output".to_owned(),
            "outputs/07/1/output".to_owned(),
            "outputs/+7/1/output".to_owned(),
            "outputs/7/1/a b".to_owned(),
            "outputs/7/1/a%2fb".to_owned(),
            "outputs/7/1/a\0".to_owned(),
            format!("outputs/7/1/{}", "x".repeat(129)),
            format!("/sources/{hash}"),
            format!("sources//{hash}"),
            format!("sources/../sources/{hash}"),
            format!("sources/{}", hash.to_uppercase()),
            format!("sources/{}", &hash[1..]),
            format!("sources/{hash}/x"),
            format!("Sources/{hash}"),
        ] {
            assert_eq!(ObjectKey::parse("key", &text).unwrap_err().field, "key", "{text:?}");
        }
    }
}
