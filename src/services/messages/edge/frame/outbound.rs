//! Renders frames for clients.

use std::num::NonZeroI64;

use chrono::{DateTime, Datelike as _, SecondsFormat};
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::Generation;

/// The zero time of the first generation, as Go writes it.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// A frame for a client.
#[derive(Debug, Clone, PartialEq)]
pub enum Outbound<'a> {
    /// Extension: asks the client to sign a challenge.
    Challenge {
        /// The text to sign with the other parts of the claim.
        challenge: &'a str,
        /// URL of this relay, which the proof must name.
        relay_id: &'a str,
    },
    /// The identity is accepted.
    HelloOk {
        /// Name of this relay. Not sent to the first generation.
        relay_id: &'a str,
    },
    /// The message is committed.
    SendOk {
        /// The relay's id of the message.
        msg_id: Uuid,
        /// Acceptance time, Unix seconds.
        received_at: i64,
        /// Expiry, Unix seconds. Not sent to the first generation.
        expires_at: i64,
    },
    /// A pushed message.
    Message(Delivered<'a>),
    /// The acknowledgement is committed.
    AckOk {
        /// The id as the client sent it.
        msg_id: &'a str,
    },
    /// The answer to `pull`.
    Messages(&'a [Delivered<'a>]),
    /// Extension: the delivery status of a message. The fields of an object stand beside `type`; any other
    /// value becomes the field `status`.
    Status(Value),
    /// A refusal.
    Error {
        /// The error code. Not sent to the first generation.
        code: ErrorCode,
        /// The message for people. An empty one is replaced by the code.
        message: &'a str,
    },
}

/// A message in the form for its recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered<'a> {
    /// The relay's id of the message.
    pub msg_id: Uuid,
    /// `wayfarer_id` of the sender.
    pub from: &'a str,
    /// `wayfarer_id` of the recipient, sent only in `messages` of the first generation.
    pub to: &'a str,
    /// The payload in the encoding of the recipient's generation: see
    /// [`for_recipient`](super::for_recipient).
    pub payload_b64: &'a str,
    /// Acceptance time, Unix seconds.
    pub received_at: i64,
    /// Extension: its number, sent only to clients that request it.
    pub position: Option<i64>,
}

/// The error codes of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// Not a valid `wayfarer_id`.
    InvalidWayfarerId,
    /// The envelope names another recipient than the frame.
    ToMismatch,
    /// The payload or the frame is invalid.
    InvalidPayload,
    /// The payload is longer than this relay accepts.
    PayloadTooLarge,
    /// Part of the protocol, but unused: a relay that stores messages does not need it.
    RecipientOffline,
    /// Too many requests in a unit of time.
    RateLimited,
    /// The identity is not proven, or the request is not allowed.
    AuthFailed,
    /// The `client_msg_id` was used for another message.
    IdempotencyMismatch,
    /// A quota is used up. The protocol has no code of its own for this.
    QuotaExceeded,
    /// The relay failed.
    InternalError,
}

impl ErrorCode {
    /// The code as the second generation spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidWayfarerId => "INVALID_WAYFARER_ID",
            Self::ToMismatch => "TO_MISMATCH",
            Self::InvalidPayload => "INVALID_PAYLOAD",
            Self::PayloadTooLarge => "PAYLOAD_TOO_LARGE",
            Self::RecipientOffline => "RECIPIENT_OFFLINE",
            Self::RateLimited | Self::QuotaExceeded => "RATE_LIMITED",
            Self::AuthFailed => "AUTH_FAILED",
            Self::IdempotencyMismatch => "IDEMPOTENCY_MISMATCH",
            Self::InternalError => "INTERNAL_ERROR",
        }
    }
}

/// All fields of frames, in the order in which aethos-relay writes them. As there, empty and zero fields are
/// left out.
#[derive(Default, Serialize)]
struct Fields<'a> {
    #[serde(rename = "type")]
    frame: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    code: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    challenge: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    relay_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    from: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    payload_b64: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    msg_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Entries<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<NonZeroI64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    received_at: Option<NonZeroI64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<NonZeroI64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<i64>,
}

