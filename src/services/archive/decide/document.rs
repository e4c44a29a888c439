//! Reads the information document of a relay (NIP-11), however malformed it is.

use serde_json::{Map, Value, json};

use super::failure::Failure;
use super::storable::{has_nul, storable, without_nul};

/// Media type required by NIP-11.
const MEDIA_TYPE: &str = "application/nostr+json";

const CONTENT_TYPE_MAX: usize = 100;

/// A document that can be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Its fields as the relay sent them, of any type.
    pub fields: Map<String, Value>,
    /// Deviations: `content_type` when it is not the one of NIP-11, `replaced` for what could not be stored.
    pub oddities: Map<String, Value>,
}

/// Reads an answer. A JSON object is kept as it is, whatever the types of its fields; anything else is a
/// failure.
///
/// # Errors
/// `http_status`, `not_json` or `not_an_object`.
pub fn document(status: u16, content_type: Option<&str>, body: &[u8]) -> Result<Document, Failure> {
    if !(200..300).contains(&status) {
        return Err(Failure::new("http_status", &format!("status {status}")));
    }
    let text = String::from_utf8_lossy(body);
    let text = text.trim_start_matches('\u{feff}').trim();
    let mut replaced = Vec::new();
    let parsed = serde_json::from_str(text).or_else(|error| match holdable(text) {
        (text, found) if !found.is_empty() => {
            replaced = found;
            serde_json::from_str(&text)
        }
        _ => Err(error),
    });
    let mut fields = match parsed {
        Ok(Value::Object(fields)) => fields,
        Ok(_) => return Err(Failure::new("not_an_object", "JSON, but not an object")),
        Err(_) if text.starts_with('<') => return Err(Failure::new("not_json", "HTML or XML, not JSON")),
        Err(error) => return Err(Failure::new("not_json", &error.to_string())),
    };
    let mut oddities = Map::new();
    if !content_type.is_some_and(|found| has_media_type(found, MEDIA_TYPE)) {
        let found: Option<String> = content_type.map(|found| without_nul(found, CONTENT_TYPE_MAX));
        oddities.insert("content_type".to_owned(), found.into());
    }
    if has_nul(&fields) {
        fields = storable(fields);
        replaced.push("nul");
    }
    if std::str::from_utf8(body).is_err() {
        replaced.push("not_utf8");
    }
    if !replaced.is_empty() {
        oddities.insert("replaced".to_owned(), json!(replaced));
    }
    Ok(Document { fields, oddities })
}

/// Replaces what JSON allows and `serde_json` values cannot hold: escapes of lone surrogates by U+FFFD
/// (`surrogate`), numbers beyond the range of a double by null (`number`). Also returns the names of what was
/// replaced.
fn holdable(text: &str) -> (String, Vec<&'static str>) {
    let (mut kept, mut replaced) = (String::with_capacity(text.len()), Vec::new());
    let (mut rest, mut is_string) = (text, false);
    while let Some(first) = rest.chars().next() {
        let (length, instead) = match first {
            '\\' if is_string => escape(rest),
            '-' | '0'..='9' if !is_string => number(rest),
            _ => (first.len_utf8(), None),
        };
        is_string ^= first == '"';
        let (token, after) = rest.split_at(length);
        match instead {
            Some((word, instead)) => {
                kept.push_str(instead);
                if !replaced.contains(&word) {
                    replaced.push(word);
                }
            }
            None => kept.push_str(token),
        }
        rest = after;
    }
    (kept, replaced)
}

/// The name of a replacement, and the text that replaces the token.
type Replacement = Option<(&'static str, &'static str)>;

