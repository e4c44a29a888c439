//! Uploads to several upstreams that behave well and badly: who gets the blob, what is answered, what is recorded.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use quipu::base::Secret;
use quipu::services::blossom::upstream::{Upstream, UpstreamKeys};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use super::client_kit::{User, begin, content, eventually, fetch, sha256};
use super::kit::{Room, become_states, history, number, problems, states, upstream};
use super::server_kit::{Character, Seen, Server};
use crate::support::database::TestDatabase;

/// A body that is larger than the window of an upload and the buffers of connections.
const LARGE: usize = 24 * 1024 * 1024;

fn least(copies: u32) -> NonZeroU32 {
    NonZeroU32::new(copies).unwrap()
}

async fn servers<const N: usize>(characters: [Character; N]) -> [Server; N] {
    let mut started = Vec::new();
    for character in characters {
        started.push(Server::start(character).await);
    }
    started.try_into().unwrap_or_else(|_| unreachable!())
}

fn event_in(seen: &Seen) -> Value {
    let header = seen.authorization.as_deref().expect("a token");
    let token = header.strip_prefix("Nostr ").unwrap().trim_end_matches('=');
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).unwrap()).unwrap()
}

fn put(server: &Server) -> Seen {
    server.seen().into_iter().find(|seen| seen.method == "PUT").expect("an upload")
}

