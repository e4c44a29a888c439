//! Events that the monitor publishes: reports about relays (kind 30166) and its own announcement (kind 10166,
//! NIP-66).
//!
//! Each tag has one value (N-66.5). Where a check contradicts the relay's own document, the check wins
//! (N-66.6).

use std::collections::BTreeSet;
use std::time::Duration;

use nostr_sdk::{EventBuilder, Kind, Tag, Url};
use serde_json::{Map, Value};

use crate::base::RelayUrl;
use crate::services::archive::event::Snapshot;

const REPORT: Kind = Kind::Custom(30_166);

const ANNOUNCEMENT: Kind = Kind::Custom(10_166);

/// Longest document included in a report, in bytes: relays refuse larger events.
const CONTENT_MAX: usize = 32 * 1024;

/// Most tags of one name, and most characters of a value: a document may contain anything.
const REPEATS_MAX: usize = 100;
const VALUE_MAX: usize = 64;

fn tag<const N: usize>(values: [&str; N]) -> Tag {
    Tag::parse(values).expect("a tag has a name")
}

/// The report of one snapshot, without its `created_at`.
#[must_use]
pub fn report(url: &RelayUrl, snapshot: &Snapshot) -> EventBuilder {
    let nothing = Map::new();
    let document = snapshot.nip11.as_ref().unwrap_or(&nothing);
    let mut tags = vec![tag(["d", &normalized(url)]), tag(["n", url.network().as_str()])];
    // A relay that was not reached has no times, and earlier ones are not repeated (N-66.11).
    let times =
        [("rtt-open", snapshot.rtt_open), ("rtt-read", snapshot.rtt_read), ("rtt-write", snapshot.rtt_write)];
    tags.extend(times.iter().filter_map(|(name, ms)| ms.map(|ms| tag([name, &ms.to_string()]))));
    tags.extend(nips(document).iter().map(|nip| tag(["N", &nip.to_string()])));
    tags.extend(requirements(document, snapshot).iter().map(|requirement| tag(["R", requirement])));
    tags.extend(texts(document, "tags").iter().map(|topic| tag(["t", topic])));
    tags.extend(languages(document).iter().map(|language| tag(["l", language, "ISO-639-1"])));
    let geohash = snapshot.detail.get("geo").and_then(|geo| geo["geohash"].as_str());
    tags.extend(geohash.map(|geohash| tag(["g", geohash])));
    EventBuilder::new(REPORT, content(snapshot)).tags(tags)
}

/// N-66.1: normalized by RFC 3986, with a slash for an empty path.
fn normalized(url: &RelayUrl) -> String {
    Url::parse(url.as_str()).map_or_else(|_| url.to_string(), |url| url.to_string())
}

fn content(snapshot: &Snapshot) -> String {
    let document = snapshot.nip11.as_ref().and_then(|fields| serde_json::to_string(fields).ok());
    document.filter(|text| text.len() <= CONTENT_MAX).unwrap_or_default()
}

fn nips(document: &Map<String, Value>) -> BTreeSet<u16> {
    let listed = document.get("supported_nips").and_then(Value::as_array).into_iter().flatten();
    listed.filter_map(|nip| u16::try_from(nip.as_u64()?).ok()).take(REPEATS_MAX).collect()
}

/// The relay's requirements, and with a leading `!` those that it is known not to have.
fn requirements(document: &Map<String, Value>, snapshot: &Snapshot) -> Vec<&'static str> {
    let limit = |name: &str| document.get("limitation").and_then(|limitation| limitation.get(name));
    let stated = |name: &str| limit(name).and_then(Value::as_bool);
    let auth = match snapshot.detail.get("auth").and_then(Value::as_str) {
        Some("not_required") => Some(false),
        Some(_) => Some(true),
        None => stated("auth_required"),
    };
    let writes = match snapshot.failure("write") {
        _ if snapshot.is_writable == Some(true) => Some(false),
        Some("restricted" | "blocked") => Some(true),
        _ => stated("restricted_writes"),
    };
    let pow = limit("min_pow_difficulty").and_then(Value::as_u64).map(|difficulty| difficulty > 0);
    let known = [
        ("auth", "!auth", auth),
        ("writes", "!writes", writes),
        ("pow", "!pow", pow),
        ("payment", "!payment", stated("payment_required")),
    ];
    known
        .into_iter()
        .filter_map(|(yes, no, demands)| demands.map(|demands| if demands { yes } else { no }))
        .collect()
}

