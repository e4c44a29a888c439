//! New copies are read back, and what has too few copies gets more, without a person.

use super::client_kit::{User, content, eventually, fetch, sha256};
use super::kit::{Room, become_states, history, number, problems, states};
use super::server_kit::{Character, Server};
use crate::support::database::TestDatabase;

/// Starts servers with these characters.
async fn servers(characters: &[Character]) -> Vec<Server> {
    let mut servers = Vec::new();
    for character in characters {
        servers.push(Server::start(*character).await);
    }
    servers
}

fn refs(servers: &[Server]) -> Vec<&Server> {
    servers.iter().collect()
}

/// Uploads blobs with these seeds. Returns their hashes.
async fn upload(room: &Room, seeds: std::ops::Range<u8>) -> Vec<String> {
    let mut hashes = Vec::new();
    for seed in seeds {
        let blob = content(seed, 20_000 + usize::from(seed));
        let answer = User::new(1).upload(room.address, &blob, "application/octet-stream").await;
        assert_eq!(answer.status, 201, "{:?}", answer.refusal());
        hashes.push(sha256(&blob));
    }
    hashes
}

/// Waits until every blob counts as readable at all of these servers.
async fn become_whole(database: &TestDatabase, blobs: usize, servers: &[&Server]) {
    let all = i64::try_from(blobs * servers.len()).unwrap();
    eventually("every copy is readable", async || {
        let readable = "SELECT count(*) FROM blob_replicas WHERE state = 'readable'";
        number(database, readable).await == all && servers.iter().all(|server| server.count() == blobs)
    })
    .await;
}