#[tokio::test(flavor = "multi_thread")]
async fn bl_px_2_a_blob_reaches_all_upstreams_whatever_their_manners_and_its_url_is_one_of_theirs() {
    let database = TestDatabase::new().await;
    let servers = servers([
        Character::Good,
        Character::Old,
        Character::Silent202,
        Character::NotYetReadable(3),
        Character::Slow(Duration::from_millis(1)),
    ])
    .await;
    let all: Vec<&Server> = servers.iter().collect();
    let room = Room::before(&database, &all).await;
    let alice = User::new(1);
    for bytes in [0, 1_000, 5_000_000] {
        let body = content(3, bytes);
        let answer = alice.upload(room.address, &body, "image/png").await;
        assert_eq!(answer.status, 201, "{:?}", answer.refusal());
        let url = answer.json()["url"].as_str().unwrap().to_owned();
        assert!(all.iter().any(|server| url.starts_with(&server.url())), "BL-PX.2: {url}");
        for server in &all {
            server.gets(&sha256(&body)).await;
        }
        become_states(&database, &sha256(&body), &all, &["readable"; 5]).await;
    }
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn bl_px_4_an_upstream_that_never_reads_delays_by_seconds_and_one_that_never_answers_not_at_all() {
    let database = TestDatabase::new().await;
    let servers = servers([Character::Good, Character::NeverReads, Character::Good]).await;
    let all: Vec<&Server> = servers.iter().collect();
    let room = Room::before_with(&database, &all, |settings| settings.replicas_min = least(2)).await;
    let body = content(1, LARGE);
    let began = Instant::now();
    let answer = User::new(1).upload(room.address, &body, "video/mp4").await;
    assert_eq!(answer.status, 201, "{:?}", answer.refusal());
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(servers[0].has(&sha256(&body)) && servers[2].has(&sha256(&body)));
    eventually("the failure", async || {
        history(&database, &sha256(&body), &all).await.contains(&"failed 1".to_owned())
    })
    .await;
    assert_eq!(servers[1].completed(), Vec::<String>::new());

    servers[1].be(Character::NeverAnswers);
    let body = content(2, 3_000_000);
    let began = Instant::now();
    assert_eq!(User::new(1).upload(room.address, &body, "video/mp4").await.status, 201);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn bl_px_3_without_a_quorum_there_is_no_success_and_a_repeated_upload_converges() {
    let database = TestDatabase::new().await;
    let servers = servers([Character::Good, Character::RefusesLate(500)]).await;
    let all: Vec<&Server> = servers.iter().collect();
    let room = Room::before_with(&database, &all, |settings| settings.replicas_min = least(2)).await;
    let (alice, body) = (User::new(1), content(1, 1_000_000));
    let hash = sha256(&body);
    let answer = alice.upload(room.address, &body, "image/png").await;
    let (status, reason) = answer.refusal();
    assert_eq!(status, 502, "{reason}");
    assert!(!reason.contains(&servers[1].url()), "upstreams are not named: {reason}");
    eventually("a record of the copy", async || states(&database, &hash, &all).await[0].is_some()).await;
    assert_eq!(number(&database, "SELECT count(*) FROM blob_owners").await, 0);

    servers[1].be(Character::Good);
    assert_eq!(alice.upload(room.address, &body, "image/png").await.status, 201);
    assert_eq!(servers[0].asked("PUT", "/upload"), 1, "the copy that was made is not made again");
    become_states(&database, &hash, &all, &["readable", "readable"]).await;
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn bl_px_6_upstreams_that_share_a_refusal_pass_it_on_and_bl_px_10_it_does_not_count_against_them() {
    let database = TestDatabase::new().await;
    let servers = servers([Character::Refuses(413), Character::RefusesLate(413)]).await;
    let all: Vec<&Server> = servers.iter().collect();
    let room = Room::before(&database, &all).await;
    let alice = User::new(1);
    let upload = async |seed| alice.upload(room.address, &content(seed, 300_000), "image/png").await.status;
    for (first, second, status) in
        [(413, 413, 413), (401, 401, 401), (402, 402, 402), (415, 415, 415), (413, 401, 502), (403, 403, 502)]
    {
        servers[0].be(Character::Refuses(first));
        servers[1].be(Character::RefusesLate(second));
        for seed in 0..3 {
            assert_eq!(upload(seed).await, status, "{first}, {second}");
        }
    }
    assert!(room.started.upstreams.list().iter().all(Upstream::is_healthy), "BL-PX.10");
    assert_eq!(number(&database, "SELECT count(*) FROM blobs").await, 0);
    servers[0].be(Character::Good);
    assert_eq!(upload(9).await, 201, "one of two is enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn bl_px_4_failures_of_some_upstreams_in_mid_body_do_not_break_the_upload() {
    let database = TestDatabase::new().await;
    let servers = servers([
        Character::FailsMidBody(300_000),
        Character::Good,
        Character::Refuses(500),
        Character::RefusesLate(507),
        Character::WrongHash,
        Character::HugeJson,
        Character::RedirectLoop,
    ])
    .await;
    let all: Vec<&Server> = servers.iter().collect();
    let room = Room::before(&database, &all).await;
    let body = content(1, 5_000_000);
    let answer = User::new(1).upload(room.address, &body, "image/png").await;
    assert_eq!(answer.status, 201, "{:?}", answer.refusal());
    eventually("the ends of all", async || {
        let happened = history(&database, &sha256(&body), &all).await;
        let failed = |place| happened.contains(&format!("failed {place}"));
        // BL-PX.5: a descriptor with another hash is a failure.
        happened.contains(&"accepted 1".to_owned()) && [0, 2, 3, 4, 5, 6].into_iter().all(failed)
    })
    .await;
    assert!(servers[1].has(&sha256(&body)));
}

/// BL-02.9, BL-11.11: no upstream has a complete body of an upload that was wrong.
#[tokio::test(flavor = "multi_thread")]
async fn bl_02_9_wrong_short_and_aborted_bodies_are_complete_at_no_upstream() {
    let database = TestDatabase::new().await;
    let servers = servers([Character::Good, Character::Good]).await;
    let all: Vec<&Server> = servers.iter().collect();
    let room = Room::before(&database, &all).await;
    let alice = User::new(1);
    let body = content(1, 6_000_000);
    let (length, wrong) = (body.len().to_string(), sha256(b"another"));
    let token = alice.token("upload", &[&wrong]);

    // Another hash than announced, and than the only one that the token names.
    let headers = [("authorization", &*token), ("x-sha-256", &wrong)];
    assert_eq!(fetch("PUT", &room.url("/upload"), &headers, &body).await.status, 409);
    assert_eq!(fetch("PUT", &room.url("/upload"), &headers[..1], &body).await.status, 401);
    let broken = |at_least: usize| {
        let all = &all;
        eventually("the end of the requests", async move || {
            all.iter().all(|server| server.broken() >= at_least)
        })
    };
    broken(2).await;

    // Clients that go away when they have sent nearly all.
    let token = alice.token("upload", &[&sha256(&body)]);
    let headers = [("authorization", &*token), ("content-length", &length)];
    for sent in [body.len() - 1, body.len() / 2] {
        let before = servers[0].received();
        let mut stream = begin("PUT", &room.url("/upload"), &headers).await;
        stream.write_all(&body[..sent]).await.unwrap();
        eventually("some of the body at an upstream", async || servers[0].received() > before).await;
        drop(stream);
    }
    broken(4).await;
    // A chunked body that ends without its last chunk.
    let headers = [("authorization", &*token), ("transfer-encoding", "chunked")];
    let mut stream = begin("PUT", &room.url("/upload"), &headers).await;
    stream.write_all(format!("{:x}\r\n", body.len()).as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    stream.write_all(b"\r\n").await.unwrap();
    drop(stream);
    broken(5).await;

    for server in &all {
        assert_eq!((server.completed(), server.count()), (Vec::new(), 0));
    }
    // A small body that is wrong reaches no upstream at all.
    let before = servers[0].asked("PUT", "/upload");
    let token = alice.token("upload", &[&wrong]);
    let headers = [("authorization", &*token), ("x-sha-256", &wrong)];
    for small in [&b""[..], b"x", &body[..100_000]] {
        assert_eq!(fetch("PUT", &room.url("/upload"), &headers, small).await.status, 409);
    }
    assert_eq!(servers[0].asked("PUT", "/upload"), before);
    assert_eq!(number(&database, "SELECT count(*) FROM blob_log").await, 0);
    assert!(room.started.upstreams.list().iter().all(Upstream::is_healthy), "BL-PX.10");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_after_its_whole_body_owns_the_blob() {
    let database = TestDatabase::new().await;
    let servers = servers([Character::Slow(Duration::from_secs(2))]).await;
    let room = Room::before(&database, &[&servers[0]]).await;
    let body = content(1, 100_000);
    let token = User::new(1).token("upload", &[&sha256(&body)]);
    let headers = [("authorization", &*token), ("content-length", "100000")];
    let mut stream = begin("PUT", &room.url("/upload"), &headers).await;
    stream.write_all(&body).await.unwrap();
    // A small body is sent on when it is complete and right.
    eventually("some of the body at the upstream", async || servers[0].received() > 0).await;
    drop(stream);
    eventually("an owner", async || number(&database, "SELECT count(*) FROM blob_owners").await == 1).await;
    assert!(servers[0].has(&sha256(&body)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_has_enough_copies_is_not_sent_again() {
    let database = TestDatabase::new().await;
    let servers = servers([Character::Good, Character::Good]).await;
    let all: Vec<&Server> = servers.iter().collect();
    let room = Room::before(&database, &all).await;
    let body = content(1, 400_000);
    assert_eq!(User::new(1).upload(room.address, &body, "image/png").await.status, 201);
    become_states(&database, &sha256(&body), &all, &["readable"; 2]).await;
    assert_eq!(User::new(1).upload(room.address, &body, "image/png").await.status, 200);
    assert_eq!(User::new(2).upload(room.address, &body, "image/png").await.status, 201, "another owner");
    assert_eq!([servers[0].asked("PUT", ""), servers[1].asked("PUT", "")], [1, 1]);
    // Its body is read and checked nevertheless.
    let hash = sha256(&body);
    let token = User::new(3).token("upload", &[&hash]);
    let headers = [("authorization", &*token), ("x-sha-256", &hash)];
    assert_eq!(fetch("PUT", &room.url("/upload"), &headers, b"other bytes").await.status, 409);
    assert_eq!(number(&database, "SELECT count(*) FROM blob_owners").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn bl_px_1_a_token_goes_only_to_upstreams_that_it_is_valid_at() {
    let database = TestDatabase::new().await;
    let servers = servers([Character::Good]).await;
    let room = Room::before(&database, &[&servers[0]]).await;
    let alice = User::new(1);
    let send = async |room: &Room, body: &[u8], tags: &[[&str; 2]]| {
        let hash = sha256(body);
        let mut all = vec![["x", &*hash]];
        all.extend(tags);
        let token = alice.token_with("upload", 600, &all);
        let headers = [("authorization", &*token), ("x-sha-256", &hash)];
        fetch("PUT", &room.url("/upload"), &headers, body).await.status
    };
    assert_eq!(send(&room, b"unscoped", &[]).await, 201);
    assert_eq!(event_in(&put(&servers[0]))["pubkey"], alice.pubkey(), "the client's own");
    // Valid here alone (as both have the same host, by another name for it).
    let here = [["server", "localhost"]];
    assert_eq!(send(&room, b"scoped", &here).await, 502, "no token is valid there");
    assert_eq!(servers[0].count(), 1);

    let operator = User::new(9);
    let keys =
        UpstreamKeys { signer: Some(Secret::new(operator.keys.secret_key().to_secret_hex())), objects: None };
    let other = super::server_kit::Server::start(Character::Good).await;
    let second = TestDatabase::new().await;
    let room = Room::open(&second.urls(), &keys, |settings| {
        settings.upstreams = vec![upstream(&other.url())];
    })
    .await;
    assert_eq!(send(&room, b"scoped", &here).await, 201);
    let signed = event_in(&put(&other));
    assert_eq!(signed["pubkey"], operator.pubkey());
    let tags = signed["tags"].as_array().unwrap();
    assert!(tags.iter().any(|tag| tag[0] == "x" && tag[1] == sha256(b"scoped")), "{tags:?}");
    assert!(tags.iter().any(|tag| tag[0] == "server"), "{tags:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bl_06_upstreams_that_can_say_it_are_asked_before_an_upload() {
    let database = TestDatabase::new().await;
    let servers = servers([Character::Refuses(413), Character::Old]).await;
    let all: Vec<&Server> = servers.iter().collect();
    let hash = sha256(b"later");
    let token = User::new(1).token("upload", &[&hash]);
    let headers = [("authorization", &*token), ("x-sha-256", &hash), ("x-content-length", "5")];
    let room = Room::before_with(&database, &all, |settings| {
        settings.replicas_min = least(2);
        for upstream in &mut settings.upstreams {
            upstream.supports_upload_head = true;
        }
    })
    .await;
    let ask = async || fetch("HEAD", &room.url("/upload"), &headers, b"").await.status;
    assert_eq!(ask().await, 413, "one of two refuses, and both are needed");
    servers[0].be(Character::Good);
    assert_eq!(ask().await, 200);
    assert_eq!(servers[0].asked("HEAD", "/upload"), 2);
}