/// The distinct texts of a list in the document, without empty and overlong ones.
fn texts<'a>(document: &'a Map<String, Value>, field: &str) -> BTreeSet<&'a str> {
    let listed =
        document.get(field).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    listed
        .map(str::trim)
        .filter(|text| !text.is_empty() && text.chars().count() <= VALUE_MAX)
        .take(REPEATS_MAX)
        .collect()
}

/// ISO 639-1 codes of the document's language tags (BCP 47): `en` for `en-419`.
fn languages(document: &Map<String, Value>) -> BTreeSet<String> {
    texts(document, "language_tags")
        .into_iter()
        .filter_map(|tag| tag.split('-').next())
        .filter(|code| code.len() == 2 && code.chars().all(|c| c.is_ascii_alphabetic()))
        .map(str::to_ascii_lowercase)
        .collect()
}

/// Parameters that a monitor announces.
#[derive(Debug, Clone)]
pub struct MonitorProfile {
    /// Interval between two checks of a relay.
    pub interval: Duration,
    /// Timeout of each check, by its name: `open`, `read`, `write`, `auth`, `nip11`, `dns`, `geo`.
    pub checks: Vec<(&'static str, Option<Duration>)>,
}

/// The announcement (N-66.7). A timeout tag holds the milliseconds before the name of the check, as in the
/// text of the NIP.
#[must_use]
pub fn announcement(profile: &MonitorProfile) -> EventBuilder {
    let mut tags = vec![tag(["frequency", &profile.interval.as_secs().to_string()])];
    for (check, timeout) in &profile.checks {
        if let Some(timeout) = timeout {
            tags.push(tag(["timeout", &timeout.as_millis().to_string(), check]));
        }
        tags.push(tag(["c", check]));
    }
    EventBuilder::new(ANNOUNCEMENT, "").tags(tags)
}

#[cfg(test)]
mod tests {
    use nostr_sdk::Keys;
    use serde_json::json;

    use super::*;

    fn tags(builder: EventBuilder) -> Vec<Vec<String>> {
        let event = builder.sign_with_keys(&Keys::generate()).unwrap();
        event.tags.into_iter().map(Tag::to_vec).collect()
    }

    fn of(url: &str, snapshot: &Snapshot) -> Vec<Vec<String>> {
        tags(report(&RelayUrl::parse(url).unwrap(), snapshot))
    }

    fn values(tags: &[Vec<String>], name: &str) -> Vec<String> {
        assert!(tags.iter().filter(|tag| tag[0] == name && name != "l").all(|tag| tag.len() == 2), "N-66.5");
        tags.iter().filter(|tag| tag[0] == name).map(|tag| tag[1].clone()).collect()
    }

    fn snapshot(nip11: &Value, detail: &Value) -> Snapshot {
        Snapshot {
            nip11: nip11.as_object().cloned(),
            detail: detail.as_object().cloned().unwrap_or_default(),
            is_openable: true,
            rtt_open: Some(31),
            ..Snapshot::default()
        }
    }

    #[test]
    fn n_66_1_d_is_the_normalized_url_with_the_slash_of_an_empty_path() {
        let plain = Snapshot::default();
        for (url, d) in [
            ("WSS://Relay.Example.com:443", "wss://relay.example.com/"),
            ("wss://relay.example.com/sub/", "wss://relay.example.com/sub"),
            ("ws://relay.example.com:7777", "ws://relay.example.com:7777/"),
            ("wss://relay.example.com?a=b", "wss://relay.example.com/?a=b"),
        ] {
            assert_eq!(values(&of(url, &plain), "d"), [d]);
        }
    }

    #[test]
    fn n_66_2_only_checks_that_succeeded_have_a_time() {
        let mut checked = snapshot(&json!({}), &json!({}));
        checked.rtt_read = Some(44);
        let tags = of("wss://r.example.com", &checked);
        assert_eq!(values(&tags, "rtt-open"), ["31"]);
        assert_eq!(values(&tags, "rtt-read"), ["44"]);
        assert!(values(&tags, "rtt-write").is_empty());
    }