#[tokio::test]
async fn a_copy_counts_as_readable_once_it_was_read_back() {
    let database = TestDatabase::new().await;
    let servers = servers(&[Character::Good, Character::NotYetReadable(3)]).await;
    let servers = refs(&servers);
    let room = Room::before(&database, &servers).await;
    let hash = upload(&room, 0..1).await.remove(0);
    become_states(&database, &hash, &servers, &["readable", "readable"]).await;
    let happened = history(&database, &hash, &servers).await;
    for entry in ["accepted 0", "accepted 1", "uploaded", "readable 0", "readable 1"] {
        assert_eq!(happened.iter().filter(|known| *known == entry).count(), 1, "{entry}: {happened:?}");
    }
    assert!(servers[1].asked("HEAD", &format!("/{hash}")) >= 4, "it was asked until it had the blob");
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

#[tokio::test]
async fn an_upstream_that_was_out_of_order_gets_its_copies_when_it_works_again() {
    let database = TestDatabase::new().await;
    let servers = servers(&[Character::Good, Character::Broken(503), Character::Refuses(500)]).await;
    let servers = refs(&servers);
    let room = Room::before(&database, &servers).await;
    let hashes = upload(&room, 0..3).await;
    become_states(&database, &hashes[2], &servers, &["readable", "failed", "failed"]).await;
    servers[1].be(Character::Good);
    servers[2].be(Character::Good);
    become_whole(&database, 3, &servers).await;
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_was_uploaded_while_an_upstream_was_down_is_copied_when_it_is_back() {
    let database = TestDatabase::new().await;
    let mut servers = servers(&[Character::Good, Character::Good]).await;
    let room = Room::before(&database, &refs(&servers)).await;
    servers[1].stop().await;
    let hashes = upload(&room, 0..3).await;
    become_states(&database, &hashes[0], &refs(&servers), &["readable", "failed"]).await;
    servers[1].restart().await;
    become_whole(&database, 3, &refs(&servers)).await;
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_wiped_upstream_is_full_again_without_a_person() {
    const BLOBS: usize = 40;
    let database = TestDatabase::new().await;
    let servers = servers(&[Character::Good, Character::Good, Character::Good]).await;
    let servers = refs(&servers);
    let room = Room::before_with(&database, &servers, |settings| settings.uploads_per_minute = 0).await;
    let hashes = upload(&room, 0..u8::try_from(BLOBS).unwrap()).await;
    become_whole(&database, BLOBS, &servers).await;
    servers[1].wipe();
    become_whole(&database, BLOBS, &servers).await;
    let happened = history(&database, &hashes[7], &servers).await;
    let after = happened.iter().position(|entry| entry == "lost 1").expect("the loss is recorded");
    assert!(happened[after..].ends_with(&["accepted 1".to_owned(), "readable 1".to_owned()]), "{happened:?}");
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

#[tokio::test]
async fn two_processes_divide_the_repair_and_make_each_copy_once() {
    const BLOBS: usize = 30;
    let database = TestDatabase::new().await;
    let servers = servers(&[Character::Good, Character::Broken(503)]).await;
    let servers = refs(&servers);
    let first = Room::before_with(&database, &servers, |settings| settings.uploads_per_minute = 0).await;
    let second = Room::before(&database, &servers).await;
    upload(&first, 0..u8::try_from(BLOBS).unwrap()).await;
    servers[1].be(Character::Good);
    become_whole(&database, BLOBS, &servers).await;
    let mut completed = servers[1].completed();
    let copies = completed.len();
    completed.sort();
    completed.dedup();
    assert_eq!((copies, completed.len()), (BLOBS, BLOBS), "a copy was made twice");
    drop((first, second));
}

#[tokio::test]
async fn a_server_that_can_mirror_fetches_its_copy_itself() {
    let database = TestDatabase::new().await;
    let servers = servers(&[Character::Good, Character::Broken(503)]).await;
    let servers = refs(&servers);
    let room = Room::before_with(&database, &servers, |settings| {
        settings.upstreams[1].supports_mirror = true;
    })
    .await;
    let hash = upload(&room, 0..1).await.remove(0);
    servers[1].be(Character::Good);
    become_states(&database, &hash, &servers, &["readable", "readable"]).await;
    assert_eq!(servers[1].asked("PUT", "/mirror"), 1);
    assert_eq!(servers[1].completed(), Vec::<String>::new(), "no bytes went through here");
}

#[tokio::test]
async fn a_holder_that_gives_other_bytes_is_found_out_and_its_bytes_are_not_spread() {
    let database = TestDatabase::new().await;
    let servers = servers(&[Character::Good, Character::Good, Character::Broken(503)]).await;
    let servers = refs(&servers);
    let room = Room::before_with(&database, &servers, |settings| {
        // The one that gives other bytes is asked first.
        settings.upstreams[1].priority = 9;
    })
    .await;
    let hash = upload(&room, 0..1).await.remove(0);
    become_states(&database, &hash, &servers, &["readable", "readable", "failed"]).await;
    servers[0].alter(&hash, &content(99, 20_000), "application/octet-stream");
    servers[2].be(Character::Good);
    become_states(&database, &hash, &servers, &["readable", "readable", "readable"]).await;
    let happened = history(&database, &hash, &servers).await;
    assert!(happened.contains(&"lost 0".to_owned()), "{happened:?}");
    let got = fetch("GET", &format!("{}/{hash}", servers[2].url()), &[], b"").await;
    assert_eq!(sha256(&got.body), hash);
}

#[tokio::test]
async fn a_target_below_the_number_of_upstreams_is_kept_and_not_exceeded() {
    let database = TestDatabase::new().await;
    let servers = servers(&[Character::Good, Character::Good, Character::Good]).await;
    let servers = refs(&servers);
    let room = Room::before_with(&database, &servers, |settings| {
        settings.replicas_target = Some(2.try_into().unwrap());
    })
    .await;
    let hash = upload(&room, 0..1).await.remove(0);
    become_states(&database, &hash, &servers, &["readable", "readable", "none"]).await;
    servers[0].lose(&hash);
    // The loss is noticed by the looks that come every 15 s.
    eventually("two copies again", async || {
        let happened = history(&database, &hash, &servers).await;
        let found = states(&database, &hash, &servers).await;
        happened.contains(&"lost 0".to_owned())
            && found.iter().flatten().filter(|state| *state == "readable").count() == 2
    })
    .await;
    let there = servers.iter().filter(|server| server.has(&hash)).count();
    assert_eq!(there, 2, "as many as the target");
}

#[tokio::test]
async fn a_blob_whose_only_copy_was_denied_for_a_while_is_found_again() {
    let database = TestDatabase::new().await;
    let servers = servers(&[Character::Good]).await;
    let servers = refs(&servers);
    let room = Room::before(&database, &servers).await;
    let hash = upload(&room, 0..1).await.remove(0);
    become_states(&database, &hash, &servers, &["readable"]).await;
    let blob = content(0, 20_000);
    servers[0].lose(&hash);
    become_states(&database, &hash, &servers, &["lost"]).await;
    servers[0].keep(&blob, "application/octet-stream");
    become_states(&database, &hash, &servers, &["readable"]).await;
}

#[tokio::test]
async fn a_blob_without_an_owner_is_not_repaired() {
    let database = TestDatabase::new().await;
    let servers = servers(&[Character::Good, Character::Broken(503)]).await;
    let servers = refs(&servers);
    let room = Room::before_with(&database, &servers, |settings| {
        settings.replicas_min = 2.try_into().unwrap();
    })
    .await;
    let blob = content(1, 5_000);
    let refused = User::new(1).upload(room.address, &blob, "text/plain").await;
    assert_eq!(refused.status, 502, "{:?}", refused.refusal());
    servers[1].be(Character::Good);
    // A kept blob is repaired meanwhile.
    let kept = upload(&room, 2..3).await.remove(0);
    // A copy that was not read back yet would be waited for.
    become_states(&database, &kept, &servers, &["readable", "readable"]).await;
    servers[1].lose(&kept);
    eventually("the loss and the repair", async || {
        let happened = history(&database, &kept, &servers).await;
        let lost = happened.iter().position(|entry| entry == "lost 1");
        lost.is_some_and(|lost| happened[lost..].contains(&"readable 1".to_owned()))
    })
    .await;
    assert!(servers[1].has(&kept));
    assert!(!servers[1].has(&sha256(&blob)));
}
