//! Deletion: who may, what goes, and what the answer says about each upstream.

use serde_json::json;

use super::client_kit::{User, content, fetch, sha256};
use super::kit::{Room, become_states, history, states};
use super::server_kit::{Character, Server};
use crate::support::database::TestDatabase;

/// A token to delete that is valid at every server of these tests.
fn token(user: &User, hashes: &[&str]) -> String {
    let mut tags: Vec<[&str; 2]> = hashes.iter().map(|hash| ["x", *hash]).collect();
    tags.push(["server", "127.0.0.1"]);
    user.token_with("delete", 3_600, &tags)
}

async fn delete(room: &Room, token: &str, sha256: &str) -> super::client_kit::Answer {
    fetch("DELETE", &room.url(&format!("/{sha256}")), &[("authorization", token)], b"").await
}

/// BL-12.8, BL-12.11
#[tokio::test]
async fn bl_12_08_and_11_a_deleted_blob_is_gone_everywhere_and_the_answer_says_where() {
    let database = TestDatabase::new().await;
    let (one, two) = (Server::start(Character::Good).await, Server::start(Character::Good).await);
    let room = Room::before(&database, &[&one, &two]).await;
    let (user, blob) = (User::new(1), content(1, 5_000));
    let hash = sha256(&blob);
    assert_eq!(user.upload(room.address, &blob, "image/png").await.status, 201);
    become_states(&database, &hash, &[&one, &two], &["readable", "readable"]).await;
    assert_eq!(room.get(&format!("/{hash}")).await.status, 307);

    let answer = delete(&room, &token(&user, &[&hash]), &hash).await;
    assert_eq!(answer.status, 200, "{:?}", answer.refusal());
    let receipt = |server: &Server| json!({ "upstream": server.url(), "deleted": true });
    let mut receipts = answer.json()["upstreams"].as_array().unwrap().clone();
    receipts.sort_by_key(|receipt| receipt["upstream"] != one.url());
    assert_eq!(receipts, [receipt(&one), receipt(&two)]);
    assert_eq!(answer.json()["owners_left"], 0);
    assert!(!one.has(&hash) && !two.has(&hash));
    for path in [format!("/{hash}"), format!("/{hash}.png")] {
        assert_eq!((room.get(&path).await.status, room.head(&path).await.status), (404, 404));
    }
    let entries = history(&database, &hash, &[&one, &two]).await;
    assert!(entries.contains(&"deleted 0".to_owned()) && entries.contains(&"deleted 1".to_owned()));
    // Also when a server has it again: its last owner has deleted it here.
    one.keep(&blob, "image/png");
    assert_eq!(room.get(&format!("/{hash}")).await.status, 404);
    assert_eq!(delete(&room, &token(&user, &[&hash]), &hash).await.status, 404, "deleted twice");
    let again = user.upload(room.address, &blob, "image/png").await;
    assert_eq!(again.status, 201, "it may come back");
}

/// BL-12.8, BL-11.6, BL-11.10, BL-11.13
#[tokio::test]
async fn bl_12_08_only_an_owner_with_a_token_for_this_blob_deletes() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let (owner, stranger) = (User::new(1), User::new(2));
    let blob = content(1, 100);
    let (hash, unknown) = (sha256(&blob), sha256(b"unknown"));
    assert_eq!(owner.upload(room.address, &blob, "image/png").await.status, 201);
    let path = room.url(&format!("/{hash}"));
    assert_eq!(fetch("DELETE", &path, &[], b"").await.status, 401);
    for (token, status) in [
        (owner.token("delete", &[]), 401),
        (owner.token("delete", &[&unknown]), 401),
        (owner.token("upload", &[&hash]), 401),
        (owner.token_with("delete", -1, &[["x", &hash]]), 401),
        (owner.token_with("delete", 60, &[["x", &hash], ["server", "other.example"]]), 401),
        (stranger.token("delete", &[&hash]), 403),
    ] {
        let answer = delete(&room, &token, &hash).await;
        assert_eq!(answer.status, status, "{:?}", answer.refusal());
        assert!(answer.header("x-reason").is_some());
    }
    assert_eq!(delete(&room, &owner.token("delete", &[&unknown]), &unknown).await.status, 404);
    assert_eq!(delete(&room, &owner.token("delete", &[&unknown]), "x").await.status, 400);
    assert_eq!(room.get(&format!("/{hash}")).await.status, 200);
    assert_eq!(delete(&room, &owner.token("delete", &[&hash]), &format!("{hash}.png")).await.status, 200);
    assert_eq!(room.get(&format!("/{hash}")).await.status, 404);
}