/// The length of the escape at the start of `text`, and its replacement.
fn escape(text: &str) -> (usize, Replacement) {
    let unit = |from: usize| {
        let digits = text.get(from..)?.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    match (unit(0), unit(6)) {
        (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (12, None),
        (Some(0xd800..=0xdfff), _) => (6, Some(("surrogate", "\\ufffd"))),
        _ => (1 + text[1..].chars().next().map_or(0, char::len_utf8), None),
    }
}

/// The length of the number at the start of `text`, and its replacement.
fn number(text: &str) -> (usize, Replacement) {
    let length = text.find(|c: char| !(c.is_ascii_digit() || "+-.eE".contains(c))).unwrap_or(text.len());
    let is_beyond = text[..length].parse::<f64>().is_ok_and(f64::is_infinite);
    (length, is_beyond.then_some(("number", "null")))
}

/// True if a content type is this media type, with any parameters.
fn has_media_type(content_type: &str, wanted: &str) -> bool {
    content_type.split(';').next().is_some_and(|found| found.trim().eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: Option<&str> = Some("application/nostr+json; charset=utf-8");

    fn reason(status: u16, body: &[u8]) -> &'static str {
        document(status, RIGHT, body).unwrap_err().reason
    }

    #[test]
    fn n_11_1_a_document_with_its_media_type_has_nothing_odd() {
        let found = document(200, RIGHT, br#"{"name":"a","supported_nips":[1,11]}"#).unwrap();
        assert_eq!(Value::Object(found.fields), json!({ "name": "a", "supported_nips": [1, 11] }));
        assert!(found.oddities.is_empty());
    }

    #[test]
    fn n_11_3_wrong_types_are_kept_as_they_are() {
        let odd = br#"{"name":7,"supported_nips":["1","x"],"limitation":null,"what":{"a":[true]}}"#;
        let found = document(200, RIGHT, odd).unwrap();
        assert_eq!(Value::Object(found.fields), serde_json::from_slice::<Value>(odd).unwrap());
    }

    #[test]
    fn n_11_3_a_wrong_content_type_is_noted_and_no_obstacle() {
        let found = document(200, Some("text/html\0"), b"{}").unwrap();
        assert_eq!(Value::Object(found.oddities), json!({ "content_type": "text/html\u{2400}" }));
        assert_eq!(
            Value::Object(document(200, None, b"{}").unwrap().oddities),
            json!({ "content_type": null })
        );
    }

    #[test]
    fn n_11_3_what_is_no_object_is_a_failure_with_its_reason() {
        assert_eq!(reason(200, b"<html>hello"), "not_json");
        assert_eq!(reason(200, b""), "not_json");
        assert_eq!(reason(200, b"[1]"), "not_an_object");
        assert_eq!(reason(200, b"\"a\""), "not_an_object");
        assert_eq!(reason(404, b"{}"), "http_status");
        assert_eq!(reason(200, "[".repeat(100_000).as_bytes()), "not_json");
        assert_eq!(reason(200, br#"{"a":1e}"#), "not_json");
    }

    #[test]
    fn n_11_3_what_json_allows_and_we_cannot_hold_costs_its_value_alone() {
        let odd = br#"{"name":"n \"1e999","a":1e999,"b":[-1e400,2],"c":"\ud800 \ud83d\ude00 \udc00x","\udfff":"\\ud800"}"#;
        let found = document(200, RIGHT, odd).unwrap();
        assert_eq!(
            Value::Object(found.fields),
            json!({
                "name": "n \"1e999", "a": null, "b": [null, 2], "c": "\u{fffd} \u{1f600} \u{fffd}x", "\u{fffd}": "\\ud800"
            })
        );
        assert_eq!(Value::Object(found.oddities), json!({ "replaced": ["number", "surrogate"] }));
    }

    #[test]
    fn what_postgresql_cannot_hold_is_replaced_and_noted() {
        let found = document(200, RIGHT, br#"{"na\u0000me":"a\u0000b","x":[{"y":"\u0000"}]}"#).unwrap();
        assert_eq!(
            Value::Object(found.fields),
            json!({ "na\u{2400}me": "a\u{2400}b", "x": [{ "y": "\u{2400}" }] })
        );
        assert_eq!(Value::Object(found.oddities), json!({ "replaced": ["nul"] }));
        let found = document(200, RIGHT, b"\xef\xbb\xbf{\"name\":\"\xff\"}").unwrap();
        assert_eq!(found.fields["name"], "\u{fffd}");
        assert_eq!(Value::Object(found.oddities), json!({ "replaced": ["not_utf8"] }));
    }
}
