//! After catching up: live events, comparisons instead of downloads, authentication, and known gaps.

use std::time::Duration;

use nostr_relay_builder::prelude::{RelayBuilderNip42, RelayBuilderNip42Mode};
use nostr_relay_builder::{LocalRelay, RelayBuilder};
use nostr_sdk::{Event, EventBuilder, Keys, Timestamp};
use quipu::base::{RelayUrl, Secret};
use quipu::config::Networks;
use quipu::net::relay::{RelaySession, Timeouts};
use quipu::net::{Egress, Trust};
use quipu::sample::SampleGenerator;
use serde_json::Value;

use super::kit::{Relay, await_complete, await_count, free_port, now};
use crate::support::instance::Instance;
use crate::support::proxy::Proxy;

fn note(seconds: i64, text: &str) -> Event {
    let at = Timestamp::from_secs(u64::try_from(seconds).unwrap());
    EventBuilder::text_note(text).custom_created_at(at).sign_with_keys(&Keys::generate()).unwrap()
}

/// Publishes events as a client does.
async fn publish(url: &str, events: &[Event]) {
    let outside = Egress::new(&Networks::default()).unwrap();
    let patience = Timeouts { connect: Duration::from_secs(10), idle: Duration::from_secs(10) };
    let url = RelayUrl::parse(url).unwrap();
    let mut session = RelaySession::connect(&outside, &url, Trust::Named, patience).await.unwrap();
    for event in events {
        assert!(session.publish(event).await.unwrap().accepted);
    }
    session.close().await;
}

