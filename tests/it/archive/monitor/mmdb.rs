//! The smallest MaxMind file: one record for every address there is.

use serde_json::Value;

/// A field's head: its type and length.
fn head(kind: u8, length: usize) -> Vec<u8> {
    let (size, more) = match u8::try_from(length) {
        Ok(length) if length < 29 => (length, None),
        Ok(length) => (29, Some(length - 29)),
        Err(_) => panic!("a short field"),
    };
    let mut bytes = if kind <= 7 { vec![kind << 5 | size] } else { vec![size, kind - 7] };
    bytes.extend(more);
    bytes
}

/// JSON as the data section has it: whole numbers as uint32, others as doubles.
fn field(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => [head(2, text.len()), text.as_bytes().to_vec()].concat(),
        Value::Number(number) => match number.as_u64() {
            Some(whole) => [head(6, 4), u32::try_from(whole).unwrap().to_be_bytes().to_vec()].concat(),
            None => [head(3, 8), number.as_f64().unwrap().to_be_bytes().to_vec()].concat(),
        },
        Value::Object(members) => {
            let members = members
                .iter()
                .flat_map(|(name, value)| [field(&Value::String(name.clone())), field(value)].concat());
            [head(7, value.as_object().unwrap().len()), members.collect()].concat()
        }
        Value::Array(items) => [head(11, items.len()), items.iter().flat_map(field).collect()].concat(),
        other => panic!("{other} is not needed"),
    }
}

/// A file in which every address has this record.
pub(super) fn file(kind: &str, record: &Value) -> Vec<u8> {
    // One node; both its branches lead to the start of the data: node count + 16.
    let tree = [0, 0, 17, 0, 0, 17];
    let metadata = serde_json::json!({
        "binary_format_major_version": 2, "binary_format_minor_version": 0, "build_epoch": 1_700_000_000,
        "database_type": kind, "description": {}, "ip_version": 4, "languages": ["en"], "node_count": 1, "record_size": 24
    });
    [&tree[..], &[0; 16], &field(record), b"\xab\xcd\xefMaxMind.com", &field(&metadata)].concat()
}