    #[test]
    fn n_66_3_and_12_the_network_is_the_hosts_whatever_its_port_and_path() {
        let onion = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion";
        let tags = of(&format!("ws://{onion}:8080/path"), &Snapshot::default());
        assert_eq!(values(&tags, "n"), ["tor"]);
        assert_eq!(values(&tags, "d"), [format!("ws://{onion}:8080/path")]);
        assert_eq!(values(&of("wss://r.example.com", &Snapshot::default()), "n"), ["clearnet"]);
    }

    #[test]
    fn n_66_4_and_5_nips_requirements_topics_and_languages_are_one_tag_each() {
        let nip11 = json!({
            "supported_nips": [1, 11, 11, "x", -4, 42.5, 65_536],
            "limitation": { "auth_required": false, "payment_required": true, "min_pow_difficulty": 0, "restricted_writes": "?" },
            "tags": ["bitcoin", 5, " sfw "], "language_tags": ["en", "en-419", "*", "deu"]
        });
        let tags = of("wss://r.example.com", &snapshot(&nip11, &json!({ "geo": { "geohash": "u1hbq" } })));
        assert_eq!(values(&tags, "N"), ["1", "11"]);
        assert_eq!(values(&tags, "R"), ["!auth", "!pow", "payment"]);
        assert_eq!(values(&tags, "t"), ["bitcoin", "sfw"]);
        assert_eq!(values(&tags, "g"), ["u1hbq"]);
        let languages: Vec<_> = tags.iter().filter(|tag| tag[0] == "l").collect();
        assert_eq!(languages, [&["l", "en", "ISO-639-1"].map(str::to_owned).to_vec()]);
    }

    #[test]
    fn n_66_6_what_was_probed_wins_over_what_the_document_says() {
        let stated = |auth: bool, writes: bool| json!({ "limitation": { "auth_required": auth, "restricted_writes": writes } });
        let open = snapshot(&stated(true, true), &json!({ "auth": "not_required" }));
        assert_eq!(values(&of("wss://r.example.com", &open), "R"), ["!auth", "writes"]);
        let mut written = open.clone();
        written.is_writable = Some(true);
        assert_eq!(values(&of("wss://r.example.com", &written), "R"), ["!auth", "!writes"]);
        let refused = json!({ "auth": "accepted", "failures": { "write": { "reason": "restricted" } } });
        let closed = snapshot(&stated(false, false), &refused);
        assert_eq!(values(&of("wss://r.example.com", &closed), "R"), ["auth", "writes"]);
    }

    #[test]
    fn n_66_6_the_content_is_the_document_unless_relays_would_refuse_it() {
        let content = |nip11: Value| {
            let url = RelayUrl::parse("wss://r.example.com").unwrap();
            let event = report(&url, &snapshot(&nip11, &json!({}))).sign_with_keys(&Keys::generate());
            event.unwrap().content
        };
        assert_eq!(content(json!({ "name": "r" })), r#"{"name":"r"}"#);
        assert_eq!(content(json!({ "name": "r".repeat(CONTENT_MAX) })), "");
        assert_eq!(content(Value::Null), "");
    }

    #[test]
    fn n_66_7_an_announcement_names_checks_and_timeouts_in_the_texts_order() {
        let profile = MonitorProfile {
            interval: Duration::from_hours(4),
            checks: vec![("open", Some(Duration::from_secs(10))), ("dns", None)],
        };
        assert_eq!(
            tags(announcement(&profile)),
            [
                vec!["frequency", "14400"],
                vec!["timeout", "10000", "open"],
                vec!["c", "open"],
                vec!["c", "dns"]
            ]
        );
    }

    #[test]
    fn n_66_11_a_dead_relay_has_no_time() {
        let failures = json!({ "failures": { "open": { "reason": "refused" } } });
        let mut dead = snapshot(&json!({}), &failures);
        (dead.is_openable, dead.rtt_open) = (false, None);
        let tags = of("wss://r.example.com", &dead);
        assert!(tags.iter().all(|tag| !tag[0].starts_with("rtt")), "{tags:?}");
    }
}
