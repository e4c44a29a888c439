//! Working tables may be truncated at any time: work is repeated, but no fact is lost.

use std::time::Duration;

use quipu::store::lease::Leases;
use quipu::store::registry::{TABLES, TableKind};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::kit::{Kit, number, offered, sample, totals};

#[tokio::test]
async fn every_working_table_is_truncated_under_load_and_nothing_is_lost_or_counted_twice() {
    let mut kit = Kit::new().await;
    let relays = kit.relays(&["one", "two"]).await;
    let intake = kit.intake();
    let done = CancellationToken::new();
    let mut services = JoinSet::new();
    // Two processes of each service, which share the work by leases.
    for _ in 0..2 {
        let (ticker, leases) = (kit.ticker().await, Leases::new(kit.pools.write.clone()));
        let (pool, stop) = (kit.pools.write.clone(), done.clone());
        services.spawn(async move {
            while !stop.is_cancelled() {
                if !leases.take(&["ticker".to_owned()], Duration::from_millis(200)).await.unwrap().is_empty()
                {
                    ticker.take().await.unwrap();
                    ticker.forget().await.unwrap();
                }
                totals().catch_up(&pool).await.unwrap();
            }
        });
    }
    let mut load = JoinSet::new();
    for (relay, seed) in [(relays[0], 60), (relays[1], 60), (relays[0], 61)] {
        let intake = intake.clone();
        load.spawn(async move {
            let mut stored = 0;
            for events in sample(seed, 600).chunks(10) {
                stored += i64::from(
                    intake
                        .offer(Some(relay), offered(events), quipu::base::Refusals::default())
                        .await
                        .unwrap()
                        .stored,
                );
            }
            stored
        });
    }
    let superuser = kit.superuser().await;
    let working: Vec<&str> =
        TABLES.iter().filter(|(_, kind)| *kind == TableKind::Working).map(|(name, _)| *name).collect();
    let (mut stored, mut truncated) = (0, 0);
    while !load.is_empty() {
        for table in &working {
            superuser.batch_execute(&format!("TRUNCATE {table}")).await.unwrap();
            truncated += 1;
        }
        while let Some(told) = load.try_join_next() {
            stored += told.unwrap();
        }
    }
    done.cancel();
    services.join_all().await;
    assert!(truncated > 10, "only {truncated} truncations");
    kit.project().await;
    assert_eq!(stored, 1_200, "each event was new to exactly one of its pages");
    for (sql, expected) in [
        ("SELECT count(*) FROM events", 1_200),
        ("SELECT count(*) FROM sightings", 1_800),
        ("SELECT sum(events)::bigint FROM kind_totals", 1_200),
        ("SELECT sum(sightings)::bigint FROM relay_totals", 1_800),
        ("SELECT sum(stored)::bigint FROM minute_totals", 1_200),
    ] {
        assert_eq!(number(&superuser, sql).await, expected, "{sql}");
    }
    assert_eq!(kit.problems().await, Vec::<String>::new());
}
