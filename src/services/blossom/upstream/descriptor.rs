//! Descriptors as upstreams write them (BUD-02): read leniently, compared strictly.

use serde::Deserialize;
use serde_json::Value;

use super::{Accepted, RemoteDescriptor, UpstreamError};
use crate::base::Sha256;

/// Longest text of a field that is kept, bytes.
const TEXT_BYTES_MAX: usize = 2_048;

/// Most entries of a list that are read.
const LIST_MAX: usize = 10_000;

#[derive(Deserialize)]
struct Written {
    sha256: Sha256,
    #[serde(default)]
    size: Value,
    #[serde(default, rename = "type")]
    media_type: Value,
    #[serde(default)]
    url: Value,
    #[serde(default)]
    uploaded: Value,
}

impl From<Written> for RemoteDescriptor {
    fn from(written: Written) -> Self {
        let text = |value: Value| match value {
            Value::String(text) if text.len() <= TEXT_BYTES_MAX => Some(text),
            _ => None,
        };
        // Some write numbers as strings.
        let size = written.size.as_u64().or_else(|| written.size.as_str()?.parse().ok());
        Self {
            sha256: written.sha256,
            size,
            media_type: text(written.media_type),
            url: text(written.url),
            uploaded: written.uploaded.as_i64(),
        }
    }
}

/// Reads the answer to an upload or a mirror request: it names the blob that was sent, or says nothing.
pub(super) fn accepted(
    status: u16,
    body: &[u8],
    sha256: Sha256,
    size: Option<u64>,
) -> Result<Accepted, UpstreamError> {
    let is_new = status == 201;
    if body.trim_ascii().is_empty() {
        return Ok(Accepted { is_new, descriptor: None });
    }
    let descriptor = read(status, body)?;
    if descriptor.sha256 != sha256 {
        return Err(UpstreamError::wrong(Some(status), "it answered with another hash"));
    }
    if let (Some(ours), Some(theirs)) = (size, descriptor.size)
        && ours != theirs
    {
        return Err(UpstreamError::wrong(Some(status), "it answered with another size"));
    }
    Ok(Accepted { is_new, descriptor: Some(descriptor) })
}

/// Reads a descriptor.
///
/// # Errors
/// The body is none.
pub fn read(status: u16, body: &[u8]) -> Result<RemoteDescriptor, UpstreamError> {
    let written: Result<Written, _> = serde_json::from_slice(body);
    let no_descriptor = |_| UpstreamError::wrong(Some(status), "its answer is no descriptor");
    written.map(RemoteDescriptor::from).map_err(no_descriptor)
}

/// Reads a list. Entries that are no descriptors are left out.
///
/// # Errors
/// The body is no list.
pub fn list(status: u16, body: &[u8]) -> Result<Vec<RemoteDescriptor>, UpstreamError> {
    let entries: Result<Vec<Value>, _> = serde_json::from_slice(body);
    let entries = entries.map_err(|_| UpstreamError::wrong(Some(status), "its answer is no list"))?;
    let read = |entry: Value| serde_json::from_value::<Written>(entry).ok().map(RemoteDescriptor::from);
    Ok(entries.into_iter().filter_map(read).take(LIST_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob() -> Sha256 {
        Sha256::of(b"blob")
    }

    #[test]
    fn an_answer_names_the_blob_that_was_sent_or_nothing() {
        let ours = format!(r#"{{"sha256":"{}","size":4,"type":"text/plain","url":"https://h/x"}}"#, blob());
        let taken = accepted(201, ours.as_bytes(), blob(), Some(4)).unwrap();
        assert!(taken.is_new && taken.descriptor.is_some_and(|descriptor| descriptor.size == Some(4)));
        let nothing = accepted(202, b" \n", blob(), Some(4)).unwrap();
        assert_eq!(nothing, Accepted { is_new: false, descriptor: None });
        for (body, size) in [
            (format!(r#"{{"sha256":"{}"}}"#, Sha256::of(b"other")), Some(4)),
            (ours, Some(5)),
            ("OK".to_owned(), None),
            ("[]".to_owned(), None),
            (r#"{"sha256":"12"}"#.to_owned(), None),
        ] {
            let refused = accepted(200, body.as_bytes(), blob(), size);
            assert!(refused.is_err_and(|error| !error.is_clients_fault), "{body}");
        }
    }

    #[test]
    fn an_old_descriptor_is_read_whatever_its_nip94_is() {
        for nip94 in [r#"{"x":"y"}"#, r#"[["x","y"]]"#] {
            let written = format!(r#"{{"sha256":"{}","size":"4","nip94":{nip94},"uploaded":7}}"#, blob());
            let found = read(200, written.as_bytes()).unwrap();
            assert_eq!((found.size, found.uploaded, found.media_type), (Some(4), Some(7), None));
        }
    }

    #[test]
    fn entries_of_a_list_that_are_none_are_left_out() {
        let written = format!(r#"[{{"sha256":"{}"}},{{"sha256":"no"}},7]"#, blob());
        assert_eq!(list(200, written.as_bytes()).unwrap().len(), 1);
        assert!(list(200, b"{}").is_err());
    }
}
