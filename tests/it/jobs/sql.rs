//! `quipu_submit_job` in other programs' transactions, and what analysts read.

use quipu::store::embedded::SharedRole;
use quipu::store::owner;
use serde_json::json;
use tokio_postgres::error::SqlState;

use super::kit::{Job, PDF, Room, number};
use crate::support::database::TestDatabase;

#[tokio::test]
async fn a_job_is_submitted_with_the_transaction_of_its_submitter_or_not_at_all() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let writer = owner::connect(&database.shared_role_url(SharedRole::Writer)).await.unwrap();
    writer.batch_execute("BEGIN; SELECT quipu_submit_job('pdf'); ROLLBACK").await.unwrap();
    assert_eq!(number(&database, "SELECT count(*) FROM jobs").await, 0);
    let submit = "SELECT quipu_submit_job('pdf', '{\"pages\": 3}', priority => 1, idempotency_key => 'once')";
    let job: i64 = writer.query_one(submit, &[]).await.unwrap().get(0);
    let again: i64 = writer.query_one(submit, &[]).await.unwrap().get(0);
    assert_eq!(again, job);
    let claim = json!({ "worker_id": "w", "job_type": "pdf", "wait_s": 20 });
    let claimed = room.ok("/api/jobs/claim", &claim).await;
    assert_eq!((&claimed["job"]["id"], &claimed["job"]["metadata"]), (&json!(job), &json!({ "pages": 3 })));
    let actor = format!("SELECT count(*) FROM jobs WHERE job = {job} AND actor = 'sql:quipu_writer'");
    assert_eq!(number(&database, &actor).await, 1);
    // The same key over HTTP is the same job.
    let (status, answer) = room.post("/api/jobs", &json!({ "type": "pdf", "idempotency_key": "once" })).await;
    assert_eq!((status, &answer["job_id"], &answer["status"]), (200, &json!(job), &json!("running")));
    let by_source: i64 =
        writer.query_one("SELECT quipu_submit_job('pdf', source_hash => 'abc')", &[]).await.unwrap().get(0);
    let known = room.ok("/api/jobs", &json!({ "type": "pdf", "source_hash": "abc" })).await;
    assert_eq!(known["job_id"], by_source);
}

#[tokio::test]
async fn bad_arguments_are_refused_by_name() {
    let database = TestDatabase::new().await;
    let writer = owner::connect(&database.shared_role_url(SharedRole::Writer)).await.unwrap();
    for (call, name) in [
        ("quipu_submit_job('')", "type"),
        ("quipu_submit_job(NULL)", "type"),
        ("quipu_submit_job(repeat('x', 65))", "type"),
        ("quipu_submit_job('pdf', priority => 0)", "priority"),
        ("quipu_submit_job('pdf', attempts_max => 101)", "attempts_max"),
        ("quipu_submit_job('pdf', run_at => 'infinity')", "run_at"),
        ("quipu_submit_job('pdf', idempotency_key => '')", "idempotency_key"),
        ("quipu_submit_job('pdf', to_jsonb(repeat('x', 70000)))", "metadata"),
        (
            "quipu_submit_job('pdf', (repeat('[', 65) || repeat(']', 65))::jsonb)",
            "metadata: at most 64 levels",
        ),
        ("quipu_submit_job('pdf', tags => '{\"x\": [1, -1e301]}')", "tags: no number"),
        (
            "quipu_submit_job('pdf', ('[0' || repeat(',0', 10000) || ']')::jsonb)",
            "metadata: at most 10000 values",
        ),
        ("quipu_submit_job('pdf', depends_on => '{12345}')", "depends_on"),
        ("quipu_submit_job('pdf', depends_on => '{NULL}')", "depends_on"),
    ] {
        let error = writer.query(&format!("SELECT {call}"), &[]).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::INVALID_PARAMETER_VALUE), "{call}: {error}");
        let message = error.as_db_error().unwrap().message();
        assert!(message.contains(name), "{call}: {message}");
    }
    assert_eq!(number(&database, "SELECT count(*) FROM jobs").await, 0);
    let deepest =
        "SELECT quipu_submit_job('pdf', (repeat('[', 63) || '{\"x\": 1e300}' || repeat(']', 63))::jsonb)";
    writer.query(deepest, &[]).await.unwrap();
}

