//! Relays that deliver hardly any events must not delay the others.

use std::time::{Duration, Instant};

use super::kit::{await_count, now};
use crate::support::farm::truth::archived;
use crate::support::farm::{Character, Extent, Farm, Plan};
use crate::support::instance::Instance;

/// Honest relays that take about a second each, whatever the load of the machine.
const HONEST: Plan = Plan {
    relays: 10,
    character: |_| Character::Slow,
    extent: Extent { seed: 71, events: 150 },
    events_each: 60,
    port: 0,
};

/// The same number of honest relays, and ten that never give up their slots and are crawled first.
const BESIDE: Plan = Plan {
    relays: 20,
    character: |number| match number {
        0..8 => Character::Drips(1),
        8 => Character::Announces(100_000),
        9 => Character::Announces(10_000),
        _ => Character::Slow,
    },
    extent: Extent { seed: 72, events: 150 },
    events_each: 60,
    port: 0,
};

/// Four reading slots, and one for slow relays. A relay must deliver five events per second of waiting.
const SETTINGS: [&str; 8] = [
    "--set",
    "services.synchronizer.catching_up_max=4",
    "--set",
    "services.synchronizer.slow_catching_up_max=1",
    "--set",
    "services.synchronizer.slow_after_s=1",
    "--set",
    "services.synchronizer.turn_s=5",
];

fn urls(farm: &Farm) -> Vec<String> {
    farm.relays().iter().map(|relay| relay.url()).collect()
}

/// Time from `relays add` until the honest relays are archived.
async fn time_to_archive(instance: &Instance, farm: &Farm) -> Duration {
    let urls = urls(farm);
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    instance.run(&[&["relays", "add"], urls.as_slice()].concat()).ok();
    time_until_archived(instance, farm, |character| character == Character::Slow).await
}

/// Time until every event of the relays of some characters is archived, a minute at most.
async fn time_until_archived(
    instance: &Instance,
    farm: &Farm,
    wanted: impl Fn(Character) -> bool,
) -> Duration {
    let client = instance.reader().await;
    let until = u64::try_from(now()).unwrap() - 120;
    let started = Instant::now();
    loop {
        let seen = archived(&client).await;
        let mut relays = farm.of(&wanted);
        let is_whole = |url: &str, mut ids: Box<dyn Iterator<Item = nostr_sdk::EventId>>| match seen.get(url)
        {
            Some(seen) => ids.all(|id| seen.contains(&id)),
            None => false,
        };
        if relays.all(|relay| is_whole(&relay.url(), Box::new(relay.sound(until)))) {
            return started.elapsed();
        }
        assert!(started.elapsed() < Duration::from_mins(1), "not archived:\n{}", instance.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_relays_beside_relays_that_drip_or_announce_take_at_most_twice_the_time_they_take_alone() {
    let (honest, beside) = (Farm::start(&HONEST).await.unwrap(), Farm::start(&BESIDE).await.unwrap());
    let all = [urls(&honest), urls(&beside)].concat();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let instance = Instance::crawling(&all, &SETTINGS);
    let alone = time_to_archive(&instance, &honest).await;
    let together = time_to_archive(&instance, &beside).await;
    println!("alone {alone:?}, beside ten that are too slow {together:?}");
    assert!(together <= alone * 2, "alone {alone:?}, beside relays that are too slow {together:?}");

    // A relay whose announcements take too long is read page by page, not behind those that drip: these take
    // turns of five seconds in the one slot for slow relays.
    let announces = |character: Character| matches!(character, Character::Announces(_));
    let announcing = time_until_archived(&instance, &beside, announces).await;
    println!("the relays that announce {announcing:?} later");
    assert!(announcing < Duration::from_secs(15), "relays that announce wait for slow ones: {announcing:?}");

    // Every relay that drips is recorded as too slow.
    let named = "SELECT count(DISTINCT r.url) FROM relay_log l JOIN relays r ON r.number = l.relay \
                 WHERE l.kind = 'observed' AND l.detail ->> 'what' = 'too_slow'";
    let drips: Vec<String> =
        beside.of(|character| character == Character::Drips(1)).map(|r| format!("'{}'", r.url())).collect();
    await_count(&instance, &format!("{named} AND r.url IN ({})", drips.join(", ")), 8).await;
    instance.stop();
}
