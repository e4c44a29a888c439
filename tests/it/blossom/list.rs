//! The list of a key.

use serde_json::Value;

use super::client_kit::{Answer, User, content, fetch, sha256};
use super::kit::Room;
use super::server_kit::{Character, Server};
use crate::support::database::TestDatabase;

async fn list(room: &Room, user: &User, query: &str) -> Answer {
    room.get(&format!("/list/{}{query}", user.pubkey())).await
}

fn hashes(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{:?}", answer.refusal());
    assert_eq!(answer.header("content-type").unwrap(), "application/json");
    let json = answer.json();
    json.as_array().unwrap().iter().map(|blob| blob["sha256"].as_str().unwrap().to_owned()).collect()
}

async fn upload(room: &Room, user: &User, seed: u8) -> String {
    let blob = content(seed, 100 + usize::from(seed));
    let answer = user.upload(room.address, &blob, "image/png").await;
    assert_eq!(answer.status, 201, "{:?}", answer.refusal());
    sha256(&blob)
}

/// BL-12.1, BL-08.1, BL-08.2
#[tokio::test]
async fn bl_12_01_a_list_has_the_descriptors_of_the_keys_own_blobs() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let (user, other) = (User::new(1), User::new(2));
    assert_eq!(list(&room, &user, "").await.json(), Value::Array(Vec::new()));
    let own = upload(&room, &user, 1).await;
    upload(&room, &other, 2).await;
    let answer = list(&room, &user, "").await;
    assert_eq!(hashes(&answer), std::slice::from_ref(&own));
    let blob = &answer.json()[0];
    assert_eq!((&blob["size"], &blob["type"]), (&101.into(), &"image/png".into()));
    assert_eq!(blob["url"], format!("http://{}/{own}.png", room.address));
    assert!(blob["uploaded"].as_i64().unwrap() > 1_700_000_000);
    let tags = blob["nip94"].as_array().unwrap();
    assert_eq!(tags[0], serde_json::json!(["url", blob["url"]]));
    for tag in [["x", &own], ["m", "image/png"], ["size", "101"]] {
        assert!(tags.contains(&serde_json::json!(tag)), "{tags:?}");
    }
    for key in ["npub1x", "", &user.pubkey()[1..], "zz"] {
        let status = room.get(&format!("/list/{key}")).await.status;
        assert!(status == 400 || (key.is_empty() && status == 404), "{key}: {status}");
    }
}

/// BL-12.2, BL-12.3, BL-12.7
#[tokio::test]
async fn bl_12_02_03_and_07_pages_neither_repeat_nor_lose_a_blob() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let user = User::new(1);
    let mut all = Vec::new();
    // Most of them within one second.
    for seed in 0..11 {
        all.push(upload(&room, &user, seed).await);
    }
    let whole = hashes(&list(&room, &user, "").await);
    assert_eq!(whole.len(), all.len());
    for limit in [1, 3, 11, 50] {
        let mut paged: Vec<String> = Vec::new();
        loop {
            let cursor = paged.last().map_or_else(String::new, |last| format!("&cursor={last}"));
            let page = hashes(&list(&room, &user, &format!("?limit={limit}{cursor}")).await);
            paged.extend(page.clone());
            if page.len() < limit {
                break;
            }
        }
        assert_eq!(paged, whole, "limit {limit}");
    }
}

/// BL-12.4, BL-12.6
#[tokio::test]
async fn bl_12_04_and_06_a_cursor_that_was_deleted_keeps_its_place_and_an_unknown_one_is_400() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let user = User::new(1);
    for seed in 0..5 {
        upload(&room, &user, seed).await;
    }
    let whole = hashes(&list(&room, &user, "").await);
    assert_eq!(user.delete(room.address, &whole[1]).await.status, 200);
    let rest = hashes(&list(&room, &user, &format!("?cursor={}", whole[1])).await);
    assert_eq!(rest, whole[2..]);
    let unknown = sha256(b"unknown");
    for query in [
        format!("?cursor={unknown}"),
        "?cursor=abc".to_owned(),
        "?limit=0".to_owned(),
        "?limit=-1".to_owned(),
        "?limit=x".to_owned(),
        "?since=x".to_owned(),
    ] {
        let answer = list(&room, &user, &query).await;
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.header("x-reason").is_some(), "{query}");
    }
}

