//! A request to vanish in a complete instance: recorded by default; carried out where the settings say so,
//! also after a crash, and permanently.

use nostr_sdk::{Event, EventBuilder, JsonUtil as _, Keys, Kind, Tag, Timestamp};

use super::kit::{Relay, await_complete, await_count, import, now};
use crate::support::instance::Instance;

const T: u64 = 1_700_000_000;
const HONOUR: [&str; 2] = ["--set", "services.ingest.vanish=honour"];
const EVENTS: &str = "SELECT count(*) FROM events";

fn signed(keys: &Keys, kind: u16, at: u64, tags: &[[&str; 2]]) -> Event {
    EventBuilder::new(Kind::from(kind), "x")
        .tags(tags.iter().map(|tag| Tag::parse(*tag).unwrap()))
        .custom_created_at(Timestamp::from_secs(at))
        .sign_with_keys(keys)
        .unwrap()
}

fn lines<'a>(events: impl IntoIterator<Item = &'a Event>) -> String {
    events.into_iter().map(|event| event.as_json() + "\n").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n_62_3_a_vanished_key_stays_away_through_a_crash_an_import_and_a_crawl() {
    let keys = Keys::generate();
    let notes: Vec<Event> = (0..50).map(|n| signed(&keys, 1, T + n, &[])).collect();
    let request = signed(&keys, 62, T + 39, &[["relay", "wss://archive.example"]]);
    let relay = Relay::start(notes.clone()).await;
    let mut instance = Instance::crawling(&[&relay.url], &HONOUR);
    import(&instance, lines(notes.iter().chain([&request])).as_bytes(), &[]);
    await_count(&instance, EVENTS, 51).await;
    // The request is committed; the process is killed before the erasure.
    instance.kill_9();
    instance.go_with(&["--set", "services.ingest.vanish_relay_urls=[\"wss://archive.example\"]"]);
    await_count(&instance, EVENTS, 11).await;
    let total = import(&instance, lines(&notes).as_bytes(), &[]);
    assert_eq!((total["stored"].as_u64(), total["known"].as_u64()), (Some(0), Some(50)));
    instance.run(&["relays", "add", &relay.url]).ok();
    await_complete(&instance, &relay.url, now() - 180).await;
    assert_eq!(instance.count(EVENTS).await, 11);
    assert_eq!(instance.count("SELECT count(*) FROM sightings").await, 10, "of those that stayed");
    assert_eq!(instance.count("SELECT count(*) FROM erasure").await, 1);
    assert_eq!(instance.count("SELECT count(*) FROM events WHERE kind = 62").await, 1, "the evidence");
    instance.run(&["verify", "--events"]).ok();
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lilbrotr_honours_requests_although_it_stores_no_tags_and_shows_nothing_to_the_public() {
    let instance = Instance::start(&[&HONOUR[..], &["--implementation", "lilbrotr"]].concat());
    let keys = Keys::generate();
    let events = [
        signed(&keys, 1, T, &[]),
        signed(&keys, 1, T + 5, &[]),
        signed(&keys, 62, T, &[["relay", "ALL_RELAYS"]]),
        signed(&Keys::generate(), 62, T, &[["relay", "wss://other.example"]]),
    ];
    import(&instance, lines(&events).as_bytes(), &[]);
    await_count(&instance, EVENTS, 3).await;
    let total = import(&instance, lines(&events).as_bytes(), &[]);
    assert_eq!(total["stored"], 0);
    assert_eq!(instance.count("SELECT count(*) FROM vanish_requests").await, 2);
    assert_eq!(instance.count("SELECT count(*) FROM public_events(0)").await, 0);
    instance.run(&["verify"]).ok();
    instance.stop();
}
