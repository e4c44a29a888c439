//! Limits of a new job, and what makes it unique.

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::limits::{PRIORITY_FIRST, PRIORITY_LAST};
use crate::base::JOB_ATTEMPTS_MAX;

/// Reserved for webhooks, with all names below it, as types of jobs and as ids of workers.
pub const WEBHOOK: &str = "quipu.webhook";

/// Reserved for schedules, likewise: unique keys of their jobs begin with it.
const SCHEDULE: &str = "quipu.schedule";

/// Longest type, bytes.
pub const TYPE_BYTES_MAX: usize = 64;

/// Most jobs that one job may depend on.
pub const DEPENDS_ON_MAX: usize = 64;

/// Longest hash, idempotency key and other short texts, bytes.
pub const TEXT_BYTES_MAX: usize = 256;

/// Longest path of a source, bytes.
const PATH_BYTES_MAX: usize = 4_096;

/// Largest tags, as JSON, bytes.
const TAGS_BYTES_MAX: usize = 4_096;

/// Largest metadata, as JSON, bytes.
const METADATA_BYTES_MAX: usize = 65_536;

/// Deepest nesting of arrays and objects. Most readers of JSON refuse more than 127 levels, and answers hold a value
/// a few levels deeper than it was received.
const LEVELS_MAX: usize = 64;

/// Most values of a JSON value, those of arrays and members of objects included: in memory each has 32 bytes, an
/// object with one member more than 600.
const VALUES_MAX: usize = 10_000;

/// Largest number that is not a whole one, either side of zero. A larger one could be read back as infinite.
const NUMBER_MAX: f64 = 1e300;

/// The fields of a submission as they were received.
#[derive(Debug, Clone, Copy)]
pub struct SubmissionFields<'a> {
    /// Type.
    pub job_type: &'a str,
    /// Hash of the source.
    pub source_hash: Option<&'a str>,
    /// Path of the source.
    pub source_path: Option<&'a str>,
    /// Size of the source, bytes.
    pub source_size: Option<i64>,
    /// Priority.
    pub priority: i64,
    /// Attempts.
    pub attempts_max: i64,
    /// Idempotency key.
    pub idempotency_key: Option<&'a str>,
    /// Tags.
    pub tags: Option<&'a Value>,
    /// Metadata.
    pub metadata: Option<&'a Value>,
    /// Dependencies.
    pub depends_on: &'a [i64],
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {problem}")]
pub struct SubmissionError {
    /// The field, as clients name it.
    pub field: &'static str,
    /// The problem and what is accepted.
    pub problem: String,
}

fn error(field: &'static str, problem: impl Into<String>) -> SubmissionError {
    SubmissionError { field, problem: problem.into() }
}

/// The numbers of a submission, which are in their limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckedNumbers {
    /// Priority.
    pub priority: i16,
    /// Attempts.
    pub attempts_max: i32,
}

/// Checks a priority.
///
/// # Errors
/// That there is no such priority.
pub fn check_priority(priority: i64) -> Result<i16, SubmissionError> {
    let small = i16::try_from(priority).ok().filter(|small| (PRIORITY_FIRST..=PRIORITY_LAST).contains(small));
    let problem = || format!("must be between {PRIORITY_FIRST} and {PRIORITY_LAST}");
    small.ok_or_else(|| error("priority", problem()))
}

/// Checks the fields of a submission.
///
/// # Errors
/// The first field that is out of its limits.
pub fn check_submission(fields: &SubmissionFields<'_>) -> Result<CheckedNumbers, SubmissionError> {
    check_text("type", fields.job_type, TYPE_BYTES_MAX)?;
    check_not_reserved("type", fields.job_type)?;
    for (field, text, most) in [
        ("source_hash", fields.source_hash, TEXT_BYTES_MAX),
        ("source_path", fields.source_path, PATH_BYTES_MAX),
        ("idempotency_key", fields.idempotency_key, TEXT_BYTES_MAX),
    ] {
        if let Some(text) = text {
            check_text(field, text, most)?;
        }
    }
    if fields.source_size.is_some_and(|size| size < 0) {
        return Err(error("source_size", "must not be negative"));
    }
    let priority = check_priority(fields.priority)?;
    let attempts_max = i32::try_from(fields.attempts_max).ok();
    let attempts_max = attempts_max.filter(|attempts| (1..=JOB_ATTEMPTS_MAX).contains(attempts));
    let problem = || format!("must be between 1 and {JOB_ATTEMPTS_MAX}");
    let attempts_max = attempts_max.ok_or_else(|| error("max_attempts", problem()))?;
    for (field, value, most) in
        [("tags", fields.tags, TAGS_BYTES_MAX), ("metadata", fields.metadata, METADATA_BYTES_MAX)]
    {
        if let Some(value) = value {
            check_json(field, value, most)?;
        }
    }
    if fields.depends_on.len() > DEPENDS_ON_MAX {
        return Err(error("depends_on", format!("at most {DEPENDS_ON_MAX} jobs")));
    }
    Ok(CheckedNumbers { priority, attempts_max })
}