/// BL-12.5
#[tokio::test]
async fn bl_12_05_since_and_until_filter_by_time() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let user = User::new(1);
    let hash = upload(&room, &user, 1).await;
    let time = list(&room, &user, "").await.json()[0]["uploaded"].as_i64().unwrap();
    for (query, found) in [
        (format!("?since={time}&until={time}"), true),
        (format!("?since={}", time + 1), false),
        (format!("?until={}", time - 1), false),
    ] {
        let expected: Vec<String> = found.then(|| hash.clone()).into_iter().collect();
        assert_eq!(hashes(&list(&room, &user, &query).await), expected, "{query}");
    }
}

/// BL-PX.7
#[tokio::test]
async fn bl_px_07_lists_of_upstreams_are_merged_and_a_server_that_is_down_is_said() {
    let database = TestDatabase::new().await;
    let (one, mut two) = (Server::start(Character::Good).await, Server::start(Character::Good).await);
    let room = Room::before(&database, &[&one, &two]).await;
    let user = User::new(1);
    let own = upload(&room, &user, 1).await;
    // Stored there before; the scripted servers list all that they have for every key.
    let theirs = [one.keep(&content(2, 100), "image/png"), two.keep(&content(3, 100), "video/mp4")];
    let both = one.keep(&content(4, 100), "image/png");
    two.keep(&content(4, 100), "image/png");
    let answer = list(&room, &user, "").await;
    let mut found = hashes(&answer);
    let first = found.remove(0);
    assert_eq!(first, own, "the newest");
    found.sort();
    let mut expected = vec![theirs[0].clone(), theirs[1].clone(), both.clone()];
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(answer.header("x-reason"), None);
    let json = answer.json();
    let merged = json.as_array().unwrap().iter().find(|blob| blob["sha256"] == both).unwrap();
    let urls: Vec<&Value> =
        merged["nip94"].as_array().unwrap().iter().filter(|tag| tag[0] == "url").collect();
    assert!(urls.len() >= 2, "{urls:?}");
    let whole = hashes(&answer);
    let mut paged: Vec<String> = Vec::new();
    while paged.len() < whole.len() {
        let cursor = paged.last().map_or_else(String::new, |last| format!("&cursor={last}"));
        paged.extend(hashes(&list(&room, &user, &format!("?limit=1{cursor}")).await));
    }
    assert_eq!(paged, whole);

    // What the key deletes here is not listed any more, although a server does.
    let token = user.token_with("delete", 60, &[["x", &own], ["server", "127.0.0.1"]]);
    fetch("DELETE", &room.url(&format!("/{own}")), &[("authorization", &token)], b"").await;
    one.keep(&content(1, 101), "image/png");
    assert!(!hashes(&list(&room, &user, "").await).contains(&own));

    two.stop().await;
    let other = User::new(2);
    let partial = list(&room, &other, "").await;
    assert_eq!(partial.status, 200);
    assert!(partial.header("x-reason").unwrap().contains("1 of 2 servers"), "{:?}", partial.refusal());
}

/// BL-11.10
#[tokio::test]
async fn a_private_list_is_for_its_key_alone() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| settings.list_is_private = true).await;
    let (user, other) = (User::new(1), User::new(2));
    let hash = upload(&room, &user, 1).await;
    let url = room.url(&format!("/list/{}", user.pubkey()));
    for (token, status) in [
        (None, 401),
        (Some(user.token("list", &[])), 200),
        (Some(user.token("get", &[])), 401),
        (Some(other.token("list", &[])), 403),
    ] {
        let headers: Vec<_> = token.iter().map(|token| ("authorization", &**token)).collect();
        let answer = fetch("GET", &url, &headers, b"").await;
        assert_eq!(answer.status, status, "{:?}", answer.refusal());
        if status == 200 {
            assert_eq!(hashes(&answer), std::slice::from_ref(&hash));
        }
    }
}