#[tokio::test]
async fn an_analyst_reads_jobs_and_no_credentials() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    room.ok("/api/jobs", &json!({ "type": "pdf", "source_hash": "abc" })).await;
    let reader = owner::connect(&database.reader_url()).await.unwrap();
    for view in ["job_states", "job_history", "job_counts"] {
        let count: i64 = reader.query_one(&format!("SELECT count(*) FROM {view}"), &[]).await.unwrap().get(0);
        assert_eq!(count, 1, "{view}");
    }
    for private in ["job_credentials", "job_lease_key", "job_logins", "job_ready", "job_sessions"] {
        let told = reader.query(&format!("SELECT * FROM {private}"), &[]).await;
        assert_eq!(told.unwrap_err().code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{private}");
    }
}

#[tokio::test]
async fn the_backlog_names_the_oldest_job_of_each_type_and_who_could_take_it() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let zip = Job { job_type: "zip", ..PDF };
    for job in [Job { priority: 5, ..PDF }, Job { priority: 1, ..PDF }, zip, zip] {
        room.submit(job).await;
    }
    room.ok("/api/workers/register", &json!({ "id": "w1", "type": "pdf" })).await;
    room.ok("/api/workers/register", &json!({ "id": "w2", "type": "zip" })).await;
    room.ok("/api/workers/w2/drain", &json!({})).await;
    assert_eq!(room.claim("w1", 1, 600).await[0].facts.job, 2, "the first by priority");
    room.ok("/api/jobs/claim", &json!({ "worker_id": "w3", "job_type": "zip" })).await;
    let of = |job_type: &str, oldest: i64, workers: i64, running: i64| {
        format!(
            "SELECT count(*) FROM quipu_job_backlog() WHERE type = '{job_type}' AND oldest_job = {oldest} AND workers = {workers}
               AND running = {running} AND oldest_at <= now()"
        )
    };
    assert_eq!(number(&database, &of("pdf", 1, 1, 1)).await, 1);
    assert_eq!(number(&database, &of("zip", 4, 0, 1)).await, 1, "a draining worker gets no job");
    let states =
        "SELECT count(*) FROM job_workers WHERE (worker, status) IN (('w1', 'online'), ('w2', 'draining'))";
    assert_eq!(number(&database, states).await, 2);
    for worker in ["w1", "w3"] {
        let body = json!({ "worker_id": worker, "job_type": if worker == "w1" { "pdf" } else { "zip" } });
        room.ok("/api/jobs/claim", &body).await;
    }
    assert_eq!(number(&database, "SELECT count(*) FROM quipu_job_backlog()").await, 0);
}

#[tokio::test]
async fn the_lag_of_the_totals_counts_entries_of_jobs() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let (owner, pools) = (database.owner().await, database.pools());
    let tick = async || {
        let take = "SELECT quipu_take_tick(system_identifier) FROM pg_control_system()";
        owner.query_one(take, &[]).await.unwrap();
    };
    let totals = quipu::app::registry::projections().find(|known| known.name == "job_totals").unwrap();
    let lag = "SELECT batches::bigint FROM projection_lag WHERE projection = 'job_totals'";
    room.submit(PDF).await;
    tick().await;
    while totals.catch_up(&pools.write).await.unwrap() {}
    assert_eq!(number(&database, lag).await, 0);
    room.submit(PDF).await;
    room.claim("w1", 2, 600).await;
    assert_eq!(number(&database, lag).await, 0, "without a tick there is nothing to read");
    tick().await;
    assert_eq!(number(&database, lag).await, 3, "a job and two leases");
    while totals.catch_up(&pools.write).await.unwrap() {}
    assert_eq!(number(&database, lag).await, 0);
}
