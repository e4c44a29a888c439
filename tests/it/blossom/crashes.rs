//! kill -9 of `quipu run blossom` in the middle of uploads and of repair: what was acknowledged is kept, what was not is no
//! copy, and repair goes on.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::task::block_in_place;

use super::client_kit::{User, begin, content, eventually, sha256};
use super::kit::{become_states, number, problems};
use super::server_kit::{Character, Server};
use crate::support::database::TestDatabase;
use crate::support::program::Program;
use crate::support::rounds::rounds;

/// The program in front of these servers.
fn program(database: &TestDatabase, servers: &[&Server]) -> Program {
    let upstreams: Vec<_> = servers.iter().map(|server| json!({ "url": server.url() })).collect();
    let settings = [
        format!("services.blossom.upstreams={}", json!(upstreams)),
        "services.blossom.uploads_per_minute=0".to_owned(),
    ];
    Program::on(database, "blossom", &settings)
}

/// Begins an upload and sends this part of it. The connection is returned, so that it stays open.
async fn begin_upload(address: SocketAddr, blob: &[u8], sent: usize) -> tokio::net::TcpStream {
    let hash = sha256(blob);
    let (token, length) = (User::new(1).token("upload", &[&hash]), blob.len().to_string());
    let headers = [("authorization", &*token), ("x-sha-256", &hash), ("content-length", &length)];
    let mut stream = begin("PUT", &format!("http://{address}/upload"), &headers).await;
    stream.write_all(&blob[..sent]).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_in_which_the_process_is_killed_leaves_no_copy() {
    let database = TestDatabase::new().await;
    let (first, second) = (Server::start(Character::Good).await, Server::start(Character::Good).await);
    let servers = [&first, &second];
    let program = program(&database, &servers);
    let mut process = block_in_place(|| program.start());
    let (kept, broken) = (content(1, 300_000), content(2, 6_000_000));
    let acknowledged = User::new(1).upload(program.address, &kept, "text/plain").await;
    assert_eq!(acknowledged.status, 201, "{:?}", acknowledged.refusal());

    for sent in [1, 3_000_000, broken.len() - 1] {
        let before = (first.received(), second.received());
        let stream = begin_upload(program.address, &broken, sent).await;
        if sent > 1 {
            eventually("a part has arrived", async || {
                first.received() > before.0 && second.received() > before.1
            })
            .await;
        }
        block_in_place(|| process.kill_9());
        drop(stream);
        process = block_in_place(|| program.start());
        let hash = sha256(&broken);
        for server in servers {
            assert!(!server.has(&hash) && !server.completed().contains(&hash), "after {sent} bytes");
        }
        let known = format!("SELECT count(*) FROM blobs WHERE sha256 = '\\x{hash}'");
        assert_eq!(number(&database, &known).await, 0);
    }
    become_states(&database, &sha256(&kept), &servers, &["readable", "readable"]).await;
    let again = User::new(1).upload(program.address, &broken, "text/plain").await;
    assert_eq!(again.status, 201, "{:?}", again.refusal());
    become_states(&database, &sha256(&broken), &servers, &["readable", "readable"]).await;
    block_in_place(|| process.stop());
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repair_in_which_the_process_is_killed_goes_on_and_states_are_true() {
    const BLOBS: u8 = 40;
    let database = TestDatabase::new().await;
    let (first, second) = (Server::start(Character::Good).await, Server::start(Character::Good).await);
    let servers = [&first, &second];
    let program = program(&database, &servers);
    let mut process = block_in_place(|| program.start());
    second.be(Character::Broken(503));
    let mut hashes = BTreeSet::new();
    for seed in 0..BLOBS {
        let blob = content(seed, 200_000);
        let answer = User::new(1).upload(program.address, &blob, "text/plain").await;
        assert_eq!(answer.status, 201, "{:?}", answer.refusal());
        hashes.insert(sha256(&blob));
    }
    // So slow that a kill comes in the middle.
    second.be(Character::Slow(Duration::from_millis(2)));
    let crashes = 2 * usize::try_from(rounds()).unwrap();
    for crash in 0..crashes {
        let wanted = (crash + 1) * usize::from(BLOBS) / (crashes + 2);
        eventually("some copies are made", async || second.count() >= wanted).await;
        block_in_place(|| process.kill_9());
        // What counts as a copy is one.
        let there = "SELECT encode(sha256, 'hex') FROM blob_replicas WHERE upstream = $1 AND state IN ('accepted', 'readable')";
        let rows = database.owner().await.query(there, &[&second.url()]).await.unwrap();
        for row in rows {
            assert!(second.has(row.get(0)), "crash {crash}: a copy that is recorded is not there");
        }
        process = block_in_place(|| program.start());
    }
    second.be(Character::Good);
    for hash in &hashes {
        become_states(&database, hash, &servers, &["readable", "readable"]).await;
    }
    assert_eq!(second.count(), usize::from(BLOBS));
    block_in_place(|| process.stop());
    assert_eq!(problems(&database).await, Vec::<String>::new());
}
