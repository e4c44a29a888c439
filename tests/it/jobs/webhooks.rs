//! Webhooks: jobs that tell receivers of the ends of other jobs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quipu::config::JobWebhook;
use quipu::services::jobs::command::Change;
use quipu::store::owner;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::kit::{Job, PDF, Room, fence, number, problems};
use super::webhook_kit::{
    Delivery, LateClock, Receiver, SILENT, are, completed, named, only, retry, room, room_at,
};
use crate::support::database::TestDatabase;
use crate::support::proxy::eventually;

/// What happened to a job, and why.
async fn history(room: &Room, job: i64) -> Vec<(String, String)> {
    let answer = room.get(&format!("/api/jobs/{job}/history")).await.1;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let entries = answer["history"].as_array().unwrap().iter();
    entries.map(|entry| (text(&entry["event"]), text(&entry["why"]))).collect()
}

#[tokio::test]
async fn the_end_of_a_job_is_told_once_and_signed() {
    let database = TestDatabase::new().await;
    let receiver = Receiver::start(204).await;
    let room = room(&database, &[receiver.named("billing")]).await;
    let job = completed(&room).await;
    are(&database, "billing", "completed", 1).await;
    let got = receiver.got();
    assert_eq!(got.len(), 1, "{got:?}");
    let body = got[0].verified();
    assert_eq!((&body["type"], &body["data"]["job_id"]), (&json!("job.completed"), &json!(job)), "{body}");
    assert_eq!(body["data"]["result"], json!({ "pages": 9 }));
    assert_eq!((&body["data"]["job_type"], &body["data"]["error"]), (&json!("pdf"), &Value::Null));
    let webhook = only(&database).await;
    let steps = history(&room, webhook).await;
    let kinds: Vec<&str> = steps.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["submitted", "leased", "completed"]);
    // The end of a webhook causes none: the next requests are of the next ends.
    let dead = room.submit(Job { attempts_max: 1, ..PDF }).await.job;
    let claimed = room.claim("w", 1, 60).await.remove(0);
    let error = "no such page".to_owned();
    let fail =
        Change::Fail { fence: fence(&claimed, "w"), error, context: None, jitter: 0.0, is_final: false };
    room.change(dead, fail).await.unwrap();
    let cancelled = room.submit(PDF).await.job;
    room.ok(&format!("/api/jobs/{cancelled}/cancel"), &json!({ "why": "mistake" })).await;
    are(&database, "billing", "completed", 3).await;
    let got = receiver.got();
    let mut told: Vec<(Value, Value, Value)> = got[1..]
        .iter()
        .map(Delivery::verified)
        .map(|body| (body["data"]["job_id"].clone(), body["type"].clone(), body["data"]["error"].clone()))
        .collect();
    told.sort_by_key(|(job, ..)| job.as_i64());
    let expected = [
        (json!(dead), json!("job.dead"), json!("no such page")),
        (json!(cancelled), json!("job.cancelled"), json!("mistake")),
    ];
    assert_eq!(told, expected);
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

#[tokio::test]
async fn each_receiver_is_told_of_the_types_and_ends_that_it_wants() {
    let database = TestDatabase::new().await;
    let [all, some] = [Receiver::start(200).await, Receiver::start(200).await];
    let wanted = JobWebhook {
        types: vec!["image".to_owned()],
        statuses: vec!["cancelled".to_owned()],
        ..some.named("some")
    };
    let room = room(&database, &[all.named("all"), wanted]).await;
    completed(&room).await;
    for job_type in ["pdf", "image"] {
        let job = room.submit(Job { job_type, ..PDF }).await.job;
        room.change(job, Change::Cancel { why: None }).await.unwrap();
    }
    are(&database, "all", "completed", 3).await;
    are(&database, "some", "completed", 1).await;
    assert_eq!((all.got().len(), some.got().len()), (3, 1));
    assert_eq!(some.got()[0].verified()["data"]["job_type"], "image");
}

