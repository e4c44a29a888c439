//! Parses frames of clients.

use std::fmt;

use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::RawValue;
use thiserror::Error;

/// A frame of a client. Missing strings are empty, as in aethos-relay. No field is checked yet.
pub enum Inbound {
    /// Claims an identity. The first frame of a client.
    Hello {
        /// The claimed `wayfarer_id`.
        wayfarer_id: String,
        /// The device, which a second-generation client names. An empty name also makes it a
        /// second-generation client.
        device_id: Option<String>,
        /// Extension: the kind of key with which the client offers to prove the identity.
        auth: Option<String>,
        /// Extension: the client requests messages after this number, and the numbers of messages.
        since: Option<i64>,
    },
    /// Extension: the answer to a challenge, with one of two kinds of key.
    Auth {
        /// ed25519 public key, base64.
        public_key_b64: Option<String>,
        /// Signature of the challenge by this key, base64.
        signature_b64: Option<String>,
        /// A signed Nostr event (NIP-42), unparsed.
        event: Option<Box<RawValue>>,
    },
    /// Stores a message and forwards it.
    Send {
        /// The recipient's `wayfarer_id`.
        to: String,
        /// The payload, unchecked; see [`read_payload`](super::read_payload).
        payload_b64: String,
        /// Requested seconds to live.
        ttl_seconds: Option<i64>,
        /// The id that the sender chose (second generation).
        client_msg_id: Option<String>,
    },
    /// Acknowledges a message.
    Ack {
        /// The id of the message, unparsed.
        msg_id: String,
    },
    /// Requests waiting messages.
    Pull {
        /// Requested number of messages.
        limit: Option<i64>,
        /// Extension: only messages after this number.
        since: Option<i64>,
    },
    /// Extension: requests the delivery status of a message that the client sent.
    Status {
        /// The id of the message, unparsed.
        msg_id: String,
    },
    /// A frame of any other `type`, or of none.
    Unknown,
}

/// Shows the type only: the content of frames is private, and some of it is secret.
impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hello { .. } => "Hello",
            Self::Auth { .. } => "Auth",
            Self::Send { .. } => "Send",
            Self::Ack { .. } => "Ack",
            Self::Pull { .. } => "Pull",
            Self::Status { .. } => "Status",
            Self::Unknown => "Unknown",
        })
    }
}

/// The text is not a frame. The message gives the reason and quotes nothing of the text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// All fields of all frames. A field has the same type in every frame, and `null` counts as missing. Unknown
/// fields are ignored. A duplicate field is refused, because parsers differ in which value they take.
#[derive(Deserialize)]
struct Fields {
    #[serde(rename = "type")]
    frame: Option<String>,
    wayfarer_id: Option<String>,
    device_id: Option<String>,
    auth: Option<String>,
    since: Option<i64>,
    public_key_b64: Option<String>,
    signature_b64: Option<String>,
    event: Option<Box<RawValue>>,
    to: Option<String>,
    payload_b64: Option<String>,
    ttl_seconds: Option<i64>,
    client_msg_id: Option<String>,
    msg_id: Option<String>,
    limit: Option<i64>,
}

/// Parses one text frame. The caller limits its length.
pub fn parse(text: &str) -> Result<Inbound, Malformed> {
    // serde would also accept an array with the fields in their order.
    if !text.trim_start().starts_with('{') {
        return Err(Malformed("not a JSON object".to_owned()));
    }
    let fields: Fields = serde_json::from_str(text).map_err(|error| malformed(text, &error))?;
    Ok(match fields.frame.as_deref() {
        Some("hello") => Inbound::Hello {
            wayfarer_id: fields.wayfarer_id.unwrap_or_default(),
            device_id: fields.device_id,
            auth: fields.auth,
            since: fields.since,
        },
        Some("auth") => Inbound::Auth {
            public_key_b64: fields.public_key_b64,
            signature_b64: fields.signature_b64,
            event: fields.event,
        },
        Some("send") => Inbound::Send {
            to: fields.to.unwrap_or_default(),
            payload_b64: fields.payload_b64.unwrap_or_default(),
            ttl_seconds: fields.ttl_seconds,
            client_msg_id: fields.client_msg_id,
        },
        Some("ack") => Inbound::Ack { msg_id: fields.msg_id.unwrap_or_default() },
        Some("pull") => Inbound::Pull { limit: fields.limit, since: fields.since },
        Some("status") => Inbound::Status { msg_id: fields.msg_id.unwrap_or_default() },
        _ => Inbound::Unknown,
    })
}

