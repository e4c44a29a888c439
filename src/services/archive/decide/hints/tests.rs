//! Each place where an event may name a relay, and no other URL comes out for any input.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn tags(tags: &[&[&str]]) -> Vec<Vec<String>> {
    tags.iter().map(|tag| tag.iter().map(|value| (*value).to_owned()).collect()).collect()
}

fn named(kind: i32, given: &[&[&str]], content: &str) -> Vec<String> {
    of_event(kind, &tags(given), content).into_iter().map(String::from).collect()
}

#[test]
fn n_65_4_each_place_that_names_a_relay_is_read_and_no_other() {
    let relay = "WSS://Relay.Example.com:443/";
    let canonical = ["wss://relay.example.com"];
    for (kind, tag) in [
        (10_002, vec!["r", relay, "read"]),
        (1, vec!["r", relay]),
        (10_050, vec!["relay", relay]),
        (10_006, vec!["relay", relay]),
        (10_007, vec!["relay", relay]),
        (10_051, vec!["relay", relay]),
        (30_166, vec!["d", relay]),
        (1, vec!["e", "00", relay, "reply"]),
        (1, vec!["p", "00", relay]),
        (1, vec!["a", "30023:00:x", relay]),
        (1, vec!["q", "00", relay]),
        (9_734, vec!["relays", "no", relay]),
    ] {
        assert_eq!(named(kind, &[&tag], ""), canonical, "{kind} {tag:?}");
    }
    for (kind, tag) in [
        (1, vec!["d", relay]),
        (1, vec!["e", relay]),
        (1, vec!["p", "00", "", relay]),
        (1, vec!["t", relay]),
        (1, vec!["r", "https://relay.example.com"]),
        (1, vec!["r"]),
        (1, vec!["r", "wss://relay\u{2400}.example.com"]),
        (1, vec![]),
    ] {
        assert_eq!(named(kind, &[&tag], relay), [""; 0], "{kind} {tag:?}");
    }
}

#[test]
fn follow_lists_name_relays_by_keys_and_recommendations_by_content() {
    let content = r#"{"wss://a.example.com/":{"read":true},"nobody":1,"ws://b.example.com":[]}"#;
    assert_eq!(named(3, &[], content), ["wss://a.example.com", "ws://b.example.com"]);
    assert_eq!(named(1, &[], content), [""; 0], "only there");
    // Keys before the error count.
    assert_eq!(named(3, &[], r#"{"wss://a.example.com":{},"wss://b.exa"#), ["wss://a.example.com"]);
    for odd in ["", "[]", "7", "\"wss://a.example.com\"", "{", &"[".repeat(100_000)] {
        assert_eq!(named(3, &[], odd), [""; 0]);
    }
    assert_eq!(named(2, &[], " wss://c.example.com "), ["wss://c.example.com"]);
}

#[test]
fn n_65_4_what_one_event_names_is_distinct_and_bounded() {
    let many: Vec<Vec<String>> =
        (0..5_000).map(|n| vec!["r".to_owned(), format!("wss://{}.example.com", n / 2)]).collect();
    let found = of_event(10_002, &many, "");
    assert_eq!(found.len(), EVENT_URLS_MAX);
    assert_eq!(found[99].as_str(), "wss://99.example.com");
    // Bad URLs count against the limit as well: the good one behind a thousand of them is not reached.
    let mut bad = vec![vec!["r".to_owned(), "wss://".to_owned()]; EVENT_TRIES_MAX];
    bad.push(vec!["r".to_owned(), "wss://late.example.com".to_owned()]);
    assert_eq!(of_event(1, &bad, ""), []);
    assert_eq!(of_event(1, &bad[1..], "").len(), 1);
}

#[test]
fn n_66_private_addresses_are_not_taken_as_hints() {
    for local in [
        "ws://127.0.0.1:7777",
        "ws://localhost",
        "ws://192.168.0.1",
        "ws://umbrel.local",
        "ws://relay",
        "ws://[::1]",
        "ws://169.254.169.254/latest",
    ] {
        assert_eq!(named(10_002, &[&["r", local]], ""), [""; 0], "{local}");
    }
}

#[test]
fn a_list_is_json_with_a_path_or_one_address_a_line() {
    let body = json!({ "relays": [{ "url": "wss://a.example.com" }, { "url": 7 }, { "url": "wss://B.example.com/" }] });
    let path = JsonPath::parse("$.relays[*].url").unwrap();
    let texts = |urls: Vec<RelayUrl>| urls.into_iter().map(String::from).collect::<Vec<_>>();
    let expected = ["wss://a.example.com", "wss://b.example.com"];
    assert_eq!(texts(of_list(body.to_string().as_bytes(), Some(&path)).unwrap()), expected);
    let plain = JsonPath::parse("$[*]").unwrap();
    let body = br#"["wss://a.example.com","wss://a.example.com","wss://b.example.com"]"#;
    assert_eq!(texts(of_list(body, Some(&plain)).unwrap()), expected);
    let lines = b"# relays\nwss://a.example.com\r\n\n\xff\n  wss://b.example.com  \n";
    assert_eq!(texts(of_list(lines, None).unwrap()), expected);
    of_list(b"<html>", Some(&path)).unwrap_err();
    assert_eq!(of_list(b"<html>", None).unwrap(), []);
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "(?i)wss?://[a-z0-9.-]{0,12}(:[0-9]{0,5})?[/a-z?#]{0,6}",
        "wss://[0-9.]{1,9}",
        "\\PC{0,20}",
        "(r|relay|d|e|p|a|q|relays|t)",
    ]
}

proptest! {
    #[test]
    fn only_canonical_public_addresses_come_out_and_never_too_many(
        kind in prop_oneof![Just(2), Just(3), Just(30_166), Just(10_002), 0..70_000_i32],
        tags in prop::collection::vec(prop::collection::vec(value(), 0..5), 0..200),
        keys in prop::collection::vec(value(), 0..20),
        cut in 0..400_usize,
    ) {
        let object: serde_json::Map<_, _> = keys.into_iter().map(|key| (key, json!([1, {}]))).collect();
        let mut content = serde_json::Value::from(object).to_string();
        content.truncate(content.floor_char_boundary(cut));
        let found = of_event(kind, &tags, &content);
        prop_assert!(found.len() <= EVENT_URLS_MAX);
        let distinct: HashSet<_> = found.iter().collect();
        prop_assert_eq!(distinct.len(), found.len());
        for url in &found {
            let again = RelayUrl::parse(url.as_str());
            prop_assert_eq!(again.as_ref(), Ok(url));
            prop_assert!(!url.is_local_address());
        }
    }

    #[test]
    fn no_list_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..300), with_path in any::<bool>()) {
        let path = JsonPath::parse("$..*").unwrap();
        if let Ok(found) = of_list(&body, with_path.then_some(&path)) {
            prop_assert!(found.len() <= LIST_URLS_MAX);
        }
    }
}
