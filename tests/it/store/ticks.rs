//! Ticks: every reader sees every entry once, however late and in whatever order transactions commit.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::Client;

use super::kit::{Kit, ingest_journal, number, page, sample, texts, totals};
use crate::support::proxy::eventually;
use crate::support::rounds::rounds;

/// An entry that says that one event of this kind was stored.
fn entry(kind: i64) -> String {
    format!(
        "INSERT INTO ingest_log (batch, command, source, offered, stored, sighted, kinds, kind_counts, relays, relay_counts)
         VALUES (quipu_draw_slots(1), gen_random_uuid(), 'relay', 1, 1, 0, '{{{kind}}}', '{{1}}', '{{}}', '{{}}')"
    )
}

/// How often the projection counted each kind.
async fn counted(client: &Client) -> BTreeMap<i64, i64> {
    let rows = client.query("SELECT kind::bigint, events FROM kind_totals", &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Takes a tick, retrying until there is one, and applies it.
async fn tick(kit: &Kit) {
    let ticker = kit.ticker().await;
    eventually("a tick is taken", || async { ticker.take().await.unwrap().is_some() }).await;
    totals().catch_up(&kit.pools.write).await.unwrap();
}

#[tokio::test]
async fn entries_that_commit_in_the_opposite_order_of_their_positions_are_seen_once_each() {
    let kit = Kit::new().await;
    let (first, second) = (kit.database.service().await, kit.database.service().await);
    tick(&kit).await;
    first.batch_execute(&format!("BEGIN; {}", entry(1))).await.unwrap();
    second.batch_execute(&format!("BEGIN; {}; COMMIT", entry(2))).await.unwrap();
    tick(&kit).await;
    assert_eq!(counted(&second).await, BTreeMap::from([(2, 1)]));
    first.batch_execute("COMMIT").await.unwrap();
    tick(&kit).await;
    tick_if_any(&kit).await;
    assert_eq!(counted(&second).await, BTreeMap::from([(1, 1), (2, 1)]));

    for journal in ["ingest_log", "journal"] {
        let batches = format!(
            "SELECT coalesce(string_agg(j.position::text, ',' ORDER BY j.position), '')
             FROM (SELECT number, snapshot, lag(snapshot) OVER (ORDER BY number) AS last FROM tick) t
             LEFT JOIN LATERAL {journal}_between(t.last, t.snapshot) j ON true
             WHERE t.last IS NOT NULL GROUP BY t.number ORDER BY t.number"
        );
        let seen = texts(&second, &batches).await;
        let order = texts(&second, "SELECT position::text FROM ingest_log ORDER BY position DESC").await;
        let seen: Vec<&String> = seen.iter().filter(|batch| !batch.is_empty()).collect();
        assert_eq!(seen, order.iter().collect::<Vec<_>>(), "{journal}: the later position first, each once");
    }
}

async fn tick_if_any(kit: &Kit) {
    kit.ticker().await.take().await.unwrap();
    totals().catch_up(&kit.pools.write).await.unwrap();
}

#[tokio::test]
async fn an_entry_whose_position_was_drawn_before_its_transaction_began_to_count_is_seen() {
    let kit = Kit::new().await;
    let writer = kit.database.service().await;
    let position = number(&writer, "SELECT nextval('journal_position')").await;
    tick(&kit).await;
    let late = entry(7)
        .replace("(batch,", "(position, batch,")
        .replace("VALUES (", &format!("VALUES ({position}, "));
    writer.batch_execute(&late).await.unwrap();
    tick(&kit).await;
    assert_eq!(counted(&writer).await, BTreeMap::from([(7, 1)]));
}

#[tokio::test]
async fn entries_do_not_wait_for_open_transactions_of_other_sessions_in_this_or_another_database() {
    let mut kit = Kit::new().await;
    let elsewhere = Kit::new().await;
    let strangers = [kit.database.service().await, elsewhere.database.service().await];
    for stranger in &strangers {
        stranger.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    }
    let writer = kit.writer(ingest_journal());
    let reader = kit.database.service().await;
    // The other transactions stay open for ten seconds; in `make soak` for longer.
    let turns = 20 * rounds();
    let mut pace = tokio::time::interval(Duration::from_millis(500));
    for (turn, event) in sample(40, turns).into_iter().enumerate() {
        pace.tick().await;
        writer.append(page(None, &[event])).await.unwrap();
        tick(&kit).await;
        let seen = number(&reader, "SELECT sum(events)::bigint FROM kind_totals").await;
        assert_eq!(seen, i64::try_from(turn).unwrap() + 1, "an entry waits for another session");
    }
    for stranger in &strangers {
        stranger.batch_execute("COMMIT").await.unwrap();
    }
    tick(&kit).await;
    let seen = number(&reader, "SELECT sum(events)::bigint FROM kind_totals").await;
    assert_eq!(u64::try_from(seen), Ok(turns));
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

/// Four writers begin, write, commit and roll back in random order, while ticks are taken and applied.
#[tokio::test]
async fn each_committed_entry_is_counted_once_in_any_order_of_commits() {
    for seed in 0..4 * rounds() {
        let kit = Kit::new().await;
        let mut dice = StdRng::seed_from_u64(seed);
        let mut open: Vec<Vec<i64>> = vec![Vec::new(); 4];
        let mut writers = Vec::new();
        for _ in 0..4 {
            writers.push(kit.database.service().await);
        }
        let mut committed = BTreeMap::new();
        for step in 0..150_i64 {
            let who = dice.random_range(0..4);
            match dice.random_range(0..7) {
                0..=2 if open[who].len() < 3 => {
                    let begin = if open[who].is_empty() { "BEGIN; " } else { "" };
                    writers[who].batch_execute(&format!("{begin}{}", entry(step))).await.unwrap();
                    open[who].push(step);
                }
                3 | 4 if !open[who].is_empty() => {
                    writers[who].batch_execute("COMMIT").await.unwrap();
                    committed.extend(open[who].drain(..).map(|kind| (kind, 1)));
                }
                5 if !open[who].is_empty() => {
                    writers[who].batch_execute("ROLLBACK").await.unwrap();
                    open[who].clear();
                }
                _ => tick_if_any(&kit).await,
            }
        }
        for (who, writer) in writers.iter().enumerate().filter(|(who, _)| !open[*who].is_empty()) {
            writer.batch_execute("COMMIT").await.unwrap();
            committed.extend(open[who].iter().map(|kind| (*kind, 1)));
        }
        tick(&kit).await;
        assert_eq!(counted(&writers[0]).await, committed, "seed {seed}");
    }
}

#[tokio::test]
async fn concurrent_tickers_keep_one_order_and_concurrent_projectors_count_once() {
    let mut kit = Kit::new().await;
    let writer = kit.writer(ingest_journal());
    let done = tokio_util::sync::CancellationToken::new();
    for _ in 0..2 {
        let (ticker, pool, done) = (kit.ticker().await, kit.pools.write.clone(), done.clone());
        kit.tasks.spawn(async move {
            while !done.is_cancelled() {
                ticker.take().await.unwrap();
                totals().catch_up(&pool).await.unwrap();
            }
        });
    }
    for events in sample(41, 200).chunks(5) {
        writer.append(page(None, events)).await.unwrap();
    }
    done.cancel();
    drop(writer);
    while kit.tasks.join_next().await.is_some() {}
    kit.project().await;
    let owner = kit.database.owner().await;
    let disorder = "SELECT count(*) FROM (
            SELECT snapshot, last_position, lag(snapshot) OVER w AS s, lag(last_position) OVER w AS p FROM tick WINDOW w AS (ORDER BY number)) t
        WHERE pg_snapshot_xmin(snapshot)::text::bigint < pg_snapshot_xmin(s)::text::bigint
           OR pg_snapshot_xmax(snapshot)::text::bigint < pg_snapshot_xmax(s)::text::bigint OR last_position < p";
    assert_eq!(number(&owner, disorder).await, 0);
    assert!(number(&owner, "SELECT count(*) FROM tick").await > 1);
    assert_eq!(number(&owner, "SELECT sum(events)::bigint FROM kind_totals").await, 200);
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn an_idle_database_takes_no_ticks() {
    let kit = Kit::new().await;
    tick(&kit).await;
    // Other tests write in the same cluster, and passing transaction ids are checked once a second, not at
    // every call.
    let ticker = kit.ticker().await;
    let started = std::time::Instant::now();
    let mut taken = 0;
    for _ in 0..200 {
        taken += u64::from(ticker.take().await.unwrap().is_some());
    }
    let strangers = 10 * (started.elapsed().as_secs() + 1);
    assert!(taken <= strangers, "{taken} ticks in {:?} in which nothing was written here", started.elapsed());
    // A tick without new entries leaves no checkpoint.
    let before = number(&kit.superuser().await, "SELECT tick FROM checkpoint").await;
    assert!(!totals().catch_up(&kit.pools.write).await.unwrap());
    assert_eq!(number(&kit.superuser().await, "SELECT tick FROM checkpoint").await, before);
}

#[tokio::test]
async fn when_ticks_are_deleted_a_reader_continues_from_its_checkpoint() {
    let kit = Kit::new().await;
    let (early, late) = (kit.database.service().await, kit.database.service().await);
    late.batch_execute(&format!("BEGIN; {}", entry(1))).await.unwrap();
    early.batch_execute(&entry(2)).await.unwrap();
    tick(&kit).await;
    kit.superuser().await.batch_execute("TRUNCATE tick").await.unwrap();
    assert!(!totals().catch_up(&kit.pools.write).await.unwrap(), "without a tick there is nothing to apply");
    late.batch_execute("COMMIT").await.unwrap();
    early.batch_execute(&entry(2)).await.unwrap();
    tick(&kit).await;
    assert_eq!(counted(&early).await, BTreeMap::from([(1, 1), (2, 2)]));
}