/// The list in a `messages` frame.
#[derive(Serialize)]
#[serde(untagged)]
enum Entries<'a> {
    One(Vec<EntryOne<'a>>),
    Two(Vec<EntryTwo<'a>>),
}

/// The first generation lists messages in their stored form, with two fields (`expires_at`, `delivered`) that
/// are constant.
#[derive(Serialize)]
struct EntryOne<'a> {
    msg_id: Uuid,
    from: &'a str,
    to: &'a str,
    payload_b64: &'a str,
    at: String,
    expires_at: &'static str,
    delivered: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<i64>,
}

#[derive(Serialize)]
struct EntryTwo<'a> {
    msg_id: Uuid,
    from: &'a str,
    payload_b64: &'a str,
    received_at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<i64>,
}

#[derive(Serialize)]
struct Status<'a> {
    #[serde(rename = "type")]
    frame: &'a str,
    #[serde(flatten)]
    status: Map<String, Value>,
}

/// Renders a frame for a client of a generation.
#[must_use]
pub fn render(frame: &Outbound<'_>, generation: Generation) -> String {
    let is_second = generation == Generation::Two;
    let mut id = Uuid::encode_buffer();
    let fields = match frame {
        Outbound::Challenge { challenge, relay_id } => {
            Fields { frame: "challenge", challenge, relay_id, ..Fields::default() }
        }
        Outbound::HelloOk { relay_id } => {
            Fields { frame: "hello_ok", relay_id: if is_second { relay_id } else { "" }, ..Fields::default() }
        }
        Outbound::SendOk { msg_id, received_at, expires_at } => Fields {
            frame: "send_ok",
            msg_id: msg_id.hyphenated().encode_lower(&mut id),
            expires_at: NonZeroI64::new(*expires_at).filter(|_| is_second),
            ..Fields::accepted_at(*received_at, generation)
        },
        Outbound::Message(message) => Fields {
            frame: "message",
            from: message.from,
            payload_b64: message.payload_b64,
            msg_id: message.msg_id.hyphenated().encode_lower(&mut id),
            position: message.position,
            ..Fields::accepted_at(message.received_at, generation)
        },
        Outbound::AckOk { msg_id } => Fields { frame: "ack_ok", msg_id, ..Fields::default() },
        Outbound::Messages(messages) => {
            Fields { frame: "messages", messages: entries(messages, generation), ..Fields::default() }
        }
        Outbound::Status(status) => return json(&Status { frame: "status", status: status_fields(status) }),
        Outbound::Error { code, message } => {
            let message = if message.is_empty() { code.as_str() } else { message };
            match generation {
                Generation::One => Fields { frame: "error", msg_id: message, ..Fields::default() },
                Generation::Two => {
                    Fields { frame: "error", code: code.as_str(), message, ..Fields::default() }
                }
            }
        }
    };
    json(&fields)
}

impl Fields<'_> {
    /// A frame with the acceptance time, under the generation's name for it.
    fn accepted_at(unix_s: i64, generation: Generation) -> Self {
        let unix_s = NonZeroI64::new(unix_s);
        match generation {
            Generation::One => Self { at: unix_s, ..Self::default() },
            Generation::Two => Self { received_at: unix_s, ..Self::default() },
        }
    }
}

/// The list of a `messages` frame. The first generation leaves an empty list out; clients of the second rely
/// on it.
fn entries<'a>(messages: &[Delivered<'a>], generation: Generation) -> Option<Entries<'a>> {
    match generation {
        Generation::One if messages.is_empty() => None,
        Generation::One => Some(Entries::One(messages.iter().map(EntryOne::of).collect())),
        Generation::Two => Some(Entries::Two(messages.iter().map(EntryTwo::of).collect())),
    }
}

impl<'a> EntryOne<'a> {
    fn of(message: &Delivered<'a>) -> Self {
        let Delivered { msg_id, from, to, payload_b64, received_at, position } = *message;
        let at = rfc3339(received_at);
        Self { msg_id, from, to, payload_b64, at, expires_at: NO_TIME, delivered: false, position }
    }
}

