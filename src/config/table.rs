//! The table of settings in `docs/configuration.md`: keys, types, defaults and doc comments of the settings,
//! as Markdown.

use std::fmt::Write as _;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::Settings;

/// The first line, from which `make docs` replaces the rest of the file.
const HEAD: &str =
    "<!-- Generated from src/config by `quipu check-config --markdown`; renewed by `make docs`. -->";

/// All settings, section by section.
pub(super) fn markdown() -> String {
    // Types as they are written, not as they are read: only then does `required` list every key.
    let generator = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
        settings.inline_subschemas = true;
    });
    let schema = Value::from(generator.into_generator().into_root_schema_for::<Settings>());
    let defaults = serde_json::to_value(Settings::default()).expect("settings are plain data");
    let mut text = format!("{HEAD}\n\n## Settings\n");
    sections(&mut text, "", &schema, &defaults);
    text
}

/// Writes the section `name` and the sections in it.
fn sections(text: &mut String, name: &str, schema: &Value, defaults: &Value) {
    let (inner, keys): (Vec<_>, Vec<_>) = properties(schema).partition(|(_, schema)| is_section(schema));
    if !keys.is_empty() {
        table(text, &[Section { name: name.to_owned(), schema, defaults }]);
    }
    let inner: Vec<_> = inner
        .into_iter()
        .map(|(key, schema)| Section {
            name: [name, key].join(".").trim_start_matches('.').to_owned(),
            schema,
            defaults: &defaults[key],
        })
        .collect();
    for alike in inner.chunk_by(|one, next| one.schema["properties"] == next.schema["properties"]) {
        match alike {
            [section] => sections(text, &section.name, section.schema, section.defaults),
            alike => table(text, alike),
        }
    }
}

struct Section<'a> {
    name: String,
    schema: &'a Value,
    defaults: &'a Value,
}

impl Section<'_> {
    /// The name without the sections around it.
    fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }
}

fn is_section(schema: &Value) -> bool {
    schema["properties"].is_object()
}

/// The properties of an object in the order of its struct's fields: `properties` sorts them by name,
/// `required` does not.
fn properties(schema: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let keys = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    keys.map(move |key| (key, &schema["properties"][key]))
}

/// Writes one table for sections that have the same keys.
fn table(text: &mut String, alike: &[Section<'_>]) {
    let names: Vec<_> = alike.iter().map(|section| format!("`{}`", section.name)).collect();
    let _ = write!(text, "\n### {}\n\n", names.join(", "));
    for Section { name, schema, .. } in alike {
        let bullet = if alike.len() > 1 { format!("- `{name}`: ") } else { String::new() };
        let _ = writeln!(text, "{bullet}{}", description(schema));
    }
    text.push_str("\n| key | type | default | |\n|---|---|---|---|\n");
    for (key, schema) in properties(alike[0].schema).filter(|(_, schema)| !is_section(schema)) {
        let shown: Vec<_> = alike.iter().map(|section| default(key, &section.defaults[key])).collect();
        let default = if shown.iter().all(|default| *default == shown[0]) {
            shown[0].clone()
        } else {
            let each = alike.iter().zip(&shown);
            let each: Vec<_> =
                each.map(|(section, default)| format!("{} {default}", section.short_name())).collect();
            each.join(", ")
        };
        let cells = [format!("`{key}`"), kind(key, schema), default, meaning(schema)];
        let _ = writeln!(text, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
    }
}

fn description(schema: &Value) -> String {
    let words: Vec<_> = schema["description"].as_str().unwrap_or_default().split_whitespace().collect();
    words.join(" ")
}

/// The doc comment of a setting, and those of the values that it can have.
fn meaning(schema: &Value) -> String {
    let values = variants(schema).map(|(value, schema)| format!(" `{value}`: {}", description(schema)));
    std::iter::once(description(schema)).chain(values).collect()
}

/// The values of an enum.
fn variants(schema: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let variants = schema["oneOf"].as_array().into_iter().flatten();
    variants.filter_map(|variant| Some((variant["const"].as_str()?, variant)))
}

/// What can be written as the value of `key`.
fn kind(key: &str, schema: &Value) -> String {
    let values: Vec<_> = variants(schema).map(|(value, _)| format!("`{value}`")).collect();
    if !values.is_empty() {
        return values.join(" or ");
    }
    let types = &schema["type"];
    let is = |name: &str| *types == name || types.as_array().is_some_and(|all| all.contains(&name.into()));
    if is("boolean") {
        "`true` or `false`".to_owned()
    } else if is("array") {
        match kind(key, &schema["items"]).as_str() {
            "string" => "list of strings".to_owned(),
            items => format!("list of {items}"),
        }
    } else if is("object") {
        let keys: Vec<_> = properties(schema).map(|(key, _)| format!("`{key}`")).collect();
        match keys.split_last() {
            Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
            _ => keys.concat(),
        }
    } else if is("integer") {
        let range = match (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
            (least, Some(most)) => format!("{} to {most}{}", least.unwrap_or(0), in_larger_units(key, most)),
            (least, None) => format!("{} or more", least.unwrap_or(0)),
        };
        format!("{}, {range}", unit(key).unwrap_or("number"))
    } else {
        schema["format"].as_str().unwrap_or("string").to_owned()
    }
}

/// The unit that the name of a key states.
fn unit(key: &str) -> Option<&'static str> {
    let suffixes = [
        ("_unix_s", "Unix seconds"),
        ("_s", "seconds"),
        ("_ms", "milliseconds"),
        ("_days", "days"),
        ("_mb", "MiB"),
        ("_percent", "percent"),
    ];
    let by_suffix = suffixes.iter().find(|(suffix, _)| key.ends_with(suffix)).map(|(_, unit)| *unit);
    by_suffix.or_else(|| key.contains("bytes").then_some("bytes"))
}

/// The default of a setting.
fn default(key: &str, value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::String(text) => format!("`{text}`"),
        Value::Number(number) => {
            format!("{number}{}", number.as_u64().map_or_else(String::new, |n| in_larger_units(key, n)))
        }
        other => format!("`{other}`"),
    }
}

