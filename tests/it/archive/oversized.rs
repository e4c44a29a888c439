//! A message over the size limit in the middle of a relay's history: only its second is lost, and nothing
//! below it.

use std::collections::BTreeSet;

use nostr_sdk::EventId;

use super::kit::{await_count, now};
use crate::support::farm::{Character, Extent, Farm, Plan};
use crate::support::instance::Instance;

/// One relay of that character. Its second page would already contain the message.
const PLAN: Plan = Plan {
    relays: 1,
    character: |_| Character::LargeEvent,
    extent: Extent { seed: 91, events: 1_500 },
    events_each: 1_500,
    port: 0,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_around_and_below_a_message_too_long_is_archived_and_its_second_is_a_known_gap() {
    let farm = Farm::start(&PLAN).await.unwrap();
    let [relay] = farm.relays() else { panic!("one relay") };
    let url = relay.url();
    let settings =
        [["--set", "services.synchronizer.retry_min_s=1"], ["--set", "services.synchronizer.interval_s=1"]];
    let instance = Instance::crawling(&[&url], settings.as_flattened());
    instance.run(&["relays", "add", &url]).ok();

    let held = relay.held();
    let large = held.iter().find(|stored| stored.json.len() > 5_000_000).unwrap();
    let second = large.event.created_at;
    let others: BTreeSet<EventId> =
        held.iter().filter(|s| s.event.created_at != second).map(|s| s.event.id).collect();
    let reached = i64::try_from(others.len()).unwrap();
    await_count(&instance, "SELECT count(*) FROM events_relays", reached).await;
    let gap = format!(
        "SELECT count(*) FROM known_gaps WHERE since = {second} AND until = {second} AND reason LIKE 'a message of more%'"
    );
    await_count(&instance, &gap, 1).await;
    assert_eq!(instance.count("SELECT count(*) FROM known_gaps").await, 1);

    // Afterwards the relay is treated like any other: everything except that second is proven, and live
    // events arrive at once.
    let proven = format!(
        "SELECT count(*) FROM (SELECT range_agg(int8range(since, until, '[]')) AS w FROM proven_windows) p \
         WHERE w @> int8range(0, {second}) AND w @> int8range({second} + 2, {})",
        now() - 120
    );
    await_count(&instance, &proven, 1).await;
    let listening = || relay.counts().listening.load(std::sync::atomic::Ordering::Relaxed) > 0;
    crate::support::instance::await_some("the live subscription", || listening().then_some(()));
    instance.stop();
}
