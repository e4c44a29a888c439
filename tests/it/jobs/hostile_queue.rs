//! Submitters and programs on the same database that try to stop the queue or to use it up.

use quipu::store::embedded::SharedRole;
use quipu::store::owner;
use serde_json::json;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::kit::{Room, number};
use crate::support::database::TestDatabase;
use crate::support::proxy::eventually;

/// How far job numbers are drawn.
const DRAWN: &str = "SELECT last_value FROM job_number";

/// A connection as `quipu_writer`.
async fn writer(database: &TestDatabase) -> Client {
    owner::connect(&database.shared_role_url(SharedRole::Writer)).await.unwrap()
}

#[tokio::test]
async fn a_submission_that_stores_no_job_uses_up_no_number() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let same = json!({ "type": "pdf", "source_hash": "abc" });
    room.ok("/api/jobs", &same).await;
    let before = number(&database, DRAWN).await;
    let unknown = json!({ "type": "pdf", "unique": false, "depends_on": [12_345] });
    // More than a process draws at a time.
    for _ in 0..300 {
        assert_eq!(room.post("/api/jobs", &same).await.0, 200);
        let (status, answer) = room.post("/api/jobs", &unknown).await;
        assert_eq!((status, &answer["field"]), (400, &json!("depends_on")), "{answer}");
    }
    let refused = "DO $$ BEGIN FOR i IN 1..300 LOOP
        BEGIN PERFORM quipu_submit_job('pdf', depends_on => '{-1}'); EXCEPTION WHEN invalid_parameter_value THEN NULL; END;
        PERFORM quipu_submit_job('pdf', source_hash => 'abc');
    END LOOP; END $$";
    writer(&database).await.batch_execute(refused).await.unwrap();
    assert_eq!(number(&database, DRAWN).await, before);
    assert_eq!(number(&database, "SELECT count(*) FROM jobs").await, 1);
    let next = room.ok("/api/jobs", &json!({ "type": "pdf", "source_hash": "def" })).await;
    assert_eq!(next["existing"], json!(false), "{next}");
    assert_eq!(number(&database, "SELECT count(DISTINCT job) FROM jobs").await, 2);
}

#[tokio::test]
async fn programs_that_roll_most_jobs_back_are_refused_for_an_hour() {
    let database = TestDatabase::new().await;
    let (owner, writer) = (database.owner().await, writer(&database).await);
    let submit = "SELECT quipu_submit_job('pdf')";
    let judged = "SELECT count(*) FROM job_cursors WHERE name = 'numbers' AND value = (SELECT last_value::text FROM job_number)";
    let judge = async || {
        owner.batch_execute("SELECT quipu_ensure_job_partitions()").await.unwrap();
        number(&database, judged).await == 1
    };
    // A program that has stored most of its jobs.
    let jobs = "SELECT setval('job_number', 200000);
        INSERT INTO jobs (job, type, status, priority, ready_at, attempts_max, actor)
        SELECT n, 'pdf', 'pending', 3, now(), 3, 'sql:test' FROM generate_series(80000, 200000) n";
    owner.batch_execute(jobs).await.unwrap();
    eventually("the numbers are judged", judge).await;
    let job: i64 = writer.query_one(submit, &[]).await.unwrap().get(0);
    assert_eq!(job, 200_001);

    // What a program leaves whose transactions were rolled back.
    owner.batch_execute("SELECT setval('job_number', 400000)").await.unwrap();
    eventually("the numbers are judged", judge).await;
    let refused = writer.query(submit, &[]).await.unwrap_err();
    assert_eq!(refused.code(), Some(&SqlState::CONFIGURATION_LIMIT_EXCEEDED), "{refused}");
    assert_eq!(number(&database, DRAWN).await, 400_000, "a refusal uses up no number");
    let room = Room::on(&database).await;
    room.ok("/api/jobs", &json!({ "type": "pdf", "source_hash": "abc" })).await;
    let later =
        "UPDATE job_cursors SET updated_at = updated_at - interval '1 hour' WHERE name = 'sql_refused'";
    owner.batch_execute(later).await.unwrap();
    writer.query(submit, &[]).await.unwrap();
}

#[tokio::test]
async fn numbers_beyond_ten_thousand_millions_have_partitions() {
    let database = TestDatabase::new().await;
    let owner = database.owner().await;
    for newest in [9_999_000_000_i64, 10_000_000_000, 10_005_000_000] {
        let reached = format!("SELECT setval('job_number', {newest}); SELECT quipu_ensure_job_partitions()");
        owner.batch_execute(&reached).await.unwrap();
    }
    let room = Room::on(&database).await;
    let stored = room.ok("/api/jobs", &json!({ "type": "pdf", "source_hash": "abc" })).await;
    assert_eq!(stored["job_id"], json!(10_005_000_001_i64));
    assert_eq!(room.claim("w1", 1, 600).await.len(), 1, "job_log has a partition for it, too");
    for table in ["jobs_m9999", "jobs_m10000", "job_log_m10007"] {
        let exists = format!("SELECT count(*) FROM pg_class WHERE relname = '{table}'");
        assert_eq!(number(&database, &exists).await, 1, "{table}");
    }
}