#[tokio::test]
async fn another_answer_than_success_is_a_failed_attempt_and_a_redirect_is_one() {
    let database = TestDatabase::new().await;
    let receiver = Receiver::start(500).await;
    let clock = Arc::new(LateClock(30.into()));
    let room = room_at(&database, &[receiver.named("billing")], clock.clone()).await;
    completed(&room).await;
    are(&database, "billing", "failed", 1).await;
    let webhook = only(&database).await;
    // It waits as every failed job does.
    let waits = "SELECT count(*) FROM job_states WHERE type LIKE 'quipu.webhook.%' AND ready_at > now() + interval '30 s'";
    assert_eq!(number(&database, waits).await, 1);
    receiver.answer_with(302);
    retry(&room, webhook).await;
    receiver.got_at_least(2).await;
    are(&database, "billing", "failed", 1).await;
    receiver.answer_with(200);
    clock.0.store(0, Ordering::SeqCst);
    retry(&room, webhook).await;
    are(&database, "billing", "completed", 1).await;
    let got = receiver.got();
    assert_eq!(got.len(), 3, "{got:?}");
    let ids: BTreeSet<&str> = got.iter().map(|delivery| delivery.id.as_str()).collect();
    assert_eq!(ids.len(), 1, "an attempt has the id of the first: {ids:?}");
    assert_eq!(got[0].verified(), got[2].verified());
    assert!(got[0].timestamp + 30 <= got[2].timestamp, "the time is that of the attempt: {got:?}");
    let failures: Vec<String> = history(&room, webhook)
        .await
        .into_iter()
        .filter(|(kind, _)| kind == "failed")
        .map(|(_, why)| why)
        .collect();
    assert_eq!(failures, ["the receiver has answered 500", "the receiver has answered 302"]);
}