impl<'a> EntryTwo<'a> {
    fn of(message: &Delivered<'a>) -> Self {
        let Delivered { msg_id, from, payload_b64, received_at, position, .. } = *message;
        Self { msg_id, from, payload_b64, received_at, position }
    }
}

/// A time in RFC 3339, which ends with the year 9999. Later times become the zero time.
fn rfc3339(unix_s: i64) -> String {
    DateTime::from_timestamp(unix_s, 0)
        .filter(|time| (0..=9999).contains(&time.year()))
        .map_or_else(|| NO_TIME.to_owned(), |time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// The fields of a status, without a `type` that would contradict the frame's.
fn status_fields(status: &Value) -> Map<String, Value> {
    match status {
        Value::Object(fields) => fields
            .iter()
            .filter(|(name, _)| *name != "type")
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        other => Map::from_iter([("status".to_owned(), other.clone())]),
    }
}

fn json(frame: &impl Serialize) -> String {
    serde_json::to_string(frame).expect("strings, numbers and maps with string keys always serialize")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_time_beyond_rfc_3339_is_the_zero_time() {
        for (unix_s, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_771_502_400, "2026-02-19T12:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
            (253_402_300_800, NO_TIME),
            (-62_135_596_801, "0000-12-31T23:59:59Z"),
            (-62_167_219_201, NO_TIME),
            (i64::MAX, NO_TIME),
            (i64::MIN, NO_TIME),
        ] {
            assert_eq!(rfc3339(unix_s), expected, "{unix_s}");
        }
    }

    #[test]
    fn empty_and_zero_fields_are_left_out() {
        let sent = Outbound::SendOk { msg_id: Uuid::nil(), received_at: 0, expires_at: 0 };
        let nil = r#"{"type":"send_ok","msg_id":"00000000-0000-0000-0000-000000000000"}"#;
        for generation in [Generation::One, Generation::Two] {
            assert_eq!(render(&Outbound::HelloOk { relay_id: "" }, generation), r#"{"type":"hello_ok"}"#);
            assert_eq!(render(&Outbound::AckOk { msg_id: "" }, generation), r#"{"type":"ack_ok"}"#);
            assert_eq!(render(&sent, generation), nil);
        }
    }

    #[test]
    fn a_refusal_without_a_message_carries_its_code() {
        let refusal = Outbound::Error { code: ErrorCode::QuotaExceeded, message: "" };
        assert_eq!(render(&refusal, Generation::One), r#"{"type":"error","msg_id":"RATE_LIMITED"}"#);
        assert_eq!(
            render(&refusal, Generation::Two),
            r#"{"type":"error","code":"RATE_LIMITED","message":"RATE_LIMITED"}"#
        );
    }

    #[test]
    fn a_status_has_one_type_as_its_first_field() {
        for (status, expected) in [
            (json!({"accepted_at": 1, "type": "error"}), r#"{"type":"status","accepted_at":1}"#),
            (json!({}), r#"{"type":"status"}"#),
            (json!("unknown"), r#"{"type":"status","status":"unknown"}"#),
            (json!(null), r#"{"type":"status","status":null}"#),
        ] {
            assert_eq!(render(&Outbound::Status(status), Generation::Two), expected);
        }
    }

    #[test]
    fn g2_3_2_the_codes_are_the_protocols() {
        use ErrorCode as E;
        let all = [
            (E::InvalidWayfarerId, "INVALID_WAYFARER_ID"),
            (E::ToMismatch, "TO_MISMATCH"),
            (E::InvalidPayload, "INVALID_PAYLOAD"),
            (E::PayloadTooLarge, "PAYLOAD_TOO_LARGE"),
            (E::RecipientOffline, "RECIPIENT_OFFLINE"),
            (E::RateLimited, "RATE_LIMITED"),
            (E::AuthFailed, "AUTH_FAILED"),
            (E::IdempotencyMismatch, "IDEMPOTENCY_MISMATCH"),
            (E::QuotaExceeded, "RATE_LIMITED"),
            (E::InternalError, "INTERNAL_ERROR"),
        ];
        for (code, expected) in all {
            assert_eq!(code.as_str(), expected);
        }
    }
}
