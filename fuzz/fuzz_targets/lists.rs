//! Arbitrary bytes as a seed file, as a list of relays from the web, and as an event that names relays: no
//! panic, limits hold, and each URL found is canonical.

#![no_main]

use libfuzzer_sys::fuzz_target;
use quipu::base::RelayUrl;
use quipu::base::nostr_event::OfferedEvent;
use quipu::services::archive::decide::hints;
use quipu::services::archive::seeds::Seeds;

fn canonical(urls: &[RelayUrl]) {
    for url in urls {
        assert_eq!(
            RelayUrl::parse(url.as_str()).as_ref(),
            Ok(url),
            "parsing a canonical address gives the same text"
        );
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(seeds) = Seeds::read(bytes) {
        canonical(&seeds.relays);
    }
    for path in [None, serde_json_path::JsonPath::parse("$[*].url").ok()] {
        if let Ok(urls) = hints::of_list(bytes, path.as_ref()) {
            assert!(urls.len() <= hints::LIST_URLS_MAX);
            canonical(&urls);
        }
    }
    let Ok(text) = str::from_utf8(bytes) else { return };
    let _ = OfferedEvent::read(text);
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let tags: Vec<Vec<String>> =
        rest.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect();
    for kind in hints::KINDS.into_iter().chain([1]) {
        let urls = hints::of_event(kind, &tags, first);
        assert!(urls.len() <= hints::EVENT_URLS_MAX);
        canonical(&urls);
    }
});