/// Waits until `relays` relays are caught up and have a live subscription.
async fn await_live(instance: &Instance, relays: u32) {
    for _ in 0..1_200 {
        if metric(instance, "quipu_archive_live_relays").await >= f64::from(relays) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no relay is live within a minute:\n{}", instance.log());
}

/// The sum of all series of one name.
async fn metric(instance: &Instance, name: &str) -> f64 {
    let (_, text) = instance.fetch("ops", "/metrics").await;
    let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let values = text.lines().filter(of_name).map(|line| line.rsplit_once(' ').unwrap().1);
    values.map(|value| value.parse::<f64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_relay_gets_is_archived_at_once_whatever_its_date() {
    let relay = Relay::start(SampleGenerator::paced(41, 700)).await;
    let instance = Instance::crawling(&[&relay.url], &[]);
    instance.run(&["relays", "add", &relay.url]).ok();
    await_complete(&instance, &relay.url, now() - 120).await;
    await_live(&instance, 1).await;
    let held = i64::try_from(relay.events.len()).unwrap();
    await_count(&instance, "SELECT count(*) FROM events", held).await;

    // The next comparison is an hour away, so these events can only arrive through the live subscription.
    let second = now();
    let news = [note(second, "now"), note(second - 400_000_000, "backdated"), note(second + 600, "early")];
    publish(&relay.url, &news).await;
    await_count(&instance, "SELECT count(*) FROM events_relays", held + 3).await;
    // Windows end at the present, and only windows prove completeness.
    let beyond = "SELECT count(*) FROM proven_windows WHERE until > extract(epoch FROM now())";
    assert_eq!(instance.count(beyond).await, 0);
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_relay_that_falls_silent_is_given_up_and_what_it_got_meanwhile_is_archived() {
    let relay = Relay::start(SampleGenerator::paced(59, 300)).await;
    let direct = Secret::new(relay.url.as_str());
    let proxy = Proxy::before(&direct).await;
    let url = proxy.url(&direct).expose().trim_end_matches('/').to_owned();
    let settings = [
        ["--set", "networks.clearnet.idle_timeout_s=1"],
        ["--set", "networks.clearnet.connect_timeout_s=1"],
        ["--set", "services.synchronizer.retry_min_s=1"],
        ["--set", "services.synchronizer.retry_max_s=1"],
    ];
    let instance = Instance::crawling(&[&url], settings.as_flattened());
    instance.run(&["relays", "add", &url]).ok();
    await_complete(&instance, &url, now() - 120).await;
    await_live(&instance, 1).await;
    let held = i64::try_from(relay.events.len()).unwrap();
    await_count(&instance, "SELECT count(*) FROM events", held).await;

    // Neither end is told that the connection is dead.
    proxy.fall_silent();
    publish(&relay.url, &[note(now(), "meanwhile")]).await;
    let given_up =
        "SELECT least(count(*), 1) FROM relay_log WHERE kind = 'observed' AND detail ->> 'reason' = 'silent'";
    await_count(&instance, given_up, 1).await;
    assert_eq!(instance.count("SELECT count(*) FROM events").await, held);
    proxy.let_through();
    await_count(&instance, "SELECT count(*) FROM events_relays", held + 1).await;
    await_live(&instance, 1).await;
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n_77_what_the_archive_has_already_is_compared_and_not_downloaded() {
    let events: Vec<Event> = SampleGenerator::paced(43, 3_000).collect();
    let first = Relay::start(events.clone()).await;
    let more: Vec<Event> = (0..20).map(|n| note(1_700_000_000 + n, "only here")).collect();
    let second = Relay::start([events, more].concat()).await;
    let instance = Instance::crawling(&[&first.url, &second.url], &[]);
    instance.run(&["relays", "add", &first.url]).ok();
    await_complete(&instance, &first.url, now() - 120).await;
    await_live(&instance, 1).await;
    let received = metric(&instance, "quipu_ingest_offered_events_total").await;

    instance.run(&["relays", "add", &second.url]).ok();
    await_complete(&instance, &second.url, now() - 120).await;
    await_live(&instance, 2).await;
    for relay in [&first, &second] {
        let seen = format!("SELECT count(*) FROM events_relays WHERE relay_url = '{}'", relay.url);
        await_count(&instance, &seen, i64::try_from(relay.events.len()).unwrap()).await;
    }
    assert!(metric(&instance, "quipu_archive_comparisons_total").await >= 1.0);
    // Requests, not pages: 3,000 events at 500 a page would take at least six.
    let asked = format!(
        "SELECT sum(requests)::bigint FROM sync_log JOIN relays r ON r.number = relay WHERE url = '{}'",
        second.url
    );
    let asked = instance.count(&asked).await;
    assert!(asked < 15, "{asked} questions, {received} events were offered before");
    instance.run(&["verify", "--events"]).ok();
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n_42_a_relay_that_wants_to_know_who_asks_is_told_and_archived() {
    let port = free_port();
    let store = nostr_relay_builder::prelude::MemoryDatabase::with_opts(
        nostr_relay_builder::prelude::MemoryDatabaseOptions { events: true, max_events: None },
    );
    for event in SampleGenerator::paced(47, 900) {
        nostr_relay_builder::prelude::NostrDatabase::save_event(&store, &event).await.unwrap();
    }
    let held =
        nostr_relay_builder::prelude::NostrDatabase::count(&store, nostr_sdk::Filter::new()).await.unwrap();
    let nip42 = RelayBuilderNip42 { mode: RelayBuilderNip42Mode::Both };
    let builder = RelayBuilder::default().addr([127, 0, 0, 1].into()).port(port).database(store).nip42(nip42);
    let server = LocalRelay::new(builder.default_filter_limit(500).max_filter_limit(500));
    server.run().await.unwrap();
    let url = format!("ws://127.0.0.1:{port}");
    let instance = Instance::crawling(&[&url], &[]);
    instance.run(&["relays", "add", &url]).ok();
    await_complete(&instance, &url, now() - 120).await;
    await_count(&instance, "SELECT count(*) FROM events", i64::try_from(held).unwrap()).await;
    instance.stop();
    server.shutdown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_with_more_than_a_relay_shows_is_a_known_gap_and_the_commands_say_so() {
    // 600 notes in one second, 500 per answer, on a relay without NIP-77.
    let flood = (0..600).map(|n| note(1_700_000_000, &n.to_string()));
    let relay =
        Relay::start(flood.chain([note(1_600_000_000, "before"), note(1_750_000_000, "after")])).await;
    let instance = Instance::crawling(&[&relay.url], &["--set", "services.synchronizer.negentropy=false"]);
    instance.run(&["relays", "add", &relay.url]).ok();
    await_count(&instance, "SELECT count(*) FROM known_gaps", 1).await;
    await_live(&instance, 1).await;

    let gaps = instance.run(&["archive", "gaps", "--json"]).ok().json_lines();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!((&gaps[0]["since"], &gaps[0]["until"]), (&1_700_000_000.into(), &1_700_000_000.into()));
    assert!(gaps[0]["reason"].as_str().unwrap().contains("one second"), "{gaps:?}");
    let shown = instance.run(&["archive", "gaps", "--relay", &relay.url]).ok().stdout;
    assert!(shown.contains("2023-11-14 22:13:20"), "{shown}");

    let coverage =
        &instance.run(&["archive", "coverage", "--relay", &relay.url, "--json"]).ok().json_lines()[0];
    let windows = |key: &str| coverage[key].as_array().unwrap().iter().collect::<Vec<&Value>>();
    assert_eq!((windows("proven").len(), windows("gaps").len()), (2, 1), "{coverage}");
    assert_eq!(windows("proven")[0]["until"], 1_699_999_999);
    assert_eq!(windows("proven")[1]["since"], 1_700_000_001);
    // The last minute was not requested yet.
    assert_eq!(windows("open").len(), 1, "{coverage}");
    let said = instance.run(&["archive", "coverage", "--relay", "wss://nobody.example.com"]).refusal();
    assert!(said.contains("is not known"), "{said}");
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_priority_synchronizer_knows_its_relays_and_runs_alone() {
    let relay = Relay::start(SampleGenerator::paced(53, 300)).await;
    let folder = crate::support::database::enterable_folder();
    let list = folder.path().join("first.txt");
    std::fs::write(&list, format!("# first of all\n{}\n", relay.url)).unwrap();
    let file = format!("services.priority_synchronizer.relays_file={}", list.display());
    let arguments = [
        "--set",
        "services.synchronizer.enabled=false",
        "--set",
        "services.priority_synchronizer.enabled=true",
        "--set",
        &file,
    ];
    // A relays file does not permit private addresses, so the settings name the relay.
    let instance = Instance::crawling(&[&relay.url], &arguments);
    await_complete(&instance, &relay.url, now() - 120).await;
    let held = i64::try_from(relay.events.len()).unwrap();
    await_count(&instance, "SELECT count(*) FROM events", held).await;
    assert!(instance.ready["services"].get("synchronizer").is_none());
    let both = ["check-config", "--set", "services.priority_synchronizer.enabled=true"];
    let said = instance.run(&both).refusal();
    assert!(said.contains("one of the two synchronizers runs"), "{said}");
    instance.stop();
}
