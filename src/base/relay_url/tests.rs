//! Tables of spellings and refusals, properties, and the list of all known relays.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// An onion name with a valid alphabet and version; the checksum is not checked.
const ONION: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";

fn canonical(text: &str) -> String {
    RelayUrl::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}")).to_string()
}

#[test]
fn many_spellings_are_one_relay() {
    for (text, expected) in [
        ("wss://relay.damus.io", "wss://relay.damus.io"),
        ("  WSS://Relay.Damus.IO.:443/\r\n", "wss://relay.damus.io"),
        ("wss://relay.damus.io/#about", "wss://relay.damus.io"),
        ("wss://relay.damus.io/?", "wss://relay.damus.io"),
        ("ws://relay.damus.io:80", "ws://relay.damus.io"),
        ("ws://relay.damus.io:443", "ws://relay.damus.io:443"),
        ("wss://relay.damus.io:00777", "wss://relay.damus.io:777"),
        ("wss://ditto.pub/Relay/", "wss://ditto.pub/Relay"),
        ("wss://ditto.pub/a/../relay//", "wss://ditto.pub/relay"),
        ("wss://ditto.pub/?key=A/", "wss://ditto.pub?key=A/"),
        ("wss://ditto.pub/relay/?key=A#x", "wss://ditto.pub/relay?key=A"),
        ("wss://my_relay.example", "wss://my_relay.example"),
        ("wss://Bücher.example/straße", "wss://xn--bcher-kva.example/stra%C3%9Fe"),
        ("wss://日本.example", "wss://xn--wgv71a.example"),
        ("ws://127.1:7777", "ws://127.0.0.1:7777"),
        ("ws://[0:0:0:0:0:0:0:1]:7777/", "ws://[::1]:7777"),
        ("wss://[2001:DB8::A]", "wss://[2001:db8::a]"),
        ("ws://localhost:8080", "ws://localhost:8080"),
    ] {
        assert_eq!(canonical(text), expected, "{text:?}");
    }
}

#[test]
fn a_text_that_is_not_a_relay_is_refused_with_its_reason() {
    let long = format!("wss://relay.example/{}", "a".repeat(RELAY_URL_BYTES_MAX - 19));
    let grows = format!("wss://relay.example/{}", "ß".repeat(200));
    let long_label = format!("wss://{}.example", "a".repeat(64));
    let no_version_3 = format!("ws://{}", ONION.replace("id.onion", "ie.onion"));
    for (text, reason) in [
        (" \t", "empty"),
        (&*long, "too_long"),
        (&*grows, "too_long"),
        ("wss://a.example wss://b.example", "unprintable"),
        ("wss://a.example/\u{0}", "unprintable"),
        ("wss://a.example/\u{3000}b", "unprintable"),
        ("relay.damus.io", "syntax"),
        ("wss://", "syntax"),
        ("wss://a.example:99999", "syntax"),
        ("wss://[::1", "syntax"),
        ("wss://a<b.example", "syntax"),
        ("https://relay.damus.io", "scheme"),
        ("relay.damus.io:443", "scheme"),
        ("wss://user@relay.damus.io", "credentials"),
        ("wss://:secret@relay.damus.io", "credentials"),
        ("wss://relay.damus.io:0", "port_zero"),
        ("wss://wss://relay.damus.io", "double_scheme"),
        ("wss://a..example", "host_name"),
        ("wss://.", "host_name"),
        (&*long_label, "host_name"),
        ("ws://expyuzz4wqqyqhjn.onion", "onion"),
        ("ws://onion", "onion"),
        (&*no_version_3, "onion"),
    ] {
        assert_eq!(RelayUrl::parse(text).map_err(|error| error.reason()), Err(reason), "{text:?}");
    }
    assert_eq!(
        RelayUrl::parse(&long).unwrap_err().to_string(),
        "the address has 513 bytes, at most 512 are allowed"
    );
}

#[test]
fn the_host_tells_the_network() {
    for (text, host, network) in [
        ("wss://relay.damus.io:444/x?y", "relay.damus.io", Network::Clearnet),
        ("wss://tor.example/a.onion", "tor.example", Network::Clearnet),
        ("ws://[::1]:7777/x", "[::1]", Network::Clearnet),
        (&format!("WS://{}:81/x", ONION.to_uppercase()), ONION, Network::Tor),
        (&format!("ws://sub.{ONION}"), &format!("sub.{ONION}"), Network::Tor),
        ("ws://relay.i2p", "relay.i2p", Network::I2p),
        ("ws://relay.loki:70", "relay.loki", Network::Loki),
    ] {
        let url = RelayUrl::parse(text).unwrap();
        assert_eq!((url.host(), url.network()), (host, network), "{text:?}");
    }
    assert_eq!(Network::I2p.to_string(), "i2p");
}

