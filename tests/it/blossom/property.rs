//! Random lives of blobs: users upload and delete the same few blobs at the same time, while upstreams change how they behave. Whatever
//! the order, a blob that was answered with success is at enough upstreams, or is listed as under-replicated, and is at all of
//! them soon after they work again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::{sleep, timeout};

use super::client_kit::{Answer, User, content, fetch, sha256};
use super::kit::{Room, number, problems};
use super::server_kit::{Character, Server};
use crate::support::database::TestDatabase;
use crate::support::rounds::rounds;

/// Seed of the first run. A seed repeats what is done, not the order in which requests at the same time take effect.
const SEED: u64 = 16;

const SERVERS: usize = 4;
const REPLICAS_MIN: usize = 2;
const USERS: u8 = 4;
const BLOBS: u8 = 10;

/// Steps of one run, in each of which every user does something.
const STEPS: usize = 30;

/// Time within which everything is whole again after the upstreams work: copies that an upstream accepted and lost are given up
/// after a minute.
const RECOVERY_MAX: Duration = Duration::from_mins(3);

/// How upstreams behave. Those that never answer are tested elsewhere: an upload waits for them.
const CHARACTERS: [Character; 13] = [
    Character::Good,
    Character::Good,
    Character::Good,
    Character::Old,
    Character::Silent202,
    Character::NotYetReadable(3),
    Character::Forgetful,
    Character::FailsMidBody(1_000),
    Character::Refuses(507),
    Character::RefusesLate(500),
    Character::WrongHash,
    Character::FakeNotFound,
    Character::Broken(503),
];

/// What users were told.
#[derive(Default)]
struct Told {
    /// Owners of each blob, by the answers with success.
    owners: BTreeMap<u8, BTreeSet<u8>>,
    /// Users and blobs of which a request was answered with a failure of ours or of the upstreams: it may have had an effect.
    unknown: BTreeSet<(u8, u8)>,
    stored: usize,
    refused: usize,
    deleted: usize,
}

/// One request of a user.
#[derive(Debug, Clone, Copy)]
struct Step {
    user: u8,
    blob: u8,
    is_upload: bool,
}

/// The content of a blob; some are larger than the pieces in which bodies come.
fn blob(number: u8) -> Vec<u8> {
    content(number, if number.is_multiple_of(4) { 3_000_000 } else { 5_000 + usize::from(number) })
}

async fn take(room: &Room, step: Step) -> Answer {
    let (user, blob) = (User::new(step.user + 1), blob(step.blob));
    if step.is_upload {
        return user.upload(room.address, &blob, "application/octet-stream").await;
    }
    let hash = sha256(&blob);
    // It names the upstreams: a token that deletes goes to no other server.
    let token = user.token_with("delete", 3_600, &[["x", &hash], ["server", "127.0.0.1"]]);
    fetch("DELETE", &room.url(&format!("/{hash}")), &[("authorization", &token)], b"").await
}

impl Told {
    fn note(&mut self, step: Step, answer: &Answer, servers: &[Server]) {
        let Step { user, blob: number, is_upload } = step;
        let owners = self.owners.entry(number).or_default();
        match answer.status {
            200 | 201 if is_upload => {
                self.stored += 1;
                owners.insert(user);
                self.unknown.remove(&(user, number));
                let hash = sha256(&blob(number));
                let took = servers.iter().filter(|server| server.completed().contains(&hash)).count();
                assert!(took >= REPLICAS_MIN, "{step:?} succeeded with {took} upstreams");
            }
            200 | 202 => {
                self.deleted += 1;
                owners.remove(&user);
                self.unknown.remove(&(user, number));
            }
            // Of a user who does not own it.
            403 | 404 if !is_upload => {
                let owns = owners.contains(&user) && !self.unknown.contains(&(user, number));
                assert!(!owns, "{step:?}: {:?}", answer.refusal());
            }
            400..=599 => {
                self.refused += 1;
                self.unknown.insert((user, number));
                assert_ne!(answer.status, 500, "{step:?}: {:?}", answer.refusal());
            }
            status => panic!("{step:?}: {status}"),
        }
    }

