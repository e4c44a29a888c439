//! Builds a minimal MaxMind file with one record for every address.

use serde_json::Value;

/// Control bytes of a field: type and length.
fn head(kind: u8, length: usize) -> Vec<u8> {
    let length = u8::try_from(length).expect("a short field");
    let (size, more) = if length < 29 { (length, None) } else { (29, Some(length - 29)) };
    let mut bytes = if kind <= 7 { vec![kind << 5 | size] } else { vec![size, kind - 7] };
    bytes.extend(more);
    bytes
}

/// An unsigned number of the type that readers expect under this name.
fn number(name: &str, whole: u64) -> Vec<u8> {
    match name {
        "build_epoch" => [head(9, 8), whole.to_be_bytes().to_vec()].concat(),
        "node_count" | "autonomous_system_number" => {
            [head(6, 4), u32::try_from(whole).unwrap().to_be_bytes().to_vec()].concat()
        }
        _ => [head(5, 2), u16::try_from(whole).unwrap().to_be_bytes().to_vec()].concat(),
    }
}

/// Encodes JSON for the data section.
fn field(name: &str, value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => [head(2, text.len()), text.as_bytes().to_vec()].concat(),
        Value::Number(found) => match found.as_u64() {
            Some(whole) => number(name, whole),
            None => [head(3, 8), found.as_f64().unwrap().to_be_bytes().to_vec()].concat(),
        },
        Value::Object(members) => {
            let bytes = members.iter().flat_map(|(name, value)| {
                [head(2, name.len()), name.as_bytes().to_vec(), field(name, value)].concat()
            });
            [head(7, members.len()), bytes.collect()].concat()
        }
        Value::Array(items) => {
            [head(11, items.len()), items.iter().flat_map(|item| field(name, item)).collect()].concat()
        }
        other => panic!("{other} is not needed"),
    }
}

/// A file in which every address has this record.
pub(super) fn file(kind: &str, record: &Value) -> Vec<u8> {
    // One node; both branches point to the start of the data section: node count + 16.
    let tree = [0, 0, 17, 0, 0, 17];
    let metadata = serde_json::json!({
        "binary_format_major_version": 2, "binary_format_minor_version": 0, "build_epoch": 1_700_000_000,
        "database_type": kind, "description": {}, "ip_version": 4, "languages": ["en"], "node_count": 1, "record_size": 24
    });
    [&tree[..], &[0; 16], &field("", record), b"\xab\xcd\xefMaxMind.com", &field("", &metadata)].concat()
}
