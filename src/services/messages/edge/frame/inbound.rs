//! What a client says.

use std::fmt;

use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::RawValue;
use thiserror::Error;

/// A frame of a client. Strings that it leaves out are empty, as in the originals; none is checked yet.
pub enum Inbound {
    /// Who is there. The first frame.
    Hello {
        /// Who it says it is.
        wayfarer_id: String,
        /// Its device, which a client of the second generation names. An empty one is named, too: badly.
        device_id: Option<String>,
        /// Extension: a token that proves it.
        auth: Option<String>,
        /// Extension: the position after which it wants messages.
        since: Option<i64>,
    },
    /// Extension: the answer to a challenge, by one of two kinds of key.
    Auth {
        /// ed25519 public key, base64.
        public_key_b64: Option<String>,
        /// Its signature of the challenge, base64.
        signature_b64: Option<String>,
        /// A signed Nostr event (NIP-42), unparsed.
        event: Option<Box<RawValue>>,
    },
    /// Store this and forward it.
    Send {
        /// The recipient's `wayfarer_id`.
        to: String,
        /// As sent; [`read_payload`](super::read_payload) checks it.
        payload_b64: String,
        /// Seconds to live, as asked for.
        ttl_seconds: Option<i64>,
        /// The sender's own identity of the message (second generation).
        client_msg_id: Option<String>,
    },
    /// This device has the message.
    Ack {
        /// Which, as text.
        msg_id: String,
    },
    /// What is there for me?
    Pull {
        /// Messages at most, as asked for.
        limit: Option<i64>,
        /// Extension: only those after this position.
        since: Option<i64>,
    },
    /// Extension: what became of the message that I sent?
    Status {
        /// Which, as text.
        msg_id: String,
    },
    /// A frame of any other `type`, or of none.
    Unknown,
}

/// Says the type alone: what clients say is private, and some of it proves who they are.
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

/// The text is no frame. Says why in a few words, and nothing of the text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// All that frames may hold. A field has one type, whichever frame it is in; `null` counts as left out. Unknown fields are read
/// over, one that is there twice is refused: two readers would not agree on it.
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

/// Reads one text message. Its length is the caller's to bound.
pub fn parse(text: &str) -> Result<Inbound, Malformed> {
    // An array would do for serde: the fields in their order.
    if !text.trim_start().starts_with('{') {
        return Err(Malformed("not a JSON object".to_owned()));
    }
    let fields: Fields = serde_json::from_str(text).map_err(|error| malformed(&error))?;
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

/// serde's own words quote what they do not like, at any length.
fn malformed(error: &serde_json::Error) -> Malformed {
    let what = match error.classify() {
        Category::Data => "a field is there twice or of the wrong type",
        Category::Io | Category::Syntax | Category::Eof => "not JSON",
    };
    Malformed(format!("{what} (line {}, column {})", error.line(), error.column()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_or_null_is_empty() {
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
    fn an_empty_device_is_one_that_is_named() {
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
    fn unknown_fields_are_read_over_however_they_look() {
        let deep = format!(r#"{{"type":"ack","x":{}{},"msg_id":"m"}}"#, "[".repeat(1000), "]".repeat(1000));
        for text in [r#"{"v":[{"type":"send"}],"type":"ack","msg_id":"m","type2":{}}"#, &*deep] {
            assert!(matches!(parse(text), Ok(Inbound::Ack { msg_id }) if msg_id == "m"), "{text}");
        }
    }

    #[test]
    fn an_event_stays_as_it_was_signed() {
        let text = r#"{"type":"auth","event": {"id" : "0",  "created_at":1e3} }"#;
        assert!(
            matches!(parse(text), Ok(Inbound::Auth { event: Some(event), .. }) if event.get() == r#"{"id" : "0",  "created_at":1e3}"#)
        );
    }

    #[test]
    fn numbers_are_whole_and_keep_their_value() {
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
    fn what_is_no_frame_is_refused_in_few_words_that_are_ours() {
        let long = format!(r#"{{"type":"send","ttl_seconds":"{}"}}"#, "x".repeat(100_000));
        let wrong_type = "a field is there twice or of the wrong type (line 1, column ";
        for (text, reason) in [
            ("", "not a JSON object"),
            ("null", "not a JSON object"),
            (r#"["hello","mallory"]"#, "not a JSON object"),
            ("{", "not JSON (line 1, column 1)"),
            (r#"{"type":"ack"} {}"#, "not JSON (line 1, column 16)"),
            (r#"{"type":"ack","msg_id":"\ud800"}"#, "not JSON (line 1, column "),
            (r#"{"type":5}"#, wrong_type),
            (r#"{"type":"ack","msg_id":"a","msg_id":"b"}"#, wrong_type),
            (r#"{"type":"ack","msg_id":7}"#, wrong_type),
            (&*long, wrong_type),
        ] {
            let Malformed(found) = parse(text).unwrap_err();
            assert!(found.starts_with(reason) && found.len() < 100, "{text:.60}: {found}");
        }
    }

    #[test]
    fn nothing_of_a_frame_is_shown_by_debug() {
        let frame = parse(r#"{"type":"hello","wayfarer_id":"w","auth":"token"}"#).unwrap();
        assert_eq!(format!("{frame:?}"), "Hello");
    }
}
