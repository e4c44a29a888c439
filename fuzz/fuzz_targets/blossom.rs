//! Arbitrary bytes as tokens, names, ranges, hints, lists, reports and events of blobs, as answers of upstreams and as pictures: no
//! panic; what is read stays within its bounds, and no token is valid that was not signed.

#![no_main]

use std::str;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use quipu::base::Sha256;
use quipu::services::blossom::decide::authorization::{About, Demand, Token, Verb, host_of};
use quipu::services::blossom::decide::cursor::{PAGE_MAX, Page, Query};
use quipu::services::blossom::decide::hints::{Hints, blob_urls};
use quipu::services::blossom::decide::media::{normal_type, strip, type_of};
use quipu::services::blossom::decide::name::BlobName;
use quipu::services::blossom::decide::range::{Wanted, is_in_cache, range_applies, wanted};
use quipu::services::blossom::decide::references::{
    KINDS, REFERENCES_MAX, SERVERS_MAX, URL_BYTES_MAX, hash_in, references_of, servers_of,
};
use quipu::services::blossom::decide::report::read_report;
use quipu::services::blossom::upstream::descriptor;

fuzz_target!(|bytes: &[u8]| {
    picture(bytes);
    answers(bytes);
    let Ok(text) = str::from_utf8(bytes) else { return };
    token(text);
    token(&format!("Nostr {text}"));
    token(&format!("Nostr {}", URL_SAFE_NO_PAD.encode(text)));
    name(text);
    ranges(text);
    hints(text);
    query(text);
    event(text);
    let _ = read_report(text);
    media_type(text);
});

/// A token that is read was signed: random bytes never are. Those of the seeds have expired.
fn token(header: &str) {
    let Ok(token) = Token::parse(header) else { return };
    let hosts = ["blobs.example.com".to_owned()];
    for verb in Verb::ALL {
        let demand = Demand { verb: *verb, about: About::Nothing, hosts: &hosts, now: i64::MAX };
        assert!(token.check(demand).is_err(), "a token without end");
    }
}

fn name(text: &str) {
    let host = host_of(text);
    assert!(!host.contains('/') && host == host.to_ascii_lowercase(), "{host}");
    if let Ok(name) = BlobName::parse(text) {
        assert!(text.to_ascii_lowercase().starts_with(&name.sha256.to_string()), "{text}");
        assert!(name.extension.len() <= 10, "{text}");
    }
}

fn ranges(text: &str) {
    for size in [0, 1, 10, u64::from(u32::MAX), u64::MAX] {
        if let Wanted::Part(part) = wanted(Some(text), size) {
            assert!(part.first <= part.last && part.last < size, "{text} of {size}");
            assert!(part.bytes() >= 1 && part.bytes() <= size, "{text} of {size}");
        }
    }
    let blob = Sha256::of(b"blob");
    if is_in_cache(text, &blob) || range_applies(Some(text), &blob) {
        assert!(text.contains(&blob.to_string()) || text.contains('*'), "{text}");
    }
}

fn hints(text: &str) {
    let hints = Hints::parse(text);
    assert!(hints.servers.len() <= 4 && hints.authors.len() <= 2, "{text}");
    let blob = Sha256::of(b"blob");
    let servers: Vec<&str> = hints.servers.iter().map(String::as_str).chain([text]).collect();
    for url in blob_urls(servers, &blob, "bin") {
        assert!(url.has_host() && matches!(url.scheme(), "http" | "https"), "{url}");
        assert_eq!(hash_in(&url), Some(blob), "{url}");
    }
}

fn query(text: &str) {
    let mut values = text.split('&');
    let [limit, cursor, since, until] = [(); 4].map(|()| values.next());
    if let Ok(page) = Page::parse(Query { limit, cursor, since, until }) {
        assert!((1..=PAGE_MAX).contains(&page.limit), "{text}");
    }
}

/// Lines are tags, words their values; the whole is the content.
fn event(text: &str) {
    let tags: Vec<Vec<String>> =
        text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect();
    for kind in KINDS {
        let references = references_of(kind, &tags, text);
        assert!(references.len() <= REFERENCES_MAX, "{} references", references.len());
        let urls = references.iter().filter_map(|reference| reference.url.as_ref());
        for url in urls {
            // What is not ASCII grows when it is written as a URL.
            assert!(url.as_str().len() <= 4 * URL_BYTES_MAX && url.has_host(), "{url}");
        }
    }
    assert!(servers_of(&tags).len() <= SERVERS_MAX);
}

fn answers(bytes: &[u8]) {
    let _ = descriptor::read(200, bytes);
    assert!(descriptor::list(200, bytes).is_ok_and(|list| list.len() <= 10_000) || !bytes.starts_with(b"[]"));
}

fn picture(bytes: &[u8]) {
    if let Ok(stripped) = strip(bytes.to_vec().into()) {
        // What was cleaned is clean.
        let again = strip(stripped.content.clone());
        assert!(
            again.is_ok_and(|again| again.content == stripped.content),
            "another picture the second time"
        );
    }
    assert!(!type_of(None, bytes).is_empty());
}

fn media_type(text: &str) {
    if let Some(normal) = normal_type(text) {
        assert!(
            normal.len() <= 255 && normal == normal.to_ascii_lowercase() && normal.contains('/'),
            "{normal}"
        );
    }
}