    /// Blobs that have an owner for certain, with their hashes.
    fn kept(&self) -> Vec<(u8, String)> {
        let is_certain = |number: u8, user: u8| !self.unknown.contains(&(user, number));
        let kept = self
            .owners
            .iter()
            .filter(|(number, owners)| owners.iter().any(|user| is_certain(**number, *user)));
        kept.map(|(number, _)| (*number, sha256(&blob(*number)))).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_what_was_answered_with_success_is_whole_again() {
    for round in 0..rounds() {
        live(SEED.wrapping_add(round.wrapping_mul(1_000_003))).await;
    }
}

async fn live(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let database = TestDatabase::new().await;
    let mut servers = Vec::new();
    for _ in 0..SERVERS {
        servers.push(Server::start(Character::Good).await);
    }
    let told = {
        let room = start(&database, &servers).await;
        lives(&mut rng, &room, &servers).await
    };
    println!("seed {seed}: {} stored, {} refused, {} deleted", told.stored, told.refused, told.deleted);
    assert!(told.stored > STEPS && told.deleted > 0, "seed {seed}: too little happened");
    assert!(!told.kept().is_empty(), "seed {seed}: nothing is kept");

    // What has too few copies is listed before anything is repaired.
    for (_, hash) in told.kept() {
        let listed = format!(
            "SELECT count(*) FROM blob_copies c WHERE c.sha256 = '\\x{hash}' AND c.owners > 0
             AND c.copies = (SELECT count(*) FROM blob_replicas r WHERE r.sha256 = c.sha256 AND r.state IN ('accepted', 'readable'))"
        );
        assert_eq!(number(&database, &listed).await, 1, "seed {seed}: {hash}");
    }

    // The upstreams work again; another process goes on.
    for server in &servers {
        server.be(Character::Good);
    }
    let room = start(&database, &servers).await;
    let recovered = timeout(RECOVERY_MAX, async {
        while !is_whole(&database, &told, &servers).await {
            sleep(Duration::from_millis(200)).await;
        }
    });
    if recovered.await.is_err() {
        let missing =
            "SELECT string_agg(format('%s %s %s %s', encode(sha256, 'hex'), upstream, state, why), E'\\n')
                       FROM blob_replicas WHERE state <> 'readable'";
        let missing: Option<String> = database.owner().await.query_one(missing, &[]).await.unwrap().get(0);
        panic!("seed {seed}: not whole after {RECOVERY_MAX:?}:\n{}", missing.unwrap_or_default());
    }
    for (number, hash) in told.kept() {
        let answer = room.get(&format!("/{hash}")).await;
        assert_eq!(answer.status, 307, "seed {seed}: {:?}", answer.refusal());
        let got = fetch("GET", &answer.header("location").unwrap(), &[], b"").await;
        assert!(got.body == blob(number), "seed {seed}: {hash} has other bytes");
    }
    assert_eq!(problems(&database).await, Vec::<String>::new(), "seed {seed}");
}

async fn start(database: &TestDatabase, servers: &[Server]) -> Room {
    Room::before_with(database, &servers.iter().collect::<Vec<_>>(), |settings| {
        settings.replicas_min = u32::try_from(REPLICAS_MIN).unwrap().try_into().unwrap();
        settings.uploads_per_minute = 0;
    })
    .await
}

async fn lives(rng: &mut StdRng, room: &Room, servers: &[Server]) -> Told {
    let mut told = Told::default();
    for _ in 0..STEPS {
        // Half of the time one of the upstreams changes.
        if rng.random_bool(0.5) {
            let server = servers.choose(rng).unwrap();
            server.be(*CHARACTERS.choose(rng).unwrap());
        }
        let steps: Vec<Step> = (0..USERS)
            .map(|user| Step { user, blob: rng.random_range(0..BLOBS), is_upload: rng.random_bool(0.7) })
            .collect();
        let answers = join_all(steps.iter().map(|step| take(room, *step))).await;
        for (step, answer) in steps.iter().zip(&answers) {
            told.note(*step, answer, servers);
        }
    }
    told
}

/// Whether all that is kept for certain is at every upstream, and known to be readable there.
async fn is_whole(database: &TestDatabase, told: &Told, servers: &[Server]) -> bool {
    let kept = told.kept();
    if !kept.iter().all(|(_, hash)| servers.iter().all(|server| server.has(hash))) {
        return false;
    }
    let hashes: Vec<String> = kept.iter().map(|(_, hash)| format!("'\\x{hash}'")).collect();
    let readable = format!(
        "SELECT count(*) FROM blob_replicas WHERE state = 'readable' AND sha256 IN ({})",
        hashes.join(", ")
    );
    number(database, &readable).await == i64::try_from(kept.len() * SERVERS).unwrap()
}
