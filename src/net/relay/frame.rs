//! Splits a relay's message into its elements; events stay unparsed JSON.
//!
//! nostr-sdk's parser is not used: it builds trees from texts that may be megabytes long, requires exactly
//! the number of elements that a NIP once had, and parses the event within the message. Here additional
//! elements are ignored (NIP-67 adds one to EOSE), and a missing reason counts as an empty one.

use std::borrow::Cow;
use std::fmt;

use nostr_sdk::EventId;
use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A message of a relay. `subscription` is the id of the subscription that it belongs to.
#[derive(Debug)]
pub(super) enum Frame<'a> {
    /// An event; its JSON is not parsed.
    Event {
        subscription: Cow<'a, str>,
        json: &'a str,
    },
    Eose {
        subscription: Cow<'a, str>,
    },
    Closed {
        subscription: Cow<'a, str>,
        reason: Cow<'a, str>,
    },
    Notice {
        message: Cow<'a, str>,
    },
    Ok {
        id: EventId,
        accepted: bool,
        message: Cow<'a, str>,
    },
    Auth {
        challenge: Cow<'a, str>,
    },
    NegMsg {
        subscription: Cow<'a, str>,
        message: Cow<'a, str>,
    },
    NegErr {
        subscription: Cow<'a, str>,
        reason: Cow<'a, str>,
    },
    /// A valid message that is never an answer to a request of ours.
    Other,
    /// Not a Nostr message.
    Invalid,
}

pub(super) fn read(text: &str) -> Frame<'_> {
    split(text).unwrap_or(Frame::Invalid)
}

fn split(text: &str) -> Option<Frame<'_>> {
    let Elements([verb, first, second, third]) = serde_json::from_str(text).ok()?;
    Some(match string(verb)?.as_ref() {
        "EVENT" => Frame::Event { subscription: string(first)?, json: second?.get() },
        "EOSE" => Frame::Eose { subscription: string(first)? },
        "CLOSED" => {
            Frame::Closed { subscription: string(first)?, reason: string(second).unwrap_or_default() }
        }
        "NOTICE" => Frame::Notice { message: string(first)? },
        "OK" => Frame::Ok {
            id: EventId::from_hex(&string(first)?).ok()?,
            accepted: serde_json::from_str(second?.get()).ok()?,
            message: string(third).unwrap_or_default(),
        },
        "AUTH" => Frame::Auth { challenge: string(first)? },
        "NEG-MSG" => Frame::NegMsg { subscription: string(first)?, message: string(second)? },
        "NEG-ERR" => {
            Frame::NegErr { subscription: string(first)?, reason: string(second).unwrap_or_default() }
        }
        "COUNT" => Frame::Other,
        _ => return None,
    })
}

/// An element as a string, if it is one. Borrowed unless it contains escapes.
fn string(raw: Option<&RawValue>) -> Option<Cow<'_, str>> {
    let raw = raw?;
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(raw.get()).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// The first four elements of an array; further elements are skipped.
struct Elements<'a>([Option<&'a RawValue>; 4]);

impl<'de> Deserialize<'de> for Elements<'de> {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct FirstElements;

        impl<'de> Visitor<'de> for FirstElements {
            type Value = Elements<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut elements = [None; 4];
                for element in &mut elements {
                    *element = seq.next_element()?;
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Elements(elements))
            }
        }

        source.deserialize_seq(FirstElements)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n_67_eose_may_have_a_third_element() {
        for text in [r#"["EOSE","q1"]"#, r#"["EOSE","q1",["more"]]"#, r#"[ "EOSE" , "q1", 1, 2, 3, 4, 5 ]"#] {
            assert!(matches!(read(text), Frame::Eose { subscription } if subscription == "q1"), "{text}");
        }
    }

    #[test]
    fn escapes_in_names_are_read() {
        assert!(
            matches!(read(r#"["EVENT","a\"1",{"id":1}]"#), Frame::Event { subscription, json } if subscription == "a\"1" && json == r#"{"id":1}"#)
        );
        assert!(matches!(read(r#"["\u0045OSE","q1"]"#), Frame::Eose { .. }));
        assert!(
            matches!(read(r#"["CLOSED","q1","blocked: \u0000"]"#), Frame::Closed { reason, .. } if reason == "blocked: \0")
        );
    }

    #[test]
    fn n_01_20_a_text_that_is_not_a_message_is_invalid() {
        for text in [
            "not json",
            "{}",
            "[]",
            "[1]",
            r#"["HELLO","q1"]"#,
            r#"["EVENT","q1"]"#,
            r#"["EVENT",5,{}]"#,
            r#"["EOSE","q1""#,
        ] {
            assert!(matches!(read(text), Frame::Invalid), "{text}");
        }
    }

    #[test]
    fn a_missing_reason_counts_as_an_empty_one() {
        let id = "0".repeat(64);
        assert!(
            matches!(read(&format!(r#"["OK","{id}",true]"#)), Frame::Ok { accepted: true, message, .. } if message.is_empty())
        );
        assert!(matches!(read(r#"["CLOSED","q1"]"#), Frame::Closed { reason, .. } if reason.is_empty()));
    }
}
