//! The views of gaps and proofs say the same as their definitions, however many windows a relay has.

use super::kit::{Kit, number};

/// The views as they are defined: each gap without what was settled later, each proof without later gaps.
/// Their cost is quadratic in the windows of a relay.
const DEFINITIONS: &str = "
    CREATE TEMP VIEW defined_gaps AS
    SELECT r.url AS relay_url, lower(w.window) AS since, upper(w.window) - 1 AS until, g.detail ->> 'reason' AS reason, g.recorded_at,
           coalesce(g.detail ->> 'cause', 'other') AS cause
    FROM sync_log g
    JOIN relays r ON r.number = g.relay
    CROSS JOIN LATERAL (
        SELECT unnest(int8multirange(int8range(g.since, g.until, '[]')) - coalesce((
            SELECT range_agg(int8range(s.since, s.until, '[]')) FROM sync_log s
            WHERE s.relay = g.relay AND s.position > g.position AND s.since <= g.until AND s.until >= g.since), '{}')) AS \"window\") w
    WHERE g.outcome = 'gap';
    CREATE TEMP VIEW defined_proofs AS
    SELECT r.url AS relay_url, lower(w.window) AS since, upper(w.window) - 1 AS until
    FROM relays r
    CROSS JOIN LATERAL (
        SELECT unnest(range_agg(p.proven)) AS \"window\"
        FROM sync_log s
        CROSS JOIN LATERAL (
            SELECT unnest(int8multirange(int8range(s.since, s.until, '[]')) - coalesce((
                SELECT range_agg(int8range(g.since, g.until, '[]')) FROM sync_log g
                WHERE g.relay = s.relay AND g.outcome = 'gap' AND g.position > s.position
                  AND g.since <= s.until AND g.until >= s.since), '{}')) AS proven) p
        WHERE s.relay = r.number AND s.outcome = 'complete') w";

/// 60 relays with up to 60 windows each, of which most overlap others; some relays have only gaps, or only
/// proofs.
const RANDOM: &str = "
    INSERT INTO relays (number, url, network, inserted_at) SELECT n, 'wss://r' || n || '.example', 'clearnet', now() FROM generate_series(1, 60) n;
    SELECT setseed(0.5);
    INSERT INTO sync_log (batch, slot, relay, outcome, since, until, events, requests, detail)
    SELECT gen_random_uuid(), 0, w.relay, CASE WHEN w.chance < (w.relay % 10) / 9.0 THEN 'gap' ELSE 'complete' END,
           w.since, w.since + w.more, 0, 1, jsonb_build_object('reason', w.n)
    FROM (SELECT n, 1 + n % 60 AS relay, random() AS chance, (random() * 150)::integer AS since, (random() ^ 4 * 80)::integer AS more
          FROM generate_series(1, 60 * 60) n WHERE n < 60 * (n % 60) OFFSET 0) w
    ORDER BY w.n";

/// Rows of one view that the other does not have.
fn difference(one: &str, other: &str) -> String {
    format!(
        "SELECT count(*) FROM ((TABLE {one} EXCEPT ALL TABLE {other}) UNION ALL (TABLE {other} EXCEPT ALL TABLE {one})) d"
    )
}

#[tokio::test]
async fn gaps_and_proofs_are_what_the_newest_window_around_each_second_says() {
    let kit = Kit::new().await;
    let superuser = kit.superuser().await;
    superuser.batch_execute(RANDOM).await.unwrap();
    superuser.batch_execute(DEFINITIONS).await.unwrap();
    assert!(number(&superuser, "SELECT count(*) FROM known_gaps").await > 100);
    assert!(number(&superuser, "SELECT count(*) FROM proven_windows").await > 100);
    assert_eq!(number(&superuser, &difference("known_gaps", "defined_gaps")).await, 0);
    assert_eq!(number(&superuser, &difference("proven_windows", "defined_proofs")).await, 0);
}

/// A relay decides how many gaps it has. The metrics give each statement 5 s.
#[tokio::test]
async fn twenty_thousand_gaps_of_one_relay_are_counted_within_five_seconds() {
    let kit = Kit::new().await;
    let superuser = kit.superuser().await;
    superuser
        .batch_execute(
            "INSERT INTO relays (number, url, network, inserted_at) VALUES (1, 'wss://gaps.example', 'clearnet', now());
             INSERT INTO sync_log (batch, slot, relay, outcome, since, until, events, requests)
             SELECT gen_random_uuid(), 0, 1, o, CASE o WHEN 'gap' THEN n * 10 ELSE 0 END, n * 10, 0, 1
             FROM generate_series(1, 20000) n, unnest(ARRAY['complete', 'gap']) o WHERE o = 'gap' OR n = 20000 ORDER BY o, n;
             ANALYZE sync_log;
             SET statement_timeout = '5s'",
        )
        .await
        .unwrap();
    assert_eq!(number(&superuser, "SELECT count(*) FROM known_gaps").await, 20_000);
    assert_eq!(number(&superuser, "SELECT count(*) FROM proven_windows").await, 20_000);
}
