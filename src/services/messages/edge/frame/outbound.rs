//! What clients are told.

use std::num::NonZeroI64;

use chrono::{DateTime, Datelike as _, SecondsFormat};
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::Generation;

/// What the first generation says for "no time", as Go writes it.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// A frame for a client.
#[derive(Debug, Clone, PartialEq)]
pub enum Outbound<'a> {
    /// Extension: prove who you are by signing this.
    Challenge {
        /// What is to be signed.
        challenge: &'a str,
        /// Who asks.
        relay_id: &'a str,
    },
    /// You are who you say.
    HelloOk {
        /// This relay's name; the first generation is not told.
        relay_id: &'a str,
    },
    /// The message is on disk.
    SendOk {
        /// The relay's identity of it.
        msg_id: Uuid,
        /// When it was accepted, unix seconds.
        received_at: i64,
        /// From when on nobody gets it, unix seconds; the first generation is not told.
        expires_at: i64,
    },
    /// A message, unasked.
    Message(Delivered<'a>),
    /// The acknowledgement is on disk.
    AckOk {
        /// As it was said.
        msg_id: &'a str,
    },
    /// The answer to `pull`.
    Messages(&'a [Delivered<'a>]),
    /// Extension: a message's life. The fields of an object stand beside `type`; anything else is the field `status`.
    Status(Value),
    /// A refusal.
    Error {
        /// Which; the first generation is not told.
        code: ErrorCode,
        /// In words. An empty one is replaced by the code.
        message: &'a str,
    },
}

/// A message as its recipient gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered<'a> {
    /// The relay's identity of it.
    pub msg_id: Uuid,
    /// `wayfarer_id` of the sender.
    pub from: &'a str,
    /// `wayfarer_id` of the recipient; told in the first generation's `messages` alone.
    pub to: &'a str,
    /// In the spelling of the recipient's generation: see [`for_recipient`](super::for_recipient).
    pub payload_b64: &'a str,
    /// When it was accepted, unix seconds.
    pub received_at: i64,
    /// Extension: its place in the recipient's queue, told only to who asked for it.
    pub position: Option<i64>,
}

/// Why something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// It cannot be a `wayfarer_id`.
    InvalidWayfarerId,
    /// The envelope names another recipient than the frame.
    ToMismatch,
    /// The payload, or the frame, is not what it must be.
    InvalidPayload,
    /// Larger than this relay stores.
    PayloadTooLarge,
    /// In the protocol's list; a relay that stores never says it.
    RecipientOffline,
    /// Too much in too short a time.
    RateLimited,
    /// Not proven, or not allowed.
    AuthFailed,
    /// The same `client_msg_id` with something else.
    IdempotencyMismatch,
    /// The sender's or the recipient's quota is used up. The protocol has no code of its own for it.
    QuotaExceeded,
    /// The relay's own failure.
    InternalError,
}

impl ErrorCode {
    /// The second generation's word for it.
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

/// All that frames may hold, in the order in which the originals write it. As there, what is empty or zero is left out.
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

/// What `messages` lists.
#[derive(Serialize)]
#[serde(untagged)]
enum Entries<'a> {
    One(Vec<EntryOne<'a>>),
    Two(Vec<EntryTwo<'a>>),
}

/// The first generation lists messages as it stored them, with two fields that never say anything.
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

/// Writes one frame as a client of that generation expects it.
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
        Outbound::Status(status) => return json(&Status { frame: "status", status: beside_type(status) }),
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
    /// A frame that says when a message was accepted, under the generation's name for it.
    fn accepted_at(unix_s: i64, generation: Generation) -> Self {
        let unix_s = NonZeroI64::new(unix_s);
        match generation {
            Generation::One => Self { at: unix_s, ..Self::default() },
            Generation::Two => Self { received_at: unix_s, ..Self::default() },
        }
    }
}

/// The list. The first generation leaves an empty one out; the second's clients rely on it.
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

/// A time as text. RFC 3339 ends with the year 9999; what lies beyond is no time.
fn rfc3339(unix_s: i64) -> String {
    DateTime::from_timestamp(unix_s, 0)
        .filter(|time| (0..=9999).contains(&time.year()))
        .map_or_else(|| NO_TIME.to_owned(), |time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// The fields of a life, without one that would contradict the frame's own.
fn beside_type(status: &Value) -> Map<String, Value> {
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
    serde_json::to_string(frame).expect("maps of strings and numbers can be written")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_time_that_rfc_3339_cannot_say_is_no_time() {
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
    fn what_is_empty_or_zero_is_left_out() {
        let sent = Outbound::SendOk { msg_id: Uuid::nil(), received_at: 0, expires_at: 0 };
        let nil = r#"{"type":"send_ok","msg_id":"00000000-0000-0000-0000-000000000000"}"#;
        for generation in [Generation::One, Generation::Two] {
            assert_eq!(render(&Outbound::HelloOk { relay_id: "" }, generation), r#"{"type":"hello_ok"}"#);
            assert_eq!(render(&Outbound::AckOk { msg_id: "" }, generation), r#"{"type":"ack_ok"}"#);
            assert_eq!(render(&sent, generation), nil);
        }
    }

    #[test]
    fn a_refusal_without_words_says_its_code() {
        let refusal = Outbound::Error { code: ErrorCode::QuotaExceeded, message: "" };
        assert_eq!(render(&refusal, Generation::One), r#"{"type":"error","msg_id":"RATE_LIMITED"}"#);
        assert_eq!(
            render(&refusal, Generation::Two),
            r#"{"type":"error","code":"RATE_LIMITED","message":"RATE_LIMITED"}"#
        );
    }

    #[test]
    fn a_status_has_one_type_and_it_is_the_first_field() {
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
