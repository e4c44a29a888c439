//! Counts the values of a JSON text without keeping them: in memory a text can take 90 times its length, and some
//! hundred clients can send one at the same time.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Most values of a body: numbers, texts, lists, objects and so on. A list of 10,000 parts has room.
pub(super) const VALUES_MAX: u32 = 20_000;

/// How many more values a text may have.
struct Left(u32);

impl Left {
    fn take<E: Error>(&mut self) -> Result<(), E> {
        self.0 = self.0.checked_sub(1).ok_or_else(|| E::custom("too many values"))?;
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for &mut Left {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Left {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.take()
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.take()
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.take()
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.take()
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        self.take()
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.take()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.take()?;
        while items.next_element_seed(&mut *self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        self.take()?;
        while members.next_key::<IgnoredAny>()?.is_some() {
            members.next_value_seed(&mut *self)?;
        }
        Ok(())
    }
}

/// Whether the text has more than [`VALUES_MAX`] values. What is no JSON is not judged here.
pub(super) fn has_too_many(text: &[u8]) -> bool {
    let mut left = Left(VALUES_MAX);
    let read = (&mut left).deserialize(&mut serde_json::Deserializer::from_slice(text));
    read.is_err() && left.0 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_at_every_depth() {
        let of = |text: &str, count: usize| format!("[{}]", vec![text; count].join(","));
        for (text, most) in [("0", 19_999), ("{}", 19_999), ("[\"\",null]", 6_666), ("{\"\":true}", 9_999)] {
            assert!(!has_too_many(of(text, most).as_bytes()), "{text}");
            assert!(has_too_many(of(text, most + 1).as_bytes()), "{text}");
        }
        for not_json in ["", "[1", "{\"a\"}", "nul"] {
            assert!(!has_too_many(not_json.as_bytes()), "{not_json}");
        }
    }
}
