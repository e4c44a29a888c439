//! Published events: kinds 30166 and 10166, and with a name also 0 and 10002.

use nostr_sdk::{Event, JsonUtil as _};
use quipu::lifecycle::Service as _;
use quipu::services::archive::react::Publisher;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::kit::Bench;
use super::stub::{Manner, Page, Stub};
use crate::support::proxy::eventually;

/// Checks all due relays and publishes until `target` has received `events` events.
async fn published(bench: &mut Bench, target: &Stub, events: usize) -> Vec<Value> {
    let (monitor, publisher) = bench.monitor();
    let publisher: Publisher = publisher.expect("it publishes");
    monitor.cycle(&CancellationToken::new()).await.unwrap();
    let drain = CancellationToken::new();
    let stop = drain.clone();
    let mut cycle = JoinSet::new();
    cycle.spawn(async move { publisher.cycle(&drain).await.unwrap() });
    eventually("events are published", || async { target.events().len() >= events }).await;
    stop.cancel();
    cycle.join_all().await;
    let all = target.events();
    assert_eq!(all.len(), events, "{all:?}");
    for event in &all {
        let event = Event::from_json(event.to_string()).unwrap();
        event.verify().unwrap();
        assert_eq!(event.pubkey, bench.keys.public_key());
    }
    all
}

fn tags<'a>(event: &'a Value, name: &str) -> Vec<&'a str> {
    let tags = event["tags"].as_array().unwrap().iter();
    tags.filter(|tag| tag[0] == name).map(|tag| tag[1].as_str().unwrap()).collect()
}

async fn bench(target: &Stub) -> Bench {
    let mut bench = Bench::new().await;
    bench.settings.publish = true;
    bench.settings.publish_relays = vec![target.url()];
    bench
}

#[tokio::test]
async fn n_66_1_and_11_each_snapshot_is_reported_once_and_time_grows_for_each_relay() {
    let target = Stub::honest().await;
    let mut bench = bench(&target).await;
    let document =
        json!({ "name": "r", "supported_nips": [1, 11], "limitation": { "payment_required": false } });
    let relay = Stub::start(Manner::Honest, Page::document(&document)).await;
    bench.add(&relay.url(), "operator").await;
    bench.add("ws://127.0.0.1:1", "operator").await;
    let first = published(&mut bench, &target, 3).await;
    assert_eq!(first[0]["kind"], 10_166);
    assert_eq!(tags(&first[0], "frequency"), ["14400"]);
    let of = |events: &[Value], d: &str| {
        let found = events.iter().filter(|event| event["kind"] == 30_166 && tags(event, "d") == [d]);
        found.cloned().collect::<Vec<_>>()
    };
    let d = format!("{}/", relay.url());
    let report = &of(&first, &d)[0];
    assert_eq!(tags(report, "n"), ["clearnet"]);
    assert_eq!(tags(report, "N"), ["1", "11"]);
    assert_eq!(tags(report, "R"), ["!auth", "!payment"]);
    assert_eq!((tags(report, "rtt-open").len(), tags(report, "rtt-read").len()), (1, 1));
    assert!(tags(report, "rtt-write").is_empty());
    assert_eq!(serde_json::from_str::<Value>(report["content"].as_str().unwrap()).unwrap(), document);
    let dead = &of(&first, "ws://127.0.0.1:1/")[0];
    assert_eq!(dead["tags"], json!([["d", "ws://127.0.0.1:1/"], ["n", "clearnet"]]), "N-66.11");

    bench.next_round();
    let all = published(&mut bench, &target, 6).await;
    for d in [d.as_str(), "ws://127.0.0.1:1/"] {
        let times: Vec<u64> = of(&all, d).iter().map(|event| event["created_at"].as_u64().unwrap()).collect();
        assert!(times.len() == 2 && times[0] < times[1], "{times:?}");
    }
}

#[tokio::test]
async fn n_66_8_a_monitor_with_a_name_also_says_who_it_is_and_where_it_writes() {
    let target = Stub::honest().await;
    let mut bench = bench(&target).await;
    bench.settings.publish_name = Some("watcher".to_owned());
    let events = published(&mut bench, &target, 3).await;
    let kinds: Vec<u64> = events.iter().map(|event| event["kind"].as_u64().unwrap()).collect();
    assert_eq!(kinds, [10_166, 0, 10_002]);
    assert!(events[1]["content"].as_str().unwrap().contains("watcher"));
    assert_eq!(events[2]["tags"], json!([["r", target.url(), "write"]]));
}

#[tokio::test]
async fn an_event_whose_answer_was_lost_is_not_published_again() {
    let hasty = Stub::start(Manner::HangsUp, Page::document(&json!({ "name": "hasty" }))).await;
    let target = Stub::honest().await;
    let mut bench = bench(&target).await;
    // The relays are published to in their order, so the first one has everything when the last one has.
    bench.settings.publish_relays.insert(0, hasty.url());
    bench.settings.publish_name = Some("watcher".to_owned());
    published(&mut bench, &target, 3).await;
    let kinds: Vec<u64> = hasty.events().iter().map(|event| event["kind"].as_u64().unwrap()).collect();
    assert_eq!(kinds, [10_166, 0], "the third one waits for the pause after the failure");
}

#[tokio::test]
async fn nothing_is_published_unless_it_is_enabled() {
    let mut bench = Bench::new().await;
    assert!(bench.monitor().1.is_none());
}

#[tokio::test]
async fn a_relay_that_is_away_does_not_keep_reports_from_the_others() {
    let target = Stub::honest().await;
    let mut bench = bench(&target).await;
    bench.settings.publish_relays.insert(0, "ws://127.0.0.1:1".to_owned());
    bench.add(&target.url(), "operator").await;
    published(&mut bench, &target, 2).await;
}