#[tokio::test]
async fn a_receiver_that_is_away_is_told_later() {
    let database = TestDatabase::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let room = room(&database, &[named("billing", address)]).await;
    let job = completed(&room).await;
    are(&database, "billing", "failed", 1).await;
    let webhook = only(&database).await;
    let steps = history(&room, webhook).await;
    assert_eq!(steps.last().unwrap(), &("failed".to_owned(), "no answer: connection refused".to_owned()));
    let receiver = Receiver::at(address, 200).await;
    retry(&room, webhook).await;
    are(&database, "billing", "completed", 1).await;
    assert_eq!(receiver.got()[0].verified()["data"]["job_id"], job);
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_asked_once() {
    let database = TestDatabase::new().await;
    let receiver = Receiver::start(410).await;
    let room = room(&database, &[receiver.named("billing")]).await;
    completed(&room).await;
    are(&database, "billing", "dead", 1).await;
    let webhook = only(&database).await;
    let (_, shown) = room.get(&format!("/api/jobs/{webhook}")).await;
    assert_eq!((&shown["attempts"], &shown["max_attempts"]), (&json!(1), &json!(20)), "{shown}");
    assert_eq!(receiver.got().len(), 1);
}

#[tokio::test]
async fn what_ends_while_no_process_sends_is_told_afterwards_and_what_was_told_is_not_told_again() {
    let database = TestDatabase::new().await;
    let receiver = Receiver::start(200).await;
    let webhooks = [receiver.named("billing")];
    // Before webhooks were wanted.
    let without = Room::on(&database).await;
    completed(&without).await;
    let first = room(&database, &webhooks).await;
    let told = completed(&first).await;
    are(&database, "billing", "completed", 1).await;
    drop(first);
    let missed = completed(&without).await;
    // The process is asked to stop while the receiver does not answer: the attempt is given back.
    receiver.answer_with(SILENT);
    let second = room(&database, &webhooks).await;
    receiver.got_at_least(2).await;
    drop(second);
    are(&database, "billing", "pending", 1).await;
    receiver.answer_with(200);
    let third = room(&database, &webhooks).await;
    are(&database, "billing", "completed", 2).await;
    // A lost place costs reading again, and no end: the unique key holds.
    drop(third);
    let superuser = owner::connect(&database.superuser_url()).await.unwrap();
    superuser.batch_execute("DELETE FROM job_cursors WHERE name = 'webhooks'").await.unwrap();
    let after = completed(&without).await;
    let _fourth = room(&database, &webhooks).await;
    are(&database, "billing", "completed", 4).await;
    let got = receiver.got();
    let jobs: Vec<Value> = got.iter().map(|delivery| delivery.verified()["data"]["job_id"].clone()).collect();
    assert_eq!(jobs[..3], [json!(told), json!(missed), json!(missed)]);
    assert!(jobs.contains(&json!(after)));
    // Beside the one that was given back, each was sent once.
    let ids: BTreeSet<&str> = got.iter().map(|delivery| delivery.id.as_str()).collect();
    assert_eq!((got.len(), ids.len()), (5, 4), "{jobs:?}");
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_tell_each_end_once() {
    const JOBS: usize = 40;
    let database = TestDatabase::new().await;
    let receiver = Receiver::start(200).await;
    let webhooks = [receiver.named("billing")];
    let rooms = [room(&database, &webhooks).await, room(&database, &webhooks).await];
    let mut jobs = BTreeSet::new();
    for turn in 0..JOBS {
        jobs.insert(completed(&rooms[turn % 2]).await);
    }
    are(&database, "billing", "completed", 40).await;
    let got = receiver.got();
    let told: BTreeSet<i64> =
        got.iter().map(|delivery| delivery.verified()["data"]["job_id"].as_i64().unwrap()).collect();
    assert_eq!((got.len(), told), (JOBS, jobs));
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

#[tokio::test]
async fn clients_can_neither_submit_nor_take_webhooks() {
    let database = TestDatabase::new().await;
    let receiver = Receiver::start(SILENT).await;
    let room = room(&database, &[receiver.named("billing")]).await;
    completed(&room).await;
    receiver.got_at_least(1).await;
    let webhook = only(&database).await;
    let reserved = "quipu.webhook.billing";
    for (path, body, field) in [
        ("/api/jobs", json!({ "type": reserved, "source_hash": "a" }), "type"),
        ("/api/jobs", json!({ "type": "quipu.webhook", "source_hash": "a" }), "type"),
        ("/api/schedules", json!({ "name": "s", "cron": "* * * * *", "type": reserved }), "type"),
        ("/api/jobs/claim", json!({ "worker_id": "w", "job_type": reserved }), "job_type"),
        ("/api/jobs/claim", json!({ "worker_id": "quipu.webhook", "job_type": "pdf" }), "worker_id"),
        ("/api/workers/register", json!({ "id": "quipu.webhook", "type": "pdf" }), "worker_id"),
        (&*format!("/api/jobs/{webhook}/complete"), json!({ "worker_id": "quipu.webhook" }), "worker_id"),
        (&*format!("/api/jobs/{webhook}/release"), json!({ "worker_id": "quipu.webhook" }), "worker_id"),
    ] {
        let (status, answer) = room.post(path, &body).await;
        assert_eq!((status, &answer["field"]), (400, &json!(field)), "{path} {body}: {answer}");
        assert!(answer.to_string().contains("is reserved"), "{answer}");
    }
    let (status, _) = room.post(&format!("/api/jobs/{webhook}/complete"), &json!({ "worker_id": "w" })).await;
    assert_eq!(status, 409);
    let sql = database.service().await;
    let refused = sql.query_one("SELECT quipu_submit_job('quipu.webhook.billing')", &[]).await.unwrap_err();
    let refused = refused.as_db_error().unwrap().message().to_owned();
    assert!(refused.contains("reserved"), "{refused}");
    assert_eq!(number(&database, "SELECT count(*) FROM jobs WHERE type LIKE 'quipu.webhook%'").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_never_answers_delays_no_other_and_no_stop() {
    const JOBS: usize = 12;
    let database = TestDatabase::new().await;
    let [silent, good] = [Receiver::start(SILENT).await, Receiver::start(200).await];
    let room = room(&database, &[silent.named("silent"), good.named("good")]).await;
    for _ in 0..JOBS {
        completed(&room).await;
    }
    are(&database, "good", "completed", 12).await;
    // No more are sent to the silent one at the same time.
    are(&database, "silent", "running", 4).await;
    assert_eq!(silent.got_at_least(4).await.len(), 4);
    completed(&room).await;
    are(&database, "good", "completed", 13).await;
    let stopped = std::time::Instant::now();
    drop(room);
    eventually("the attempts are given back", async || {
        number(&database, "SELECT count(*) FROM job_log WHERE kind = 'released'").await == 4
    })
    .await;
    // Less than a receiver has to answer.
    assert!(stopped.elapsed() < Duration::from_secs(10), "{:?}", stopped.elapsed());
}
