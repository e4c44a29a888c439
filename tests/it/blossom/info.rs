//! Health and numbers in the shapes of Blossom Espelhator, and the page for people.

use std::num::{NonZeroU32, NonZeroU64};

use serde_json::{Value, json};

use super::client_kit::{User, content, eventually, sha256};
use super::kit::Room;
use super::server_kit::{Character, Server};
use crate::support::database::TestDatabase;

#[tokio::test]
async fn bl_px_10_health_has_the_originals_shape_and_counts_only_failures_of_upstreams() {
    let database = TestDatabase::new().await;
    let (mut one, two) = (Server::start(Character::Good).await, Server::start(Character::Good).await);
    let room = Room::before_with(&database, &[&one, &two], |settings| {
        settings.replicas_min = NonZeroU32::new(2).unwrap();
        settings.failures_max = NonZeroU32::new(2).unwrap();
        settings.memory_bytes_max = NonZeroU64::MAX;
        settings.tasks_max = NonZeroU32::MAX;
    })
    .await;
    let health = room.get("/health").await;
    let json = health.json();
    assert_eq!((health.status, &json["healthy"]), (200, &json!(true)), "{json}");
    assert_eq!((&json["healthy_count"], &json["min_upload_servers"]), (&json!(2), &json!(2)));
    assert_eq!(json["servers"][one.url()], json!({ "healthy": true, "consecutive_failures": 0 }));
    for (group, number) in [("memory", "bytes"), ("goroutines", "count")] {
        assert!(json[group][number].as_u64().unwrap() > 0, "{json}");
        assert!(json[group]["max"].as_u64().is_some() && json[group]["healthy"] == true, "{json}");
    }
    // A client that is refused, and one that breaks off, are no failures of an upstream.
    assert_eq!(User::new(1).put(room.address, "/upload", "get", b"x", "text/plain").await.status, 401);
    assert_eq!(room.get("/health").await.status, 200);
    one.stop().await;
    for number in 0..3_u8 {
        room.get(&format!("/{}", sha256(&[number]))).await;
    }
    eventually("503", async || room.get("/health").await.status == 503).await;
    let json = room.get("/health").await.json();
    assert_eq!((&json["healthy"], &json["healthy_count"]), (&json!(false), &json!(1)));
    assert_eq!(json["servers"][one.url()]["healthy"], false);
    assert!(json["servers"][one.url()]["consecutive_failures"].as_u64().unwrap() >= 2);
}

#[tokio::test]
async fn memory_and_tasks_gate_health() {
    let database = TestDatabase::new().await;
    for (memory, tasks, group) in [(1, u32::MAX, "memory"), (u64::MAX, 1, "goroutines")] {
        let room = Room::with(&database, |settings| {
            settings.memory_bytes_max = NonZeroU64::new(memory).unwrap();
            settings.tasks_max = NonZeroU32::new(tasks).unwrap();
        })
        .await;
        let answer = room.get("/health").await;
        assert_eq!((answer.status, &answer.json()[group]["healthy"]), (503, &Value::Bool(false)), "{group}");
    }
}

#[tokio::test]
async fn stats_count_by_upstream_and_in_total() {
    let database = TestDatabase::new().await;
    let (one, two) = (Server::start(Character::Good).await, Server::start(Character::Refuses(507)).await);
    let room = Room::before(&database, &[&one, &two]).await;
    assert_eq!(User::new(1).upload(room.address, &content(1, 100), "image/png").await.status, 201);
    eventually("the failure is counted", async || {
        room.get("/stats").await.json()["totals"]["uploads_failure"].as_u64() >= Some(1)
    })
    .await;
    let json = room.get("/stats").await.json();
    let first = &json["servers"][one.url()];
    assert_eq!((&first["url"], &first["uploads_success"]), (&json!(one.url()), &json!(1)), "{json}");
    assert_eq!((&first["is_healthy"], &first["consecutive_failures"]), (&json!(true), &json!(0)));
    assert!(first["last_success_time"].as_str().unwrap().ends_with('Z'));
    assert_eq!(first.get("last_failure_time"), None);
    assert!(json["servers"][two.url()]["uploads_failure"].as_u64().unwrap() >= 1, "{json}");
    for name in [
        "uploads_success",
        "uploads_failure",
        "downloads",
        "mirrors_success",
        "mirrors_failure",
        "deletes_success",
        "deletes_failure",
        "lists_success",
        "lists_failure",
    ] {
        assert!(json["totals"][name].is_u64() && first[name].is_u64(), "{name}");
    }
    assert_eq!(json["total_servers"], 2);
    assert!(json["memory"]["max"].is_u64() && json["goroutines"]["max"].is_u64());
}

/// BL-LC.1
#[tokio::test]
async fn bl_lc_01_the_page_shows_the_servers_and_how_to_use_the_service() {
    let database = TestDatabase::new().await;
    let server = Server::start(Character::Good).await;
    let room = Room::before(&database, &[&server]).await;
    let page = room.get("/").await;
    let text = String::from_utf8(page.body.clone()).unwrap();
    assert_eq!(page.status, 200);
    assert!(text.contains(&server.url()) && text.contains("PUT /upload"), "{text}");
    assert!(text.contains(&format!("http://{}", room.address)), "{text}");
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'self'"));
    assert_eq!((room.head("/").await.status, room.get("/blobs.js").await.status), (200, 200));
}
