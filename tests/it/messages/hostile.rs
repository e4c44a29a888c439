//! Clients that try to stop, fill or fool the room for others.

use std::time::{Duration, Instant};

use quipu::store::owner;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::kit::{Room, Stream, soon, wayfarer};
use crate::support::database::TestDatabase;
use crate::support::proxy::eventually;

const HELLO: &str = "SGVsbG8";

/// Ends every other session of the database, so that it has reported its deadlocks, and counts all that were ever found.
async fn deadlocks(database: &TestDatabase) -> i64 {
    let superuser = owner::connect(&database.superuser_url()).await.unwrap();
    let others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    superuser.execute(&format!("SELECT pg_terminate_backend(pid, 5000) {others}"), &[]).await.unwrap();
    let count = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    superuser.query_one(count, &[]).await.unwrap().get(0)
}

/// One sender uses the same `client_msg_id`s in opposite orders, towards recipients of both lanes of two processes.
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
                client.say(frame.to_string()).await;
            }
            for _ in 0..IDS {
                let answer = client.next().await;
                let is_fit = answer["type"] == "send_ok" || answer["code"] == "IDEMPOTENCY_MISMATCH";
                assert!(is_fit, "{answer}");
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

/// A client that is not proven sends pings and frames without a pause and reads nothing.
#[tokio::test]
async fn frames_and_pings_do_not_postpone_the_hello_time_limit() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| settings.hello_timeout_s = 2.try_into().unwrap()).await;
    let mut flooder = room.connect().await;
    let begun = Instant::now();
    let flood = async { while flooder.try_put(Message::Ping(vec![0; 100].into())).await {} };
    soon("the flooder is cut off", flood).await;
    eventually("its place is free", async || room.metric("connections_current").await == 0).await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

/// One failure has one form: over HTTP, on a socket and in an event stream.
#[tokio::test]
async fn data_that_is_refused_and_a_store_that_is_broken_are_told_alike_everywhere() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let owner = database.owner().await;
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    let mut phone = room.connect().await;
    let hello = json!({ "type": "hello", "wayfarer_id": wayfarer(2), "device_id": "phone", "since": 0 });
    assert_eq!(phone.ask(hello).await["type"], "hello_ok");
    let query = format!("wayfarer_id={}&device_id=tablet", wayfarer(2));
    let mut stream = Stream::open(&room, &query, &[]).await.unwrap();

    let refuse = "ALTER TABLE message_log ADD CONSTRAINT refused CHECK (payload_bytes <> 5) NOT VALID";
    owner.batch_execute(refuse).await.unwrap();
    let to = json!({ "type": "send", "to": wayfarer(2), "payload_b64": HELLO });
    let path = format!("/v1/messages?wayfarer_id={}", wayfarer(1));
    let (status, told) = room.post(&path, &to).await;
    let said = sender.ask(to.clone()).await;
    assert_eq!((status, &told["code"], &told["field"]), (400, &"INVALID_PAYLOAD".into(), &"data".into()));
    assert!(told["request_id"].is_string(), "{told}");
    assert_eq!((&said["code"], &said["message"]), (&told["code"], &told["message"]));
    assert_eq!(room.metric("messages_refused_total{reason=\"store_data\"}").await, 2);
    owner.batch_execute("ALTER TABLE message_log DROP CONSTRAINT refused").await.unwrap();

    sender.send_frame(to.clone()).await;
    assert_eq!(phone.next().await["type"], "message");
    assert!(stream.next().await.is_some());
    // Messages are still stored, and can be read no more.
    owner.batch_execute("DROP FUNCTION quipu_newest_message(text)").await.unwrap();
    sender.send_frame(to).await;
    let (status, told) = room.get(&format!("/v1/messages?{query}")).await;
    let streamed = stream.error().await;
    let said = phone.next().await;
    assert_eq!((status, &told["code"], &streamed["code"]), (500, &"internal".into(), &"internal".into()));
    assert_eq!(streamed["message"], told["message"]);
    assert!(told["request_id"].is_string() && streamed["request_id"].is_string(), "{told} {streamed}");
    assert_eq!(said["code"], "INTERNAL_ERROR");
    assert!(
        said["message"].as_str().unwrap().starts_with(told["message"].as_str().unwrap()),
        "{said} {told}"
    );
    assert_eq!(phone.hear().await, None);
    assert_eq!(room.metric("messages_refused_total{reason=\"store_broken\"}").await, 3);
}
