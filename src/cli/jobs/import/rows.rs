//! Rows of BlobForge as what is stored here. SQLite columns hold values of any type: JSON is stored as bytes
//! or as text, times as text or as seconds.

use chrono::{DateTime, Datelike as _, NaiveDateTime, Utc};
use rusqlite::Row;
use rusqlite::types::ValueRef;
use serde_json::{Value, json};

use crate::base::JOB_ATTEMPTS_MAX;
use crate::services::jobs::command::ImportedJob;
use crate::services::jobs::decide::{
    self, DETAIL_BYTES_MAX, NAME_BYTES_MAX, PRIORITY_DEFAULT, PRIORITY_FIRST, PRIORITY_LAST, Scope,
    SubmissionFields, TYPE_BYTES_MAX, WORKER_METADATA_BYTES_MAX, check_detail, check_not_reserved,
    check_submission, check_text, imported_state, unique_key,
};
use crate::services::jobs::event::{ImportedFacts, ImportedFile};

/// Most files of a job that are recorded.
pub(super) const FILES_MAX: usize = 64;

/// A row that is not imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) table: &'static str,
    pub(super) id: String,
    pub(super) reason: String,
}

impl Refused {
    pub(super) fn new(table: &'static str, id: &dyn ToString, reason: impl Into<String>) -> Self {
        Self { table, id: id.to_string(), reason: reason.into() }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({ "refused": { "table": self.table, "id": self.id, "reason": self.reason } })
    }
}

/// A worker.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct WorkerRow {
    pub(super) id: String,
    pub(super) job_type: String,
    pub(super) name: Option<String>,
    pub(super) metadata: Option<Value>,
    pub(super) secret_sha256: Option<[u8; 32]>,
    pub(super) is_enabled: bool,
}

/// An API token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TokenRow {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) sha256: [u8; 32],
    pub(super) is_admin: bool,
    pub(super) scopes: Vec<String>,
    pub(super) expires_at: Option<DateTime<Utc>>,
}

type Read<T> = Result<T, String>;

fn value<'r>(row: &'r Row<'_>, name: &str) -> Read<ValueRef<'r>> {
    row.get_ref(name).map_err(|error| format!("{name}: {error}"))
}

/// A text; `None` for NULL and for an empty one.
fn text(row: &Row<'_>, name: &str) -> Read<Option<String>> {
    let text = match value(row, name)? {
        ValueRef::Null => return Ok(None),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            std::str::from_utf8(bytes).map_err(|_| format!("{name}: is not UTF-8"))?.to_owned()
        }
    };
    Ok((!text.is_empty()).then_some(text))
}

fn integer(row: &Row<'_>, name: &str) -> Read<Option<i64>> {
    match value(row, name)? {
        ValueRef::Null => Ok(None),
        ValueRef::Integer(number) => Ok(Some(number)),
        _ => {
            let text = text(row, name)?.unwrap_or_default();
            text.parse().map(Some).map_err(|_| format!("{name}: `{}` is not a whole number", cut(&text, 40)))
        }
    }
}

fn json_of(row: &Row<'_>, name: &str) -> Read<Option<Value>> {
    let Some(text) = text(row, name)? else { return Ok(None) };
    let value: Value =
        serde_json::from_str(&text).map_err(|error| format!("{name}: is not JSON: {error}"))?;
    Ok((!value.is_null()).then_some(value))
}

/// A time between 1970 and the year 9999, which the database and all its readers can hold.
fn time(row: &Row<'_>, name: &str) -> Read<Option<DateTime<Utc>>> {
    match any_time(row, name)? {
        Some(time) if !(1970..=9999).contains(&time.year()) => {
            Err(format!("{name}: the year {} is not between 1970 and 9999", time.year()))
        }
        time => Ok(time),
    }
}

/// A time: SQLite's text, that of Go's driver with a zone, or seconds since 1970.
fn any_time(row: &Row<'_>, name: &str) -> Read<Option<DateTime<Utc>>> {
    if let ValueRef::Integer(seconds) = value(row, name)? {
        let time = DateTime::from_timestamp(seconds, 0);
        return time.map(Some).ok_or_else(|| format!("{name}: {seconds} is not a time"));
    }
    let Some(text) = text(row, name)? else { return Ok(None) };
    let plain = text.replacen('T', " ", 1);
    let zoned = ["%Y-%m-%d %H:%M:%S%.f%:z", "%Y-%m-%d %H:%M:%S%.f %z"];
    let zoned = zoned.iter().find_map(|form| DateTime::parse_from_str(&plain, form).ok());
    let parsed = zoned.map(|time| time.to_utc()).or_else(|| {
        let utc = plain.strip_suffix('Z').unwrap_or(&plain);
        NaiveDateTime::parse_from_str(utc, "%Y-%m-%d %H:%M:%S%.f").ok().map(|time| time.and_utc())
    });
    parsed.map(Some).ok_or_else(|| format!("{name}: `{}` is not a time", cut(&text, 40)))
}