/// serde's messages quote the input at any length, so they are replaced. The text is parsed a second time to
/// find the field, which valid frames need not pay for.
fn malformed(text: &str, error: &serde_json::Error) -> Malformed {
    let what = match error.classify() {
        Category::Data => {
            let mut parser = serde_json::Deserializer::from_str(text);
            let place = serde_path_to_error::deserialize::<_, Fields>(&mut parser)
                .err()
                .map(|error| error.path().to_string())
                .filter(|path| path != ".");
            match place {
                Some(field) => format!("{field} has the wrong type"),
                None => "a field is duplicated".to_owned(),
            }
        }
        Category::Io | Category::Syntax | Category::Eof => "not JSON".to_owned(),
    };
    Malformed(format!("{what} (line {}, column {})", error.line(), error.column()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_and_null_fields_are_empty() {
        for text in [
            r#"{"type":"hello"}"#,
            r#"{"type":"hello","wayfarer_id":null,"device_id":null,"auth":null,"since":null}"#,
        ] {
            assert!(
                matches!(parse(text), Ok(Inbound::Hello { wayfarer_id, device_id: None, auth: None, since: None }) if wayfarer_id.is_empty()),
                "{text}"
            );
        }
        for text in
            [r#"{"type":"send"}"#, r#"{"to":null,"payload_b64":null,"type":"send","ttl_seconds":null}"#]
        {
            assert!(
                matches!(parse(text), Ok(Inbound::Send { to, payload_b64, ttl_seconds: None, client_msg_id: None }) if to.is_empty() && payload_b64.is_empty()),
                "{text}"
            );
        }
        assert!(matches!(parse(r#"{"type":"ack"}"#), Ok(Inbound::Ack { msg_id }) if msg_id.is_empty()));
        assert!(matches!(
            parse(r#"{"type":"pull","limit":null}"#),
            Ok(Inbound::Pull { limit: None, since: None })
        ));
        assert!(matches!(
            parse(r#"{"type":"auth","event":null}"#),
            Ok(Inbound::Auth { public_key_b64: None, signature_b64: None, event: None })
        ));
    }

    #[test]
    fn an_empty_device_counts_as_named() {
        assert!(
            matches!(parse(r#"{"type":"hello","device_id":""}"#), Ok(Inbound::Hello { device_id: Some(device), .. }) if device.is_empty())
        );
    }

    #[test]
    fn any_other_type_is_unknown() {
        for text in [
            "{}",
            " \t\r\n{ }\n",
            r#"{"type":null}"#,
            r#"{"type":""}"#,
            r#"{"type":"Hello"}"#,
            r#"{"type":"relay_hello"}"#,
        ] {
            assert!(matches!(parse(text), Ok(Inbound::Unknown)), "{text}");
        }
    }

    #[test]
    fn unknown_fields_are_ignored_whatever_they_hold() {
        let deep = format!(r#"{{"type":"ack","x":{}{},"msg_id":"m"}}"#, "[".repeat(1000), "]".repeat(1000));
        for text in [r#"{"v":[{"type":"send"}],"type":"ack","msg_id":"m","type2":{}}"#, &*deep] {
            assert!(matches!(parse(text), Ok(Inbound::Ack { msg_id }) if msg_id == "m"), "{text}");
        }
    }

    #[test]
    fn an_event_is_kept_unparsed() {
        let text = r#"{"type":"auth","event": {"id" : "0",  "created_at":1e3} }"#;
        assert!(
            matches!(parse(text), Ok(Inbound::Auth { event: Some(event), .. }) if event.get() == r#"{"id" : "0",  "created_at":1e3}"#)
        );
    }

    #[test]
    fn numbers_are_integers_and_keep_their_value() {
        for (number, expected) in [
            ("-1", Some(-1)),
            ("0", Some(0)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
        ]
        .into_iter()
        .chain([("1.0", None), ("1e3", None), ("\"1\"", None), ("true", None)])
        {
            let found = match parse(&format!(r#"{{"type":"pull","limit":{number}}}"#)) {
                Ok(Inbound::Pull { limit, .. }) => limit,
                Ok(other) => panic!("{other:?}"),
                Err(Malformed(_)) => None,
            };
            assert_eq!(found, expected, "{number}");
        }
    }

    #[test]
    fn malformed_frames_are_refused_without_quoting_them() {
        let long = format!(r#"{{"type":"send","ttl_seconds":"{}"}}"#, "x".repeat(100_000));
        for (text, reason) in [
            ("", "not a JSON object"),
            ("null", "not a JSON object"),
            (r#"["hello","mallory"]"#, "not a JSON object"),
            ("{", "not JSON (line 1, column 1)"),
            (r#"{"type":"ack"} {}"#, "not JSON (line 1, column 16)"),
            (r#"{"type":"ack","msg_id":"\ud800"}"#, "not JSON (line 1, column "),
            (r#"{"type":5}"#, "type has the wrong type (line 1, column "),
            (r#"{"type":"ack","msg_id":"a","msg_id":"b"}"#, "a field is duplicated (line 1, column "),
            (r#"{"type":"ack","msg_id":7}"#, "msg_id has the wrong type (line 1, column "),
            (&*long, "ttl_seconds has the wrong type (line 1, column "),
        ] {
            let Malformed(found) = parse(text).unwrap_err();
            assert!(found.starts_with(reason) && found.len() < 100, "{text:.60}: {found}");
        }
    }

    #[test]
    fn debug_shows_nothing_of_a_frames_content() {
        let frame = parse(r#"{"type":"hello","wayfarer_id":"w","auth":"token"}"#).unwrap();
        assert_eq!(format!("{frame:?}"), "Hello");
    }
}
