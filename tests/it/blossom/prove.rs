//! Old copies are proven again: by their size, and by all of their bytes.

use std::sync::Arc;

use quipu::net::Egress;
use quipu::services::blossom::append::{BlobJournal, Changes};
use quipu::services::blossom::event::{BlobFacts, Proof};
use quipu::services::blossom::metrics::BlobMetrics;
use quipu::services::blossom::react::{Finding, ReactParts, Verify, check_replica, prove_copy};
use quipu::services::blossom::upstream::{UpstreamKeys, Upstreams};
use tokio_util::sync::CancellationToken;

use super::client_kit::{User, content, eventually, sha256};
use super::kit::{Room, become_states, history, number, upstream};
use super::server_kit::{Character, Server};
use crate::support::database::TestDatabase;

/// The parts of the loops in front of the same servers, beside the running ones.
fn parts(room: &Room) -> ReactParts {
    let settings = room.parts.settings.services.blossom.clone();
    let outside = Egress::new(&room.parts.settings.networks).unwrap();
    let metrics = BlobMetrics::default();
    let upstreams =
        Upstreams::open(&settings, &UpstreamKeys::default(), &outside, &room.parts.clock, &metrics).unwrap();
    ReactParts {
        pools: room.parts.pools.clone(),
        leases: room.parts.leases.clone(),
        journal: room.parts.writer(BlobJournal { changes: Changes::new(room.parts.hints.clone()) }),
        upstreams: Arc::new(upstreams),
        clock: Arc::clone(&room.parts.clock),
        settings,
        metrics,
    }
}

fn facts(blob: &[u8]) -> BlobFacts {
    BlobFacts {
        sha256: sha256(blob).parse().unwrap(),
        size: u64::try_from(blob.len()).unwrap(),
        media_type: "text/plain".to_owned(),
    }
}

#[tokio::test]
async fn a_look_finds_absent_short_long_and_other_bytes() {
    let database = TestDatabase::new().await;
    let server = Server::start(Character::Good).await;
    let room = Room::before(&database, &[&server]).await;
    let parts = parts(&room);
    let place = &parts.upstreams.list()[0];
    let blob = content(1, 30_000);
    let facts = facts(&blob);
    let hash = facts.sha256.to_string();
    let look = async |proof| check_replica(place, &facts, proof).await;

    assert_eq!(look(Proof::Head).await, Finding::Absent);
    assert_eq!(look(Proof::Hash).await, Finding::Absent);
    server.keep(&blob, "text/plain");
    assert_eq!(look(Proof::Head).await, Finding::Readable(Proof::Head));
    assert_eq!(look(Proof::Hash).await, Finding::Readable(Proof::Hash));
    server.alter(&hash, &content(2, 30_000), "text/plain");
    assert_eq!(look(Proof::Head).await, Finding::Readable(Proof::Head), "the size is all that is asked for");
    assert!(matches!(look(Proof::Hash).await, Finding::OtherBytes(_)));
    for bytes in [29_999, 30_001] {
        server.alter(&hash, &content(1, bytes), "text/plain");
        assert!(matches!(look(Proof::Head).await, Finding::OtherBytes(_)), "{bytes}");
    }
    server.alter(&hash, &blob, "text/plain");
    server.be(Character::HalfBody);
    assert!(matches!(look(Proof::Hash).await, Finding::Unknown(_)), "a broken answer says nothing");
    server.be(Character::RedirectLoop);
    assert!(matches!(look(Proof::Head).await, Finding::Unknown(_)));
    server.be(Character::Broken(500));
    assert!(matches!(look(Proof::Head).await, Finding::Unknown(_)));
    server.be(Character::FakeNotFound);
    server.wipe();
    assert_eq!(look(Proof::Head).await, Finding::Absent, "200 with `File not found` is no blob");
}

#[tokio::test]
async fn proofs_and_losses_are_recorded_and_what_is_unknown_is_not() {
    let database = TestDatabase::new().await;
    let server = Server::start(Character::Good).await;
    let servers = [&server];
    let room = Room::before(&database, &servers).await;
    let blob = content(1, 30_000);
    let answer = User::new(1).upload(room.address, &blob, "text/plain").await;
    assert_eq!(answer.status, 201, "{:?}", answer.refusal());
    let facts = facts(&blob);
    let hash = facts.sha256.to_string();
    become_states(&database, &hash, &servers, &["readable"]).await;
    let parts = parts(&room);
    let place = &parts.upstreams.list()[0];
    let proofs = async |why: &str| {
        let counted = format!("SELECT count(*) FROM blob_log WHERE kind = 'proven' AND why = '{why}'");
        number(&database, &counted).await
    };
    let before = (proofs("head").await, proofs("hash").await);
    prove_copy(&parts, place, &facts, Proof::Hash).await.unwrap();
    assert!(proofs("head").await >= before.0 && proofs("hash").await == before.1 + 1);
    // The service looks at a random copy of each upstream by itself.
    eventually("a proof by size", async || proofs("head").await > before.0).await;

    server.be(Character::Broken(503));
    let known = history(&database, &hash, &servers).await.len();
    assert!(matches!(prove_copy(&parts, place, &facts, Proof::Head).await, Ok(Finding::Unknown(_))));
    assert_eq!(history(&database, &hash, &servers).await.len(), known);
    server.be(Character::Good);
    server.wipe();
    assert_eq!(prove_copy(&parts, place, &facts, Proof::Head).await.unwrap(), Finding::Absent);
    become_states(&database, &hash, &servers, &["lost"]).await;
}

#[tokio::test]
async fn what_an_upstream_of_earlier_settings_has_is_left_alone() {
    let database = TestDatabase::new().await;
    let (old, new) = (Server::start(Character::Good).await, Server::start(Character::Good).await);
    let blob = content(3, 10_000);
    let hash = sha256(&blob);
    {
        let room = Room::before(&database, &[&old]).await;
        assert_eq!(User::new(1).upload(room.address, &blob, "text/plain").await.status, 201);
        become_states(&database, &hash, &[&old], &["readable"]).await;
    }
    let room = Room::with(&database, |settings| settings.upstreams = vec![upstream(&new.url())]).await;
    let asked = old.seen().len();
    // Nothing can be copied from there any more, and no request is sent.
    Verify::new(Arc::new(parts(&room))).pass(&CancellationToken::new()).await.unwrap();
    assert_eq!((old.seen().len(), new.has(&hash)), (asked, false));
    drop(room);
    // With both in the settings the new one gets its copy.
    let _room = Room::before(&database, &[&old, &new]).await;
    new.gets(&hash).await;
    become_states(&database, &hash, &[&old, &new], &["readable", "readable"]).await;
}
