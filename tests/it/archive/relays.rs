//! Archives relays of another project and exports their events.

use std::collections::HashSet;

use nostr_sdk::{Event, EventBuilder, JsonUtil as _, Keys, Timestamp};
use quipu::sample::SampleGenerator;
use quipu::services::archive::read;
use quipu::store::{DatabaseUrls, PoolSizes, Pools, owner};
use serde_json::Value;

use super::kit::{
    Relay, assert_exported_as_signed, await_complete, await_count, exported, import, now, real_events,
};
use crate::support::instance::Instance;

fn as_json(events: &[Event]) -> Vec<Value> {
    events.iter().map(|event| serde_json::from_str(&event.as_json()).unwrap()).collect()
}

/// Asserts that all events of `relay` are archived, counted by SQL, exported as signed, and proven.
async fn archive_all(relay: &Relay, signed: &[Value]) {
    let instance = Instance::crawling(&[&relay.url], &[]);
    let started = now();
    let added = instance.run(&["relays", "add", &relay.url, "--json"]).ok().json_lines();
    assert_eq!(added[0]["new"], true);
    await_complete(&instance, &relay.url, started - 120).await;

    let held = i64::try_from(signed.len()).unwrap();
    assert_eq!(instance.count("SELECT count(*) FROM events").await, held);
    let of_relay = format!("SELECT count(*) FROM events_relays WHERE relay_url = '{}'", relay.url);
    assert_eq!(instance.count(&of_relay).await, held);
    assert_eq!(instance.count("SELECT count(*) FROM sync_log WHERE outcome <> 'complete'").await, 0);
    assert_eq!(instance.count("SELECT sum(events)::bigint FROM sync_log").await, held);
    let newest = signed.iter().map(|event| event["created_at"].as_i64().unwrap()).max().unwrap();
    let last = "SELECT max(last_event_timestamp) FROM relay_last_event_timestamp";
    assert_eq!(instance.count(last).await, newest);

    assert_exported_as_signed(&exported(&instance, &["--relay", &relay.url]), signed);
    let proofs = instance.run(&["verify", "--events"]).ok();
    assert!(proofs.stdout.contains(&format!("id and signature of {held} events")), "{}", proofs.stdout);
    await_count(&instance, "SELECT coalesce(sum(events), 0)::bigint FROM kind_totals", held).await;
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_strange_relay_holds_is_archived_whole_and_exported_as_it_was_signed() {
    let relay = Relay::start(SampleGenerator::paced(11, 4_000)).await;
    assert!(relay.events.len() > 3_000, "several pages");
    archive_all(&relay, &as_json(&relay.events)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_events_survive_the_way_through_a_relay_and_the_archive() {
    let Some(real) = real_events() else {
        // The real events are not part of the repository; the sample above takes the same path.
        return;
    };
    let events = real.iter().map(|event| Event::from_json(event.to_string()).unwrap());
    let relay = Relay::start(events).await;
    let held: HashSet<String> = relay.events.iter().map(|event| event.id.to_hex()).collect();
    let signed: Vec<Value> =
        real.into_iter().filter(|event| held.contains(event["id"].as_str().unwrap())).collect();
    assert!(signed.len() > 500, "{}", signed.len());
    archive_all(&relay, &signed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_dated_2100_freezes_neither_its_relay_nor_the_others() {
    let keys = Keys::generate();
    let at = |seconds: u64| {
        let note = EventBuilder::text_note(format!("at {seconds}"));
        note.custom_created_at(Timestamp::from_secs(seconds)).sign_with_keys(&keys).unwrap()
    };
    let year_2100 = at(4_102_444_800);
    let now_s = u64::try_from(now()).unwrap();
    let recent = [at(now_s - 5_000), at(now_s - 4_000)];
    let far = Relay::start([vec![year_2100.clone()], recent.to_vec()].concat()).await;
    let near = Relay::start(recent.clone()).await;
    let instance =
        Instance::crawling(&[&far.url, &near.url], &["--set", "services.synchronizer.interval_s=1"]);

    // Imported from a file, because the synchronizer itself never requests events beyond the present.
    let total = import(&instance, year_2100.as_json().as_bytes(), &["--relay", &far.url]);
    assert_eq!(total["stored"], 1);
    instance.run(&["relays", "add", &near.url]).ok();
    for relay in [&far, &near] {
        await_complete(&instance, &relay.url, now() - 120).await;
    }
    assert_eq!(instance.count("SELECT count(*) FROM events").await, 3);
    let progress = "SELECT max(last_event_timestamp) FROM relay_last_event_timestamp";
    assert_eq!(instance.count(progress).await, 4_102_444_800);

    // Windows end at the present, and the relay is asked for what comes after them. What holds no events is
    // recorded once an hour.
    let beyond = "SELECT count(*) FROM sync_log WHERE until > extract(epoch FROM now())";
    assert_eq!(instance.count(beyond).await, 0);
    let again = format!(
        "SELECT count(*) FROM relay_visits v JOIN relays r ON r.number = v.relay
         WHERE r.url = '{}' AND v.caught_up_at >= to_timestamp({})",
        far.url,
        now() + 1
    );
    await_count(&instance, &again, 1).await;

    // The relay furthest behind comes first at every moment.
    let urls = DatabaseUrls {
        write: instance.url("database_url"),
        session: instance.url("session_database_url"),
        read: instance.url("session_database_url"),
        owner: Some(instance.url("owner_database_url")),
    };
    let pools = Pools::open(&urls, PoolSizes::default()).unwrap();
    let owner = owner::connect(urls.owner().unwrap()).await.unwrap();
    let order = async |now: i64| -> Vec<String> {
        // Leased relays are left out of the query, so the leases are removed for this moment.
        owner.batch_execute("DELETE FROM lease WHERE name LIKE 'synchronizer/%'").await.unwrap();
        read::relays_to_crawl(&pools.session, now, &[], 0).await.unwrap().into_iter().map(|c| c.url).collect()
    };
    assert_eq!(order(now()).await, [near.url.clone(), far.url.clone()]);
    // At this moment both are clamped: the relay known longer comes first.
    assert_eq!(order(1_000).await, [far.url.clone(), near.url.clone()]);
    pools.close().await;
    instance.run(&["verify", "--events"]).ok();
    instance.stop();
}