/// Checks a text: not empty, at most `most` bytes, without NUL, which PostgreSQL cannot store.
///
/// # Errors
/// What is wrong with it.
pub fn check_text(field: &'static str, text: &str, most: usize) -> Result<(), SubmissionError> {
    if text.is_empty() {
        return Err(error(field, "is required"));
    }
    if text.len() > most {
        return Err(error(field, format!("{} bytes, at most {most}", text.len())));
    }
    if text.contains('\0') {
        return Err(error(field, "must not contain NUL"));
    }
    Ok(())
}

/// Whether a type, or the id of a worker, is this reserved name or one below it.
fn is_below(word: &str, reserved: &str) -> bool {
    word.strip_prefix(reserved).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether a type, or the id of a worker, belongs to webhooks or schedules.
pub(super) fn is_reserved(word: &str) -> bool {
    is_below(word, WEBHOOK) || is_below(word, SCHEDULE)
}

/// Checks that a type, or the id of a worker, is not one of those that webhooks and schedules have.
///
/// # Errors
/// That it is reserved.
pub fn check_not_reserved(field: &'static str, word: &str) -> Result<(), SubmissionError> {
    for (reserved, owner) in [(WEBHOOK, "webhooks"), (SCHEDULE, "schedules")] {
        if is_below(word, reserved) {
            return Err(error(
                field,
                format!("is reserved: `{reserved}` and names below it belong to {owner}"),
            ));
        }
    }
    Ok(())
}

/// Checks a JSON value that may be missing: at most `most` bytes as text, no deeper, larger or more numerous than
/// every reader can take, and without NUL.
///
/// # Errors
/// What is wrong with it.
pub fn check_detail(field: &'static str, value: Option<&Value>, most: usize) -> Result<(), SubmissionError> {
    value.map_or(Ok(()), |value| check_json(field, value, most))
}

fn check_json(field: &'static str, value: &Value, most: usize) -> Result<(), SubmissionError> {
    let text = value.to_string();
    let mut measured = Measured::default();
    measured.add(value, 0);
    if measured.values > VALUES_MAX {
        return Err(error(field, format!("has {} values, at most {VALUES_MAX}", measured.values)));
    }
    if measured.levels > LEVELS_MAX {
        return Err(error(field, format!("is nested {} levels deep, at most {LEVELS_MAX}", measured.levels)));
    }
    if measured.has_huge {
        return Err(error(field, format!("has a number beyond {NUMBER_MAX:e}")));
    }
    let bytes = text.len() + measured.written_out;
    if bytes > most {
        return Err(error(field, format!("{bytes} bytes, at most {most}")));
    }
    // serde_json writes NUL as this escape. An escaped backslash before `u0000` is not one.
    let has_nul = text.replace("\\\\", "").contains("\\u0000");
    if has_nul { Err(error(field, "must not contain NUL")) } else { Ok(()) }
}

/// What a JSON value costs its readers.
#[derive(Debug, Default)]
struct Measured {
    levels: usize,
    values: usize,
    /// Bytes of numbers written out, as the database writes them: `1e300` has 301 digits.
    written_out: usize,
    has_huge: bool,
}

impl Measured {
    /// Adds a value inside `levels` arrays and objects. The depth of the recursion is that of the parser, 128.
    fn add(&mut self, value: &Value, levels: usize) {
        self.values += 1;
        match value {
            Value::Array(items) => {
                self.levels = self.levels.max(levels + 1);
                for item in items {
                    self.add(item, levels + 1);
                }
            }
            Value::Object(members) => {
                self.levels = self.levels.max(levels + 1);
                for member in members.values() {
                    self.add(member, levels + 1);
                }
            }
            Value::Number(number) if number.is_f64() => {
                let number = number.as_f64().unwrap_or(f64::INFINITY);
                self.has_huge |= number.abs() > NUMBER_MAX;
                // After 10,000 values the value is refused for their number.
                if self.values <= VALUES_MAX {
                    self.written_out += number.to_string().len();
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

/// The unique key of a job: by its idempotency key, else by its type and source hash, else none. The SQL
/// function `quipu_job_key` computes the same.
#[must_use]
pub fn unique_key(
    job_type: &str,
    source_hash: Option<&str>,
    idempotency_key: Option<&str>,
) -> Option<[u8; 32]> {
    // Each part is preceded by its length, so that no two jobs have the same text.
    let text = match (idempotency_key, source_hash) {
        (Some(key), _) => format!("key {} {key}", key.len()),
        (None, Some(hash)) => format!("source {} {job_type} {hash}", job_type.len()),
        (None, None) => return None,
    };
    Some(Sha256::digest(text.as_bytes()).into())
}

/// The unique key of the job that a schedule submits for a time, in seconds since 1970. It contains the reserved type, so
/// no client can submit a job with it.
#[must_use]
pub fn scheduled_key(name: &str, step: i32, due: i64) -> Option<[u8; 32]> {
    unique_key(SCHEDULE, Some(&format!("{step} {due} {name}")), None)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FIELDS: SubmissionFields<'static> = SubmissionFields {
        job_type: "pdf",
        source_hash: Some("abc"),
        source_path: None,
        source_size: None,
        priority: 3,
        attempts_max: 3,
        idempotency_key: None,
        tags: None,
        metadata: None,
        depends_on: &[],
    };

    fn field_of(fields: SubmissionFields<'_>) -> &'static str {
        check_submission(&fields).unwrap_err().field
    }

    #[test]
    fn each_field_has_its_limits() {
        let checked = CheckedNumbers { priority: 3, attempts_max: 3 };
        assert_eq!(check_submission(&FIELDS), Ok(checked));
        assert_eq!(field_of(SubmissionFields { job_type: "", ..FIELDS }), "type");
        for reserved in ["quipu.webhook", "quipu.webhook.billing"] {
            assert_eq!(field_of(SubmissionFields { job_type: reserved, ..FIELDS }), "type");
        }
        let near = SubmissionFields { job_type: "quipu.webhooks", ..FIELDS };
        assert_eq!(check_submission(&near), Ok(checked));
        let long = "x".repeat(257);
        assert_eq!(field_of(SubmissionFields { job_type: &long, ..FIELDS }), "type");
        assert_eq!(field_of(SubmissionFields { source_hash: Some(&long), ..FIELDS }), "source_hash");
        assert_eq!(field_of(SubmissionFields { idempotency_key: Some("a\0"), ..FIELDS }), "idempotency_key");
        assert_eq!(field_of(SubmissionFields { source_size: Some(-1), ..FIELDS }), "source_size");
        assert_eq!(field_of(SubmissionFields { priority: 6, ..FIELDS }), "priority");
        assert_eq!(field_of(SubmissionFields { attempts_max: 101, ..FIELDS }), "max_attempts");
        let large = json!("x".repeat(5_000));
        assert_eq!(field_of(SubmissionFields { tags: Some(&large), ..FIELDS }), "tags");
        assert_eq!(check_submission(&SubmissionFields { metadata: Some(&large), ..FIELDS }), Ok(checked));
        assert_eq!(field_of(SubmissionFields { depends_on: &[1; 65], ..FIELDS }), "depends_on");
    }

    #[test]
    fn nul_is_refused_and_its_escape_in_a_text_is_not() {
        let check = |value: Value| check_json("metadata", &value, 100).is_ok();
        assert!(!check(json!({ "a": "x\0" })));
        assert!(!check(json!({ "\0": 1 })));
        assert!(check(json!("\\u0000")));
        assert!(!check(json!("\\\0")));
    }

    #[test]
    fn a_value_that_some_reader_cannot_take_is_refused() {
        let check = |value: &Value| check_json("metadata", value, 262_144).map_err(|error| error.problem);
        let nested = |levels| (0..levels).fold(json!(1), |inner, _| json!([inner]));
        assert_eq!(check(&nested(64)), Ok(()));
        assert_eq!(check(&nested(65)), Err("is nested 65 levels deep, at most 64".to_owned()));
        let members = |levels| (0..levels).fold(json!(1), |inner, _| json!({ "a": inner }));
        assert!(check(&members(64)).is_ok() && check(&members(65)).is_err());
        assert_eq!(check(&json!(vec![0; 9_999])), Ok(()));
        assert_eq!(check(&json!(vec![0; 10_000])), Err("has 10001 values, at most 10000".to_owned()));
        assert_eq!(check(&json!([1e300, -1e300, 1e-300, 0.1, u64::MAX])), Ok(()));
        assert_eq!(check(&json!([-1.1e300])), Err("has a number beyond 1e300".to_owned()));
        // The database writes each with 301 digits.
        assert!(check(&json!(vec![1e300; 9_000])).unwrap_err().ends_with("bytes, at most 262144"));
    }

    #[test]
    fn jobs_differ_in_their_keys_unless_they_are_the_same() {
        let key = |job_type, hash, key| unique_key(job_type, hash, key);
        assert_eq!(key("pdf", None, None), None);
        let keys = [
            key("pdf", Some("a"), None),
            key("pdf", Some("b"), None),
            key("image", Some("a"), None),
            key("pdf a", Some("a"), None),
            key("pdf", Some("a a"), None),
            key("pdf", Some("a"), Some("k")),
            key("pdf", None, Some("source 3 pdf a")),
        ];
        for (place, one) in keys.iter().enumerate() {
            assert!(one.is_some() && keys.iter().skip(place + 1).all(|other| other != one), "{place}");
        }
        assert_eq!(key("pdf", Some("a"), Some("k")), key("image", None, Some("k")));
    }
}