fn sha256(row: &Row<'_>, name: &str) -> Read<Option<[u8; 32]>> {
    let Some(text) = text(row, name)? else { return Ok(None) };
    let mut hash = [0; 32];
    hex::decode_to_slice(text, &mut hash).map_err(|_| format!("{name}: is not 64 hex digits"))?;
    Ok(Some(hash))
}

fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// A job with its state. Priorities and numbers of attempts that are out of range here become the nearest ones.
pub(super) fn job(row: &Row<'_>, files: Vec<ImportedFile>) -> Read<ImportedJob> {
    let id = integer(row, "id")?.unwrap_or_default();
    let job_type = text(row, "type")?.unwrap_or_default();
    let source_hash = text(row, "source_hash")?.unwrap_or_default();
    let source_path = text(row, "source_path")?;
    let source_size = integer(row, "source_size")?.filter(|size| *size > 0);
    let priority = integer(row, "priority")?.unwrap_or(PRIORITY_DEFAULT.into());
    let priority = priority.clamp(PRIORITY_FIRST.into(), PRIORITY_LAST.into());
    let attempts_max = integer(row, "max_attempts")?.unwrap_or(3).clamp(1, i64::from(JOB_ATTEMPTS_MAX));
    let (tags, metadata, result) =
        (json_of(row, "tags")?, json_of(row, "metadata")?, json_of(row, "result")?);
    let fields = SubmissionFields {
        job_type: &job_type,
        source_hash: Some(&source_hash),
        source_path: source_path.as_deref(),
        source_size,
        priority,
        attempts_max,
        idempotency_key: None,
        tags: tags.as_ref(),
        metadata: metadata.as_ref(),
        depends_on: &[],
    };
    let numbers = check_submission(&fields).map_err(|error| error.to_string())?;
    check_detail("result", result.as_ref(), DETAIL_BYTES_MAX).map_err(|error| error.to_string())?;
    let there = text(row, "status")?.unwrap_or_default();
    let state = imported_state(&there, integer(row, "attempts")?.unwrap_or_default(), numbers.attempts_max);
    let state = state.ok_or_else(|| format!("status: `{}` is unknown", cut(&there, 40)))?;
    let created_at = time(row, "created_at")?;
    let facts = ImportedFacts {
        id,
        status: there,
        created_at,
        started_at: time(row, "started_at")?,
        completed_at: time(row, "completed_at")?,
        result,
        output_path: text(row, "output_path")?,
        files,
    };
    let facts = serde_json::to_value(facts).map_err(|error| error.to_string())?;
    check_detail("files", Some(&facts), 2 * DETAIL_BYTES_MAX).map_err(|error| error.to_string())?;
    let error = text(row, "last_error")?;
    let worker = text(row, "worker_id")?;
    Ok(ImportedJob {
        unique_key: unique_key(&job_type, Some(&source_hash), None).ok_or("source_hash: is required")?,
        job_type,
        priority: numbers.priority,
        attempts_max: numbers.attempts_max,
        source_hash,
        source_path,
        source_size,
        tags,
        metadata,
        status: state.status,
        attempts: state.attempts,
        failures: state.failures,
        ready_us: ready_us(created_at, id),
        worker: worker.filter(|worker| check_text("worker_id", worker, NAME_BYTES_MAX).is_ok()),
        error: error.as_deref().map(decide::cut),
        facts,
    })
}

/// The time of the submission, microseconds since 1970. The original knows it to the second: jobs of one second
/// are put apart in the order of their ids.
fn ready_us(created_at: Option<DateTime<Utc>>, id: i64) -> i64 {
    const SECOND: i64 = 1_000_000;
    created_at.map_or(0, |at| at.timestamp()) * SECOND + id.rem_euclid(SECOND)
}

/// A file. What is not text is left out.
pub(super) fn file(row: &Row<'_>) -> ImportedFile {
    let get = |name| text(row, name).ok().flatten().map(|text| text.replace('\0', "\u{2400}"));
    ImportedFile {
        r#type: get("type").unwrap_or_default(),
        key: get("s3_key").unwrap_or_default(),
        size: integer(row, "size").ok().flatten(),
        content_type: get("content_type"),
        checksum: get("checksum"),
    }
}

/// A worker.
pub(super) fn worker(row: &Row<'_>) -> Result<WorkerRow, Refused> {
    let id = text(row, "id").ok().flatten().unwrap_or_default();
    let read = || -> Read<WorkerRow> {
        let job_type = text(row, "type")?.unwrap_or_default();
        let (name, metadata) = (text(row, "name")?, json_of(row, "metadata")?);
        check_text("id", &id, NAME_BYTES_MAX)
            .and_then(|()| check_not_reserved("id", &id))
            .and_then(|()| check_text("type", &job_type, TYPE_BYTES_MAX))
            .and_then(|()| name.as_deref().map_or(Ok(()), |name| check_text("name", name, NAME_BYTES_MAX)))
            .and_then(|()| check_detail("metadata", metadata.as_ref(), WORKER_METADATA_BYTES_MAX))
            .map_err(|error| error.to_string())?;
        let secret_sha256 = sha256(row, "secret_hash")?;
        let is_enabled = integer(row, "enabled")?.is_none_or(|enabled| enabled != 0);
        Ok(WorkerRow { id: id.clone(), job_type, name, metadata, secret_sha256, is_enabled })
    };
    read().map_err(|reason| Refused::new("workers", &cut(&id, 80), reason))
}

