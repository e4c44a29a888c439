//! Replaces NUL, which PostgreSQL cannot store, in texts and JSON that a relay sent.

use serde_json::{Map, Value};

/// The first `chars_max` characters, with U+2400 in place of NUL, which PostgreSQL cannot store.
pub(super) fn without_nul(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).map(|c| if c == '\0' { '\u{2400}' } else { c }).collect()
}

fn visible(text: &str) -> String {
    text.replace('\0', "\u{2400}")
}

/// Replaces NUL, which PostgreSQL cannot store, by U+2400 in all names and texts.
pub(super) fn storable(fields: Map<String, Value>) -> Map<String, Value> {
    fields.into_iter().map(|(name, value)| (visible(&name), value_visible(value))).collect()
}

/// True if a name or a text holds NUL.
pub(super) fn has_nul(fields: &Map<String, Value>) -> bool {
    fn within(value: &Value) -> bool {
        match value {
            Value::String(text) => text.contains('\0'),
            Value::Array(items) => items.iter().any(within),
            Value::Object(fields) => has_nul(fields),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }
    fields.iter().any(|(name, value)| name.contains('\0') || within(value))
}

fn value_visible(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(visible(&text)),
        Value::Array(items) => Value::Array(items.into_iter().map(value_visible).collect()),
        Value::Object(fields) => Value::Object(storable(fields)),
        other => other,
    }
}
