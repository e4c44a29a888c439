//! The sample is the same on every machine, has valid signatures, and has the sizes of the real network.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::time::Instant;

use nostr_sdk::{Event, JsonUtil};
use sha2::{Digest, Sha256};

use super::*;

/// SHA-256 of the lines of seed 1. Changes only with the generator.
const FIRST_500_OF_SEED_1: &str = "08d96282b8e647c6daaf486a268f5d26f9b7157500762e0c4da57a4dd1bd6178";

fn lines(count: u64, seed: u64) -> Vec<u8> {
    let mut out = Vec::new();
    write_sample(&mut out, count, seed, |_| {}).unwrap();
    out
}

#[test]
fn the_first_events_of_seed_1_are_these_bytes() {
    assert_eq!(hex::encode(Sha256::digest(lines(500, 1))), FIRST_500_OF_SEED_1);
}

#[test]
fn chunks_change_nothing_and_a_longer_sample_begins_with_the_shorter() {
    let progress = Cell::new(0);
    let mut parallel = Vec::new();
    write_sample(&mut parallel, 4_500, 7, |written| progress.set(written)).unwrap();
    assert_eq!(progress.get(), 4_500);
    let mut sequential = String::new();
    for event in SampleGenerator::paced(7, 4_500) {
        sequential.push_str(&event.as_json());
        sequential.push('\n');
    }
    assert!(parallel == sequential.as_bytes(), "the same bytes in parallel");
    assert!(parallel.starts_with(&lines(3_000, 7)));
    assert!(!parallel.starts_with(&lines(1, 8)));
    assert!(lines(0, 7).is_empty());
}

#[test]
fn every_signature_verifies_after_a_round_trip() {
    let text = String::from_utf8(lines(3_000, 2)).unwrap();
    for line in text.lines() {
        Event::from_json(line).unwrap().verify().unwrap();
        assert!(!line.contains("\\u0000"), "NUL needs a test of its own, not a sample");
    }
}

#[test]
fn kinds_sizes_and_times_are_like_the_networks() {
    let span = 1_700_000_000..1_731_536_000;
    let count = 20_000;
    let events: Vec<Event> = SampleGenerator::new(3, 300, span.clone(), count).collect();
    assert_eq!(u64::try_from(events.len()).unwrap(), count);
    let ids: HashSet<_> = events.iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), events.len());
    let mut kinds: HashMap<u16, usize> = HashMap::new();
    let (mut content, mut tags, mut late, mut newest) = (0, 0, 0, 0);
    for event in &events {
        *kinds.entry(event.kind.as_u16()).or_default() += 1;
        content += event.content.len();
        tags += serde_json::to_string(&event.tags).unwrap().len();
        let created_at = event.created_at.as_secs();
        assert!(span.contains(&created_at));
        newest = newest.max(created_at);
        late += usize::from(created_at + 90 < newest);
    }
    let (content, tags) = (content / events.len(), tags / events.len());
    println!("content {content} B, tags {tags} B, backdated {late}, kinds {kinds:?}");
    assert!((315..=385).contains(&content), "content has {content} bytes on average");
    assert!((260..=320).contains(&tags), "tags have {tags} bytes on average");
    assert!((400..=800).contains(&late), "{late} events are dated back");
    for (kind, share) in [(1, 460), (7, 255), (6, 50), (0, 50), (9_735, 45), (3, 10), (30_023, 5), (5, 5)] {
        let seen = kinds[&kind] * 1_000 / events.len();
        assert!(seen.abs_diff(share) <= share / 8 + 3, "kind {kind}: {seen} of 1,000");
    }
    let longest = events.iter().filter(|event| event.kind.as_u16() == 3).map(|event| event.tags.len());
    assert_eq!(longest.max(), Some(300), "a follow list holds each author at most once");
}

/// A relay returns at most 500 events, and a reader pages by seconds.
#[test]
fn a_sample_can_be_paged_through() {
    let mut seconds: HashMap<u64, usize> = HashMap::new();
    for event in SampleGenerator::paced(6, 20_000) {
        *seconds.entry(event.created_at.as_secs()).or_default() += 1;
    }
    let most = seconds.values().max();
    assert!(most.is_some_and(|most| *most < 50), "{most:?} events have one second");
}

#[test]
fn equal_ids_never_occur_when_many_events_share_a_second() {
    let events = SampleGenerator::new(4, 3, 1_700_000_000..1_700_000_020, 20_000);
    let ids: HashSet<_> = events.map(|event| event.id).collect();
    assert_eq!(ids.len(), 20_000);
}

/// The bound is an eighth of the rate measured on a small machine; the rate is printed.
#[test]
fn five_thousand_events_a_second_on_one_core() {
    let generator = SampleGenerator::new(5, 100, 1_700_000_000..1_700_100_000, 10_000);
    let start = Instant::now();
    let events = generator.map(|event| event.as_json().len()).filter(|bytes| *bytes > 0).count();
    let sequential = start.elapsed().as_secs_f64();
    let start = Instant::now();
    lines(20_000, 5);
    let parallel = start.elapsed().as_secs_f64();
    println!("one core {:.0}/s, all cores {:.0}/s", 10_000.0 / sequential, 20_000.0 / parallel);
    assert_eq!(events, 10_000);
    assert!(sequential < 2.0, "{sequential} s for 10,000 events");
}