/// An API token. The original never looked at scopes; a token with a scope that is unknown here is refused, rather
/// than given more or less than was meant.
pub(super) fn token(row: &Row<'_>) -> Result<TokenRow, Refused> {
    let id = integer(row, "id").ok().flatten().unwrap_or_default();
    let read = || -> Read<TokenRow> {
        let name = text(row, "name")?.unwrap_or_default();
        check_text("name", &name, NAME_BYTES_MAX).map_err(|error| error.to_string())?;
        let sha256 = sha256(row, "token_hash")?.ok_or("token_hash: is required")?;
        let scopes = json_of(row, "scopes")?.unwrap_or_else(|| json!([]));
        let scopes: Vec<String> =
            serde_json::from_value(scopes).map_err(|_| "scopes: is not a list of words".to_owned())?;
        if let Some(unknown) = scopes.iter().find(|scope| Scope::parse(scope).is_none()) {
            return Err(format!("scopes: `{}` is unknown", cut(unknown, 40)));
        }
        let is_admin = integer(row, "is_admin")?.is_some_and(|is_admin| is_admin != 0);
        Ok(TokenRow { id, name, sha256, is_admin, scopes, expires_at: time(row, "expires_at")? })
    };
    read().map_err(|reason| Refused::new("api_tokens", &id, reason))
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    fn of<T>(columns: &str, take: impl FnOnce(&Row<'_>) -> T) -> T {
        let connection = Connection::open_in_memory().unwrap();
        connection.query_row(&format!("-- one_row\nSELECT {columns}"), [], |row| Ok(take(row))).unwrap()
    }

    #[test]
    fn times_are_read_in_every_form_in_which_drivers_write_them() {
        let seconds = |text: &str| {
            of(&format!("{text} AS t"), |row| time(row, "t")).map(|time| time.map(|time| time.timestamp()))
        };
        for text in [
            "'2023-11-14 22:13:20'",
            "'2023-11-14 23:13:20.5+01:00'",
            "'2023-11-14T22:13:20Z'",
            "'2023-11-14 22:13:20.123456789 +0000'",
            "1700000000",
        ] {
            assert_eq!(seconds(text), Ok(Some(1_700_000_000)), "{text}");
        }
        assert_eq!(seconds("NULL"), Ok(None));
        for far in
            ["-8334601228800", "-1", "'-0044-03-15 12:00:00'", "'+10000-01-01 00:00:00'", "253402300800"]
        {
            assert!(seconds(far).is_err(), "{far}");
        }
        assert!(seconds("'yesterday'").unwrap_err().contains("t: `yesterday` is not a time"));
    }

    #[test]
    fn json_is_read_from_bytes_and_from_text() {
        let read = |column: &str| of(&format!("{column} AS j"), |row| json_of(row, "j"));
        assert_eq!(read("CAST('[\"a\"]' AS BLOB)"), Ok(Some(json!(["a"]))));
        assert_eq!(read("'{\"a\": 1}'"), Ok(Some(json!({ "a": 1 }))));
        assert_eq!(read("'null'"), Ok(None));
        assert!(read("'{'").unwrap_err().starts_with("j: is not JSON"));
        assert!(read("x'ff'").unwrap_err().contains("not UTF-8"));
    }

    #[test]
    fn a_token_keeps_its_scopes_and_an_unknown_one_is_refused() {
        let hash = "ab".repeat(32);
        let read = |scopes: &str| {
            let columns = format!(
                "7 AS id, 'ci' AS name, '{hash}' AS token_hash, 0 AS is_admin, {scopes} AS scopes, NULL AS expires_at"
            );
            of(&columns, token)
        };
        assert_eq!(read("NULL").unwrap().scopes, Vec::<String>::new());
        assert_eq!(read("'[\"read\"]'").unwrap().scopes, ["read"]);
        let refused = read("'[\"jobs:write\"]'").unwrap_err();
        assert_eq!((refused.table, refused.id.as_str()), ("api_tokens", "7"));
        assert!(refused.reason.contains("jobs:write"), "{refused:?}");
    }

    #[test]
    fn jobs_of_one_second_keep_the_order_of_their_ids() {
        let at = DateTime::from_timestamp(1_700_000_000, 0);
        assert!(ready_us(at, 1) < ready_us(at, 2) && ready_us(at, 999_999) < 1_700_000_001_000_000);
    }
}