/// ` (7 days)` behind a number of seconds or bytes that is hard to read, else nothing.
fn in_larger_units(key: &str, number: u64) -> String {
    let units: &[(u64, &str)] = match unit(key) {
        Some("seconds") => &[(86_400, "days"), (3_600, "hours")],
        Some("bytes") => &[(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")],
        _ => &[],
    };
    let found = units.iter().find(|(size, _)| number >= *size && number.is_multiple_of(*size));
    found.map_or_else(String::new, |(size, unit)| match (number / size, *unit) {
        (1, "days") => " (1 day)".to_owned(),
        (1, "hours") => " (1 hour)".to_owned(),
        (count, unit) => format!(" ({count} {unit})"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn types_are_words_with_unit_and_range() {
        let integer = json!({"type": "integer", "minimum": 1});
        assert_eq!(kind("turn_s", &integer), "seconds, 1 or more");
        assert_eq!(kind("catching_up_events_per_s_min", &integer), "number, 1 or more");
        let limited = json!({"type": ["integer", "null"], "minimum": 0, "maximum": 7_200});
        assert_eq!(kind("turn_s", &limited), "seconds, 0 to 7200 (2 hours)");
        let list = json!({"type": "array", "items": {"type": "string"}});
        assert_eq!(kind("hosts", &list), "list of strings");
        let values =
            json!({"oneOf": [{"const": "a", "description": "One."}, {"const": "b", "description": "Two."}]});
        assert_eq!(
            (kind("x", &values).as_str(), meaning(&values).trim()),
            ("`a` or `b`", "`a`: One. `b`: Two.")
        );
    }

    #[test]
    fn defaults_show_large_numbers_in_larger_units_too() {
        assert_eq!(default("payload_bytes_max", &json!(65_536)), "65536 (64 KiB)");
        assert_eq!(default("interval_s", &json!(3_600)), "3600 (1 hour)");
        assert_eq!(default("interval_s", &json!(90)), "90");
        assert_eq!(default("hosts", &json!([])), "none");
        assert_eq!(default("recheck_after_s", &json!([3_600, 86_400])), "`[3600,86400]`");
    }

    #[test]
    fn sections_with_the_same_keys_share_a_table() {
        let text = markdown();
        assert!(
            text.contains("\n### `networks.clearnet`, `networks.tor`, `networks.i2p`, `networks.loki`\n")
        );
        assert!(text.contains(" | clearnet 256, tor 32, i2p 16, loki 16 | "), "{text}");
    }
}