/// BL-12.9
#[tokio::test]
async fn bl_12_09_several_hashes_in_a_token_delete_only_the_one_in_the_path() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let user = User::new(1);
    let (one, two) = (content(1, 100), content(2, 100));
    let hashes = [sha256(&one), sha256(&two)];
    for blob in [&one, &two] {
        assert_eq!(user.upload(room.address, blob, "image/png").await.status, 201);
    }
    let both = token(&user, &[&hashes[0], &hashes[1]]);
    assert_eq!(delete(&room, &both, &hashes[0]).await.status, 200);
    assert_eq!(room.get(&format!("/{}", hashes[0])).await.status, 404);
    assert_eq!(room.get(&format!("/{}", hashes[1])).await.status, 200);
}

/// BL-12.10
#[tokio::test]
async fn bl_12_10_the_bytes_go_with_the_last_owner() {
    let database = TestDatabase::new().await;
    let server = Server::start(Character::Good).await;
    let room = Room::before(&database, &[&server]).await;
    let (one, two) = (User::new(1), User::new(2));
    let blob = content(1, 100);
    let hash = sha256(&blob);
    for user in [&one, &two] {
        assert_eq!(user.upload(room.address, &blob, "image/png").await.status, 201);
    }
    let first = delete(&room, &token(&one, &[&hash]), &hash).await;
    assert_eq!((first.status, first.json()["owners_left"].as_i64()), (200, Some(1)));
    assert_eq!(first.json()["upstreams"], json!([]));
    assert!(server.has(&hash));
    assert_eq!(delete(&room, &token(&one, &[&hash]), &hash).await.status, 403, "an owner no more");
    assert_eq!(delete(&room, &token(&two, &[&hash]), &hash).await.status, 200);
    assert!(!server.has(&hash));
}

/// BL-PX.8
#[tokio::test]
async fn bl_px_08_what_a_server_has_not_deleted_is_said_and_missing_copies_count_as_deleted() {
    let database = TestDatabase::new().await;
    let (one, two) = (Server::start(Character::Good).await, Server::start(Character::Good).await);
    let room = Room::before(&database, &[&one, &two]).await;
    let (user, blob) = (User::new(1), content(1, 5_000));
    let hash = sha256(&blob);
    assert_eq!(user.upload(room.address, &blob, "image/png").await.status, 201);
    become_states(&database, &hash, &[&one, &two], &["readable", "readable"]).await;
    one.lose(&hash);
    two.be(Character::Broken(500));
    let answer = delete(&room, &token(&user, &[&hash]), &hash).await;
    assert_eq!(answer.status, 202);
    assert!(answer.header("x-reason").unwrap().contains("1 of 2 servers"), "{:?}", answer.refusal());
    let json = answer.json();
    let receipts = json["upstreams"].as_array().unwrap();
    let of = |server: &Server| receipts.iter().find(|receipt| receipt["upstream"] == server.url()).unwrap();
    assert_eq!((&of(&one)["deleted"], &of(&two)["deleted"]), (&json!(true), &json!(false)));
    assert!(of(&two)["reason"].as_str().unwrap().contains("500"), "{receipts:?}");
    assert_eq!(states(&database, &hash, &[&one]).await, [Some("deleted".to_owned())]);
    assert_eq!(room.get(&format!("/{hash}")).await.status, 404);
}

/// BL-11.16, BL-PX.1
#[tokio::test]
async fn bl_11_16_a_token_that_deletes_and_names_no_server_is_not_passed_on() {
    let database = TestDatabase::new().await;
    let server = Server::start(Character::Good).await;
    let room = Room::before(&database, &[&server]).await;
    let (user, blob) = (User::new(1), content(1, 5_000));
    let hash = sha256(&blob);
    assert_eq!(user.upload(room.address, &blob, "image/png").await.status, 201);
    let answer = user.delete(room.address, &hash).await;
    assert_eq!(answer.status, 202, "{:?}", answer.refusal());
    assert_eq!(server.asked("DELETE", ""), 0);
    let reason = answer.json()["upstreams"][0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("no token is valid there"), "{reason}");
    assert_eq!(room.get(&format!("/{hash}")).await.status, 404);
}

/// BL-11.16
#[tokio::test]
async fn a_blob_that_was_never_stored_here_is_deleted_where_the_clients_own_token_is_valid() {
    let database = TestDatabase::new().await;
    let server = Server::start(Character::Good).await;
    let room = Room::before(&database, &[&server]).await;
    let (user, hash) = (User::new(1), server.keep(&content(1, 100), "image/png"));
    assert_eq!(user.delete(room.address, &hash).await.status, 404, "a token that names no server");
    assert!(server.has(&hash));
    let scoped = token(&user, &[&hash]);
    let answer = delete(&room, &scoped, &hash).await;
    assert_eq!((answer.status, server.has(&hash)), (200, false), "{:?}", answer.refusal());
    let seen = server.seen().into_iter().find(|seen| seen.method == "DELETE").unwrap();
    assert_eq!(seen.authorization, Some(scoped));
}