#[test]
fn local_and_public_addresses_are_told_apart() {
    for local in [
        "ws://localhost",
        "ws://a.localhost",
        "ws://umbrel.local",
        "ws://relay",
        "ws://127.0.0.1",
        "ws://0.0.0.0",
        "ws://10.1.2.3",
        "ws://192.168.1.1:7777",
        "ws://172.16.0.1",
        "ws://169.254.169.254",
        "ws://100.100.0.1",
        "ws://255.255.255.255",
        "ws://[::1]",
        "ws://[::]",
        "ws://[fe80::1]",
        "ws://[fd00::1]",
        "ws://[::ffff:10.0.0.1]",
        "ws://[64:ff9b::7f00:1]",
        "ws://[64:ff9b:1::808:808]",
        "ws://[2002:a00:1::]",
        "ws://[2001::1]",
        "ws://[2001:db8::1]",
        "ws://[fec0::1]",
        "ws://[ff02::1]",
        "ws://192.0.0.8",
    ] {
        assert!(RelayUrl::parse(local).unwrap().is_local_address(), "{local}");
    }
    for public in [
        "wss://relay.damus.io",
        "ws://8.8.8.8",
        "ws://[2606:4700::1111]",
        "ws://100.128.0.1",
        "ws://[64:ff9b::808:808]",
    ] {
        assert!(!RelayUrl::parse(public).unwrap().is_local_address(), "{public}");
    }
}

#[test]
fn every_bundled_seed_is_accepted_and_three_are_duplicates() {
    let text = include_str!("../../../seeds/seed_relays.txt");
    let accepted: Vec<_> = text.lines().map(|line| RelayUrl::parse(line).expect(line)).collect();
    assert_eq!(accepted.len(), 8_862);
    let unique: BTreeSet<_> = accepted.into_iter().collect();
    let tor = unique.iter().filter(|relay| relay.network() == Network::Tor).count();
    assert_eq!((unique.len(), tor), (8_859, 933));
}

/// Published lists hold these: the first is not an IPv4 address, the others are onion names with an invalid
/// version byte.
#[test]
fn invalid_addresses_of_published_lists_are_refused_with_the_reason() {
    for (address, reason) in [
        ("wss://100.127.36.484/8:4848", "syntax"),
        ("wss://ghitngnog66sfrnfvu7ihiyw2hllg2gmryjzzy5we3luqqzdxdu2gjgd.onion", "onion"),
        ("wss://yr6sxsqsn23qsgjtkant7qs6327j4zy2a5iymsjnhqlzn7izx6aumhvd.onion", "onion"),
    ] {
        assert_eq!(RelayUrl::parse(address).unwrap_err().reason(), reason, "{address}");
    }
}

#[test]
fn serde_refuses_what_the_parser_refuses() {
    let url: RelayUrl = serde_json::from_str("\"WSS://Nos.Lol/\"").unwrap();
    assert_eq!(serde_json::to_string(&url).unwrap(), "\"wss://nos.lol\"");
    serde_json::from_str::<RelayUrl>("\"http://nos.lol\"").unwrap_err();
}

proptest! {
    #[test]
    fn parsing_a_canonical_text_gives_the_same_text(
        text in r"(?i)wss?://([a-z0-9_.-]{1,20}|\[[0-9a-f:]{2,12}\]|[a-zßü日💜.]{1,9})(:[0-9]{0,5})?[/\\a-z%2eé.]{0,12}([?#][a-z/?#&= é]{0,9}){0,2}"
    ) {
        if let Ok(url) = RelayUrl::parse(&text) {
            prop_assert_eq!(RelayUrl::parse(url.as_str()), Ok(url.clone()));
            prop_assert!(!url.host().is_empty() && url.as_str().contains(url.host()));
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,40}", scheme in "(wss://|ws:|)") {
        if let Ok(url) = RelayUrl::parse(&format!("{scheme}{text}")) {
            prop_assert_eq!(RelayUrl::parse(url.as_str()), Ok(url.clone()));
            let _: (Network, bool) = (url.network(), url.is_local_address());
        }
    }
}
