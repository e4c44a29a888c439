//! Submitters and programs on the same database that try to stop the queue or to use it up.

use quipu::services::jobs::command::Change;
use quipu::store::embedded::SharedRole;
use quipu::store::owner;
use serde_json::json;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::kit::{Job, PDF, Room, fence, number, within_deadline};
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
    let judge = || async {
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

#[tokio::test]
async fn an_open_transaction_holds_up_only_submissions_with_its_keys() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let program = writer(&database).await;
    program.batch_execute("BEGIN").await.unwrap();
    let keys = "SELECT quipu_submit_job('pdf', source_hash => 'held'), quipu_submit_job('zip', idempotency_key => 'key ' || n)
                FROM generate_series(1, 40) n";
    program.query(keys, &[]).await.unwrap();
    room.submit(PDF).await;
    let by_source = json!({ "type": "pdf", "source_hash": "held" });
    let by_key = json!({ "type": "pdf", "idempotency_key": "key 7" });
    let served = async {
        for n in 0..20 {
            room.ok("/api/jobs", &json!({ "type": "pdf", "source_hash": format!("other {n}") })).await;
            let claimed = room.claim("w1", 1, 600).await;
            room.complete(&claimed[0], "w1").await.unwrap();
        }
    };
    let all =
        async { tokio::join!(room.post("/api/jobs", &by_source), room.post("/api/jobs", &by_key), served) };
    let (first, second, ()) = within_deadline("the queue goes on", all).await;
    assert_eq!((first.0, second.0), (503, 503), "{first:?} {second:?}");
    program.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(room.ok("/api/jobs", &by_source).await["existing"], json!(false));
    assert_eq!(room.ok("/api/jobs", &by_key).await["existing"], json!(false));
    // Programs wait for each other, as they do for any unique key.
    program.batch_execute("BEGIN; SELECT quipu_submit_job('pdf', idempotency_key => 'both')").await.unwrap();
    let other = writer(&database).await;
    let submit = "SELECT quipu_submit_job('pdf', idempotency_key => 'both')";
    let (waited, committed) = tokio::join!(other.query_one(submit, &[]), program.batch_execute("COMMIT"));
    committed.unwrap();
    let stored = format!("SELECT count(*) FROM jobs WHERE job = {}", waited.unwrap().get::<_, i64>(0));
    assert_eq!(number(&database, &stored).await, 1);
    assert_eq!(
        number(&database, "SELECT count(*) FROM jobs WHERE unique_key = quipu_job_key('pdf', NULL, 'both')")
            .await,
        1
    );
}

#[tokio::test]
async fn a_submitter_cannot_take_the_key_of_a_scheduled_job() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let taken = "DO $$ BEGIN FOR i IN 0..60 LOOP
        PERFORM quipu_submit_job('noop', idempotency_key => format('schedule tick 1 %s', extract(epoch FROM now())::bigint + i));
    END LOOP; END $$";
    writer(&database).await.batch_execute(taken).await.unwrap();
    room.ok("/api/schedules", &json!({ "name": "tick", "cron": "* * * * * *", "type": "tick" })).await;
    let scheduled = "SELECT count(*) FROM jobs WHERE actor = 'schedule:tick'";
    eventually("two jobs of the schedule", async || number(&database, scheduled).await >= 2).await;
    // The space of those keys is that of a reserved type.
    for reserved in ["quipu.schedule", "quipu.schedule.tick"] {
        let body = json!({ "type": reserved, "source_hash": "1 1796083200 tick" });
        let (status, answer) = room.post("/api/jobs", &body).await;
        assert_eq!((status, &answer["field"]), (400, &json!("type")), "{answer}");
        let submit = format!("SELECT quipu_submit_job('{reserved}', source_hash => '1 1796083200 tick')");
        let refused = writer(&database).await.query(&submit, &[]).await.unwrap_err();
        assert_eq!(refused.code(), Some(&SqlState::INVALID_PARAMETER_VALUE), "{refused}");
    }
}

#[tokio::test]
async fn what_jobs_bring_is_bounded_in_bodies_and_lists() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let many = json!({ "type": "pdf", "unique": false, "metadata": vec![0; 20_000] });
    let (status, answer) = room.post("/api/jobs", &many).await;
    assert_eq!((status, &answer["field"]), (400, &json!("body")), "{answer}");

    let large = "x".repeat(200_000);
    let job = room.submit(PDF).await.job;
    let claimed = room.claim("w1", 1, 600).await.remove(0);
    let result = Some(json!({ "text": large }));
    room.change(job, Change::Complete { fence: fence(&claimed, "w1"), result }).await.unwrap();

    let (_, listed) = room.get("/api/jobs").await;
    assert_eq!((&listed["jobs"][0]["id"], &listed["jobs"][0]["result"]), (&json!(job), &json!(null)));
    let (_, shown) = room.get(&format!("/api/jobs/{job}")).await;
    assert_eq!(shown["result"]["text"], json!(large));
    // A small result is in the list.
    room.submit(Job { priority: 1, ..PDF }).await;
    let claimed = room.claim("w1", 1, 600).await.remove(0);
    let result = Some(json!({ "pages": 3 }));
    room.change(claimed.facts.job, Change::Complete { fence: fence(&claimed, "w1"), result }).await.unwrap();
    assert_eq!(room.get("/api/jobs").await.1["jobs"][0]["result"], json!({ "pages": 3 }));
}
