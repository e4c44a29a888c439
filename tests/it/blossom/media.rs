//! `PUT /media` (BUD-05).

use quipu::base::Secret;
use quipu::services::blossom::upstream::UpstreamKeys;

use super::client_kit::{User, sha256};
use super::kit::{Room, number, upstream};
use super::server_kit::{Character, Server};
use crate::support::database::TestDatabase;

/// The place in the pictures of these tests.
const PLACE: &[u8] = b"52.5200N 13.4050E";

fn segment(marker: u8, contents: &[u8]) -> Vec<u8> {
    let length = u16::try_from(contents.len() + 2).unwrap().to_be_bytes();
    [&[0xff, marker][..], &length, contents].concat()
}

/// A JPEG with a place in a comment, and one in what a camera has appended.
fn photo() -> Vec<u8> {
    [
        &b"\xff\xd8"[..],
        &segment(0xe0, b"JFIF\0\x01\x02\0\0\x01\0\x01\0\0"),
        &segment(0xfe, PLACE),
        &segment(0xdb, &[1; 65]),
        &segment(0xc0, b"\x08\0\x01\0\x01\x01\x01\x11\0"),
        &segment(0xda, b"\x01\x01\0\0\x3f\0"),
        b"scan\xff\xd9",
        PLACE,
    ]
    .concat()
}

fn contains(content: &[u8], part: &[u8]) -> bool {
    content.windows(part.len()).any(|window| window == part)
}

#[tokio::test(flavor = "multi_thread")]
async fn bl_05_1_and_7_the_result_has_no_place_and_its_own_hash_bl_08_3_and_names_the_original() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let (alice, photo) = (User::new(1), photo());
    let answer = alice.put(room.address, "/media", "media", &photo, "image/jpeg").await;
    assert_eq!(answer.status, 201, "{:?}", answer.refusal());
    let descriptor = answer.json();
    let hash = descriptor["sha256"].as_str().unwrap();
    assert_ne!(hash, sha256(&photo));
    let tags = descriptor["nip94"].as_array().unwrap();
    let tag = |name: &str| tags.iter().find(|tag| tag[0] == name).map(|tag| tag[1].clone());
    assert_eq!(tag("ox"), Some(sha256(&photo).into()), "BL-08.3");
    assert_eq!(tag("x"), Some(hash.into()), "BL-08.3");
    let stored = room.get(&format!("/{hash}.jpg")).await;
    assert_eq!(stored.header("content-type").as_deref(), Some("image/jpeg"));
    assert_eq!(sha256(&stored.body), hash);
    assert!(!contains(&stored.body, PLACE) && contains(&stored.body, b"scan"));
    assert_eq!(room.get(&format!("/{}", sha256(&photo))).await.status, 404, "the original is not kept");
    assert_eq!(alice.put(room.address, "/media", "media", &photo, "image/jpeg").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn bl_05_2_and_3_what_cannot_be_processed_is_refused_with_its_reason() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let (alice, photo) = (User::new(1), photo());
    let cut = &photo[..photo.len() - PLACE.len() - 2];
    assert_eq!(alice.put(room.address, "/media", "media", cut, "image/jpeg").await.status, 422);
    let video = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom";
    assert_eq!(alice.put(room.address, "/media", "media", video, "video/mp4").await.status, 415);
    assert_eq!(
        alice.put(room.address, "/media", "upload", &photo, "image/jpeg").await.status,
        401,
        "BL-05.3"
    );
    let other = sha256(b"another");
    let token = alice.token("media", &[&other]);
    let headers = [("authorization", &*token), ("x-sha-256", &other)];
    let answer = super::client_kit::fetch("PUT", &room.url("/media"), &headers, &photo).await;
    assert_eq!(answer.status, 409);
    assert_eq!(number(&database, "SELECT count(*) FROM blobs").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_all_kinds_are_stored_unchanged_where_the_operator_wants_it() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| settings.strip_metadata = false).await;
    let photo = photo();
    let answer = User::new(1).put(room.address, "/media", "media", &photo, "image/jpeg").await;
    assert_eq!(answer.status, 201, "{:?}", answer.refusal());
    assert_eq!(answer.json()["sha256"], sha256(&photo));
}

#[tokio::test(flavor = "multi_thread")]
async fn bl_05_6_one_upstream_processes_what_we_cannot_store_ourselves_and_one_result_is_everywhere() {
    let database = TestDatabase::new().await;
    let (first, second) = (Server::start(Character::Good).await, Server::start(Character::Good).await);
    // Without a key of the operator: the client's token is valid at the `/media` of an upstream alone.
    let room = Room::before(&database, &[&first, &second]).await;
    let photo = photo();
    let answer = User::new(1).put(room.address, "/media", "media", &photo, "image/jpeg").await;
    assert_eq!(answer.status, 201, "{:?}", answer.refusal());
    let hash = answer.json()["sha256"].as_str().unwrap().to_owned();
    // The other one gets a copy of the result.
    for server in [&first, &second] {
        server.gets(&hash).await;
    }
    assert_eq!(first.asked("PUT", "/media") + second.asked("PUT", "/media"), 1);
    assert_eq!(first.asked("PUT", "/upload") + second.asked("PUT", "/upload"), 1);

    // With one the result is made here, and the same for all.
    let database = TestDatabase::new().await;
    let (first, second) = (Server::start(Character::Good).await, Server::start(Character::Good).await);
    let signer = Some(Secret::new(User::new(9).keys.secret_key().to_secret_hex()));
    let keys = UpstreamKeys { signer, objects: None };
    let room = Room::open(&database.urls(), &keys, |settings| {
        settings.upstreams = vec![upstream(&first.url()), upstream(&second.url())];
    })
    .await;
    let answer = User::new(1).put(room.address, "/media", "media", &photo, "image/jpeg").await;
    assert_eq!(answer.status, 201, "{:?}", answer.refusal());
    let hash = answer.json()["sha256"].as_str().unwrap().to_owned();
    for server in [&first, &second] {
        server.gets(&hash).await;
        assert_eq!((server.asked("PUT", "/media"), server.asked("PUT", "/upload")), (0, 1));
    }
}
