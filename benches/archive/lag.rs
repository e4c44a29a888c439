//! Measures the time from publishing an event at one of a hundred live relays to its committed row.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nostr_sdk::{EventBuilder, Keys, Timestamp};
use quipu::base::{Clock as _, SystemClock};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::farm::{Character, Extent, Farm, Plan};
use super::instance::Instance;
use super::support::percentile;
use super::{Bar, Row, row};

const PLAN: Plan = Plan {
    relays: 100,
    character: Character::honest,
    extent: Extent { seed: 83, events: 2_000 },
    events_each: 50,
    port: 0,
};
const ROUNDS: usize = 500;
/// Limit on the 99th percentile, in seconds.
const LAG_MAX_S: f64 = 1.0;
/// Timeout until all live subscriptions are open, and of each round.
const TIMEOUT: Duration = Duration::from_mins(5);

pub(crate) async fn measure() -> Vec<Row> {
    let farm = Farm::start(&PLAN).await.expect("free ports");
    let instance = Instance::start(&["services.synchronizer.enabled=true"]).await;
    println!("{}", instance.durability().await);
    instance.add(farm.relays().iter().map(|relay| relay.url()));
    let started = Instant::now();
    let listening = || farm.of(|_| true).filter(|r| r.counts().listening.load(Ordering::Relaxed) > 0).count();
    while listening() < PLAN.relays {
        assert!(
            started.elapsed() < TIMEOUT,
            "{} of {} relays have a live subscription",
            listening(),
            PLAN.relays
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("all relays live after {:.1} s", started.elapsed().as_secs_f64());

    let keys = Keys::generate();
    let mut dice = ChaCha8Rng::seed_from_u64(84);
    let query = "SELECT count(*) FROM events WHERE created_at = $1 AND id = $2";
    let statement = instance.client.prepare(query).await.expect("the question is right");
    let mut lags = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let now = SystemClock.now().timestamp();
        let event = EventBuilder::text_note(format!("round {round}"))
            .custom_created_at(Timestamp::from_secs(now.cast_unsigned()))
            .sign_with_keys(&keys)
            .expect("a key of ours");
        let id = event.id.to_bytes().to_vec();
        let published = Instant::now();
        farm.publish(dice.random_range(0..PLAN.relays), event);
        loop {
            let row = instance.client.query_one(&statement, &[&now, &id]).await.expect("the server answers");
            if row.get::<_, i64>(0) == 1 {
                break;
            }
            assert!(published.elapsed() < TIMEOUT, "round {round} never arrives");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        lags.push(published.elapsed());
    }
    lags.sort_unstable();
    let (p50, p99) = (percentile(&lags, 0.5), percentile(&lags, 0.99));
    vec![row(
        "published at one of 100 live relays to committed, p99",
        format!("{:.0} ms (p50 {:.0} ms)", p99.as_secs_f64() * 1e3, p50.as_secs_f64() * 1e3),
        format!("{LAG_MAX_S} s"),
        p99.as_secs_f64() / LAG_MAX_S,
        Bar::AtMost(1.0),
    )]
}
