//! What each request costs does not grow with the journal, also of a session that planned while it was empty.

use serde_json::Value;

use crate::support::database::TestDatabase;

/// Jobs with a lease each; every second one is completed.
const JOBS: i64 = 20_000;

/// Most pages that a call may read: some index lookups in each partition.
const PAGES_MAX: u64 = 150;

const FILL: &str = "
    INSERT INTO jobs (job, type, status, priority, ready_at, attempts_max, actor)
    SELECT n, 'pdf', 'pending', 3, clock_timestamp(), 3, 'test' FROM generate_series(1, 20000) n;
    INSERT INTO job_log (job, step, kind, was, status, type, priority, attempt, failures, worker, claim, lease_s, expires_at, actor)
    SELECT n, 1, 'leased', 'pending', 'running', 'pdf', 3, 1, 0, 'w' || n % 100, md5(n::text)::uuid, 600,
           clock_timestamp() + n * interval '1 second', 'test'
    FROM generate_series(1, 20000) n;
    INSERT INTO job_log (job, step, kind, was, status, type, priority, attempt, failures, worker, actor)
    SELECT n, 2, 'completed', 'running', 'completed', 'pdf', 3, 1, 0, 'w' || n % 100, 'test' FROM generate_series(1, 20000, 2) n;
    INSERT INTO job_worker_log (worker, step, kind, status, is_enabled, type, actor)
    SELECT 'w' || n, 1, 'registered', 'online', true, 'pdf', 'test' FROM generate_series(0, 2000) n;";

#[tokio::test]
async fn each_lookup_of_a_request_reads_by_an_index_however_long_the_journal_is() {
    let database = TestDatabase::new().await;
    let client = database.owner().await;
    let calls = [
        "quipu_job_states('{7000,7001,90000}')",
        "quipu_job_outcomes('{7001}', '{1}')",
        "quipu_job_facts('{7000,7001}')",
        "quipu_claimed_jobs(ARRAY[md5('7000')::uuid, md5('none')::uuid])",
        "quipu_job_workers('{w7,none}')",
        "quipu_jobs_of_source('abc', 'pdf', 256, 16)",
        "quipu_job_slots('{pdf}', '{4}')",
        "quipu_expired_leases(quipu_us(clock_timestamp()) - 1000000, 100)",
        "quipu_ready_jobs('{pdf}', array_fill(quipu_us(clock_timestamp()), ARRAY[5]), 129)",
        "quipu_types_with_ready_jobs('{pdf}', array_fill(quipu_us(clock_timestamp()), ARRAY[5]))",
    ];
    // The session keeps the plans that it makes now, left to itself after five calls.
    for call in calls.iter().cycle().take(calls.len() * 8) {
        client.query(&format!("SELECT * FROM {call}"), &[]).await.unwrap();
    }
    client.batch_execute(FILL).await.unwrap();
    let rows = client.query_one("SELECT count(*) FROM job_log WHERE step = 1", &[]).await.unwrap();
    assert_eq!(rows.get::<_, i64>(0), JOBS);
    for call in calls {
        let explain = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM {call}");
        let told: Value = client.query_one(&explain, &[]).await.unwrap().get(0);
        let plan = &told[0]["Plan"];
        let pages: u64 =
            ["Shared Hit Blocks", "Shared Read Blocks"].iter().map(|n| plan[n].as_u64().unwrap()).sum();
        assert!(pages <= PAGES_MAX, "{call} reads {pages} pages");
    }
}
