//! The stream of events: names of the original, resumption without loss at any process, late commits.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::json;

use super::kit::{PDF, Room, Stream};
use crate::support::database::TestDatabase;

#[tokio::test]
async fn a_sse_1_events_have_the_names_and_shapes_of_the_original() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut stream = Stream::open(&room, &[]).await.unwrap_or_else(|status| panic!("{status}"));
    let first = stream.next().await.unwrap();
    assert_eq!((first.event.as_str(), &first.data), ("ping", &json!("connected")));
    room.ok("/api/workers/register", &json!({ "id": "w", "type": "pdf" })).await;
    room.ok("/api/jobs", &json!({ "type": "pdf", "source_hash": "a", "max_attempts": 1 })).await;
    room.ok("/api/jobs", &json!({ "type": "pdf", "source_hash": "b" })).await;
    let claim = json!({ "worker_id": "w", "job_type": "pdf" });
    room.ok("/api/jobs/claim", &claim).await;
    room.ok("/api/jobs/1/fail", &json!({ "worker_id": "w", "error": "broken" })).await;
    room.ok("/api/jobs/claim", &claim).await;
    room.ok("/api/jobs/2/complete", &json!({ "worker_id": "w" })).await;
    room.ok("/api/workers/w/drain", &json!({})).await;
    room.ok("/api/workers/w/unregister", &json!({})).await;
    for (event, data) in [
        ("worker_online", json!({ "worker_id": "w", "status": "online" })),
        ("job_created", json!({ "job_id": 1, "type": "pdf" })),
        ("job_created", json!({ "job_id": 2, "type": "pdf" })),
        ("job_updated", json!({ "job_id": 1, "status": "running" })),
        ("job_failed", json!({ "job_id": 1, "error": "broken", "status": "dead" })),
        ("job_updated", json!({ "job_id": 2, "status": "running" })),
        ("job_completed", json!({ "job_id": 2 })),
        ("worker_online", json!({ "worker_id": "w", "status": "draining" })),
        ("worker_offline", json!({ "worker_id": "w", "status": "offline" })),
    ] {
        let frame = stream.next_entry().await;
        assert_eq!((frame.event.as_str(), &frame.data), (event, &json!({ "type": event, "data": data })));
        assert!(frame.id.is_some());
    }
}

#[tokio::test]
async fn a_sse_3_a_reader_resumes_at_another_process_and_misses_nothing_that_was_committed_late() {
    let database = TestDatabase::new().await;
    let [one, two] = [Room::on(&database).await, Room::on(&database).await];
    let mut stream = Stream::open(&one, &[]).await.unwrap_or_else(|status| panic!("{status}"));
    let outsider = database.service().await;
    outsider.batch_execute("BEGIN").await.unwrap();
    let late: i64 = outsider.query_one("SELECT quipu_submit_job('pdf')", &[]).await.unwrap().get(0);
    let first = one.submit(PDF).await.job;
    let frame = stream.next_entry().await;
    assert_eq!(frame.data["data"]["job_id"], first);
    drop(stream);
    outsider.batch_execute("COMMIT").await.unwrap();
    let mut missed = BTreeSet::from([late]);
    for _ in 0..5 {
        missed.insert(two.submit(PDF).await.job);
    }
    // Every id on the way is a place to resume.
    let mut id = frame.id.unwrap();
    while !missed.is_empty() {
        let resumed = [("last-event-id", id.as_str())];
        let mut stream = Stream::open(&two, &resumed).await.unwrap_or_else(|status| panic!("{status}"));
        let frame = stream.next_entry().await;
        let job = frame.data["data"]["job_id"].as_i64().unwrap();
        assert!(missed.remove(&job), "{job} is told twice or was not missed");
        id = frame.id.unwrap();
    }
}

#[tokio::test]
async fn an_id_of_another_era_or_of_the_future_is_reset_and_one_that_is_none_is_refused() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    assert_eq!(Stream::open(&room, &[("last-event-id", "yesterday")]).await.err(), Some(400));
    for id in ["99-10:10:", "1-900000000000:900000000000:"] {
        let named = [("last-event-id", id)];
        let mut stream = Stream::open(&room, &named).await.unwrap_or_else(|status| panic!("{status}"));
        assert_eq!(stream.next_entry().await.event, "reset", "{id}");
        let job = room.submit(PDF).await.job;
        assert_eq!(stream.next_entry().await.data["data"]["job_id"], job);
    }
}

#[tokio::test]
async fn a_process_that_drains_ends_its_streams() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut stream = Stream::open(&room, &[]).await.unwrap_or_else(|status| panic!("{status}"));
    stream.next().await.unwrap();
    let drained = Instant::now();
    room.parts.lifecycle.drain();
    assert_eq!(stream.next().await, None, "the end comes before the next ping");
    assert!(drained.elapsed() < Duration::from_secs(10), "{:?}", drained.elapsed());
}
