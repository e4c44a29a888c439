//! Clients that try to block, exhaust or deceive the service.

use std::time::{Duration, Instant};

use quipu::store::owner;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::kit::{Room, Stream, wayfarer, within_deadline};
use crate::support::database::TestDatabase;
use crate::support::proxy::eventually;

const HELLO: &str = "SGVsbG8";

/// Ends all other sessions of the database, so that they report their deadlocks, and counts all deadlocks
/// that ever occurred.
async fn deadlocks(database: &TestDatabase) -> i64 {
    let superuser = owner::connect(&database.superuser_url()).await.unwrap();
    let others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    superuser.execute(&format!("SELECT pg_terminate_backend(pid, 5000) {others}"), &[]).await.unwrap();
    let count = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    superuser.query_one(count, &[]).await.unwrap().get(0)
}

/// One sender uses the same `client_msg_id`s in opposite orders, to recipients in both shards of two
/// processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opposite_orders_of_client_msg_ids_never_deadlock() {
    const ROUNDS: usize = 40;
    const IDS: usize = 32;
    let database = TestDatabase::new().await;
    let rooms = [Room::on(&database).await, Room::on(&database).await];
    let mut senders = Vec::new();
    for number in 0..8_u8 {
        let client = rooms[usize::from(number % 2)].two(&wayfarer(1), "laptop").await;
        senders.push((number, client));
    }
    let sending = senders.into_iter().map(|(number, mut client)| async move {
        for round in 0..ROUNDS {
            for place in 0..IDS {
                let id = if number < 4 { place } else { IDS - 1 - place };
                let frame = json!({
                    "type": "send", "to": wayfarer(10 + number), "payload_b64": HELLO,
                    "client_msg_id": format!("{round}-{id}"),
                });
                client.send_text(frame.to_string()).await;
            }
            for _ in 0..IDS {
                let answer = client.next().await;
                let is_expected = answer["type"] == "send_ok" || answer["code"] == "IDEMPOTENCY_MISMATCH";
                assert!(is_expected, "{answer}");
            }
        }
    });
    futures_util::future::join_all(sending).await;
    let stored = "SELECT count(*) FROM message_log WHERE kind = 'accepted'";
    let stored: i64 = database.owner().await.query_one(stored, &[]).await.unwrap().get(0);
    assert_eq!(stored, i64::try_from(ROUNDS * IDS).unwrap(), "one message for each client_msg_id");
    drop(rooms);
    assert_eq!(deadlocks(&database).await, 0);
}

/// An unproven client keeps sending pings and frames and reads nothing.
#[tokio::test]
async fn frames_and_pings_do_not_postpone_the_hello_time_limit() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| settings.hello_timeout_s = 2.try_into().unwrap()).await;
    let mut flooder = room.connect().await;
    let started = Instant::now();
    let flood = async { while flooder.try_send_message(Message::Ping(vec![0; 100].into())).await {} };
    within_deadline("the flooder is disconnected", flood).await;
    eventually("its connection is released", async || room.metric("connections_current").await == 0).await;
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

/// A failure has the same form over HTTP, on a socket and in an event stream.
#[tokio::test]
async fn refused_data_and_store_failures_are_reported_alike_on_every_transport() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let owner = database.owner().await;
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    let mut phone = room.connect().await;
    let hello = json!({ "type": "hello", "wayfarer_id": wayfarer(2), "device_id": "phone", "since": 0 });
    assert_eq!(phone.request(hello).await["type"], "hello_ok");
    let query = format!("wayfarer_id={}&device_id=tablet", wayfarer(2));
    let mut stream = Stream::open(&room, &query, &[]).await.unwrap();

    let refuse = "ALTER TABLE message_log ADD CONSTRAINT refused CHECK (payload_bytes <> 5) NOT VALID";
    owner.batch_execute(refuse).await.unwrap();
    let to = json!({ "type": "send", "to": wayfarer(2), "payload_b64": HELLO });
    let path = format!("/v1/messages?wayfarer_id={}", wayfarer(1));
    let (status, body) = room.post(&path, &to).await;
    let response = sender.request(to.clone()).await;
    assert_eq!((status, &body["code"], &body["field"]), (400, &"INVALID_PAYLOAD".into(), &"data".into()));
    assert!(body["request_id"].is_string(), "{body}");
    assert_eq!((&response["code"], &response["message"]), (&body["code"], &body["message"]));
    assert_eq!(room.metric("quipu_messages_refusals_total{reason=\"store_data\"}").await, 2);
    owner.batch_execute("ALTER TABLE message_log DROP CONSTRAINT refused").await.unwrap();

    sender.send_frame(to.clone()).await;
    assert_eq!(phone.next().await["type"], "message");
    assert!(stream.next().await.is_some());
    // Messages can still be stored but not read.
    owner.batch_execute("DROP FUNCTION quipu_newest_message(text)").await.unwrap();
    sender.send_frame(to).await;
    let (status, body) = room.get(&format!("/v1/messages?{query}")).await;
    let streamed = stream.error().await;
    let response = phone.next().await;
    assert_eq!((status, &body["code"], &streamed["code"]), (500, &"internal".into(), &"internal".into()));
    assert_eq!(streamed["message"], body["message"]);
    assert!(body["request_id"].is_string() && streamed["request_id"].is_string(), "{body} {streamed}");
    assert_eq!(response["code"], "INTERNAL_ERROR");
    assert!(
        response["message"].as_str().unwrap().starts_with(body["message"].as_str().unwrap()),
        "{response} {body}"
    );
    assert_eq!(phone.next_text().await, None);
    assert_eq!(room.metric("quipu_messages_refusals_total{reason=\"store_broken\"}").await, 3);
}
