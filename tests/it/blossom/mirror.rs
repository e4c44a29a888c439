//! `PUT /mirror` (BUD-04).

use std::num::{NonZeroU32, NonZeroU64};

use tokio::io::AsyncWriteExt as _;

use super::client_kit::{User, begin, content, eventually, fetch, sha256};
use super::kit::{Room, number};
use super::server_kit::{Character, Server};
use crate::support::database::TestDatabase;

/// A room that may fetch from `origin`.
async fn room_for(database: &TestDatabase, origin: &Server) -> Room {
    Room::with(database, |settings| settings.private_origins = vec![origin.url()]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bl_04_2_3_and_8_a_blob_is_copied_from_its_url_with_its_type() {
    let database = TestDatabase::new().await;
    let origin = Server::start(Character::Good).await;
    let room = room_for(&database, &origin).await;
    let alice = User::new(1);
    let body = content(1, 2_000_000);
    let hash = origin.keep(&body, "image/png");
    let url = format!("{}/{hash}.png", origin.url());
    let new = alice.mirror(room.address, &url, &hash).await;
    assert_eq!(new.status, 201, "{:?}", new.refusal());
    let descriptor = new.json();
    assert_eq!(descriptor["sha256"], hash);
    assert_eq!(descriptor["type"], "image/png");
    assert_eq!(descriptor["size"], 2_000_000);
    assert_eq!(alice.mirror(room.address, &url, &hash).await.status, 200, "BL-04.2");
    assert_eq!(origin.asked("GET", ""), 1, "it is not fetched again");
    assert!(room.get(&format!("/{hash}")).await.body == body);
    let how =
        number(&database, "SELECT count(*) FROM blob_log WHERE kind = 'mirrored' AND why IS NOT NULL").await;
    assert_eq!(how, 1);
    // BL-04.8: our own URL.
    let own = room.url(&format!("/{hash}.png"));
    assert_eq!(User::new(2).mirror(room.address, &own, &hash).await.status, 201);
    assert_eq!(number(&database, "SELECT count(*) FROM blob_owners").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn bl_04_10_headers_about_the_blob_are_hints_and_bl_11_15_a_token_serves_both_requests() {
    let database = TestDatabase::new().await;
    let origin = Server::start(Character::Good).await;
    let room = room_for(&database, &origin).await;
    let hash = origin.keep(b"blob", "text/plain");
    let token = User::new(1).token("upload", &[&hash]);
    let headers = [
        ("authorization", &*token),
        ("x-sha-256", &hash),
        ("x-content-length", "4"),
        ("x-content-type", "text/plain"),
    ];
    let body = format!(r#"{{"url":"{}/{hash}"}}"#, origin.url());
    for status in [201, 200] {
        let answer = fetch("PUT", &room.url("/mirror"), &headers, body.as_bytes()).await;
        assert_eq!(answer.status, status, "{:?}", answer.refusal());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bl_04_1_4_and_7_a_request_without_a_url_of_the_web_is_refused_with_its_reason() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let hash = sha256(b"blob");
    let token = User::new(1).token("upload", &[&hash]);
    for body in [
        "",
        "url",
        "[]",
        "{}",
        r#"{"url":5}"#,
        r#"{"url":"nonsense"}"#,
        r#"{"url":"file:///etc/passwd"}"#,
        r#"{"url":"ftp://example.com/x"}"#,
        r#"{"url":"http://user:password@example.com/x"}"#,
    ] {
        let answer = fetch("PUT", &room.url("/mirror"), &[("authorization", &token)], body.as_bytes()).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.header("x-reason").is_some(), "BL-04.4");
    }
    let no_token = fetch("PUT", &room.url("/mirror"), &[], br#"{"url":"http://example.com/x"}"#).await;
    assert_eq!(no_token.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn bl_04_7_private_addresses_are_refused_unless_the_operator_names_them() {
    let database = TestDatabase::new().await;
    let (origin, redirecting) = (Server::start(Character::Good).await, Server::start(Character::Good).await);
    let hash = origin.keep(b"blob", "text/plain");
    let room = room_for(&database, &redirecting).await;
    let alice = User::new(1);
    for url in [
        format!("{}/{hash}", origin.url()),
        format!("http://[::1]:1/{hash}"),
        format!("http://0.0.0.0:1/{hash}"),
    ] {
        let answer = alice.mirror(room.address, &url, &hash).await;
        assert_eq!(answer.status, 502, "{url}");
    }
    assert!(origin.seen().is_empty(), "no request was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn bl_04_5_and_6_what_the_origin_does_wrong_is_told_and_nothing_is_stored() {
    let database = TestDatabase::new().await;
    let mut origin = Server::start(Character::Good).await;
    let room = Room::with(&database, |settings| {
        settings.private_origins = vec![origin.url()];
        settings.fetch_bytes_max = NonZeroU64::new(3_000_000).unwrap();
        settings.media_types = vec!["image/*".to_owned()];
    })
    .await;
    let alice = User::new(1);
    let png = [b"\x89PNG\r\n\x1a\n".as_slice(), &content(1, 1_000_000)].concat();
    let hash = origin.keep(&png, "image/png");
    let url = format!("{}/{hash}.png", origin.url());
    let copy = async |hash: &str, url: &str| alice.mirror(room.address, url, hash).await.status;

    let other = sha256(b"another");
    assert_eq!(copy(&other, &url).await, 409, "BL-04.5");
    for (character, status) in [
        (Character::OtherBytes, 415),
        (Character::HalfBody, 502),
        (Character::Broken(500), 502),
        (Character::Broken(404), 502),
        (Character::RedirectLoop, 502),
        (Character::HugeJson, 415),
    ] {
        origin.be(character);
        assert_eq!(copy(&hash, &url).await, status, "{character:?}");
    }
    origin.be(Character::Good);
    let large = origin.keep(&[b"\x89PNG\r\n\x1a\n".as_slice(), &content(2, 3_000_000)].concat(), "image/png");
    assert_eq!(copy(&large, &format!("{}/{large}", origin.url())).await, 413, "BL-04.6");
    let text = origin.keep(b"text", "text/plain");
    assert_eq!(copy(&text, &format!("{}/{text}", origin.url())).await, 415, "BL-04.6");
    // Other bytes of an accepted type.
    origin.alter(&hash, &[b"\x89PNG\r\n\x1a\n".as_slice(), &content(3, 1_000_000)].concat(), "image/png");
    assert_eq!(copy(&hash, &url).await, 409, "BL-04.5");
    origin.stop().await;
    assert_eq!(copy(&hash, &url).await, 502, "BL-04.6");
    assert_eq!(number(&database, "SELECT count(*) FROM blobs").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bl_04_9_a_copy_ends_when_its_client_leaves_and_when_the_origin_sends_nothing() {
    let database = TestDatabase::new().await;
    let origin = Server::start(Character::StallsMidBody).await;
    let room = Room::with(&database, |settings| {
        settings.private_origins = vec![origin.url()];
        settings.timeout_s = NonZeroU32::new(3).unwrap();
    })
    .await;
    let hash = origin.keep(&content(1, 1_000_000), "image/png");
    let url = format!("{}/{hash}", origin.url());
    let token = User::new(1).token("upload", &[&hash]);
    let body = format!(r#"{{"url":"{url}"}}"#);
    let length = body.len().to_string();
    let headers = [("authorization", &*token), ("content-length", &length)];
    let mut stream = begin("PUT", &room.url("/mirror"), &headers).await;
    stream.write_all(body.as_bytes()).await.unwrap();
    eventually("a request to the origin", async || origin.asked("GET", "/") == 1).await;
    drop(stream);
    eventually("the end of the copy", async || origin.left() == 1).await;

    assert_eq!(User::new(1).mirror(room.address, &url, &hash).await.status, 502);
    eventually("the end of the copy", async || origin.left() == 2).await;
    assert_eq!(number(&database, "SELECT count(*) FROM blobs").await, 0);
}
