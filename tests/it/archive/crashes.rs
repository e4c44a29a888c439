//! kill -9 of each process in the middle of an import: acknowledged events are stored, and no event is stored
//! twice.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use quipu::base::Secret;
use quipu::store::owner;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tokio_postgres::Client;

use super::kit::{Sample, ids_of};
use crate::support::instance::{Instance, await_some, signal};
use crate::support::rounds::rounds;

/// The processes to kill in each round, in order: three times Quipu and three times PostgreSQL, each at a
/// random moment.
const VICTIMS: [Victim; 6] = [
    Victim::Import,
    Victim::Postmaster,
    Victim::Instance,
    Victim::Backend,
    Victim::Instance,
    Victim::Postmaster,
];

/// Events of the file for each round: twice as many as one round usually stores, so that every crash comes in
/// the middle of an import.
const EVENTS_A_ROUND: usize = 60_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// `quipu import`.
    Import,
    /// `quipu up`; its servers keep running until it is started again.
    Instance,
    /// PostgreSQL's main process, which ends all others.
    Postmaster,
    /// One backend of PostgreSQL, which then restarts by itself.
    Backend,
}

/// An import in progress.
struct Importing {
    child: Child,
    parts: BufReader<ChildStdout>,
    sample: Arc<Sample>,
    acknowledged: Vec<[u8; 32]>,
}

impl Importing {
    fn start(instance: &Instance, sample: &Arc<Sample>) -> Self {
        let mut command = instance.command(&["import", "--json"]);
        let mut child = command.arg(sample.path()).stdout(Stdio::piped()).spawn().unwrap();
        let parts = BufReader::new(child.stdout.take().unwrap());
        Self { child, parts, sample: Arc::clone(sample), acknowledged: Vec::new() }
    }

    /// Waits for the next committed part and returns the number of its new events; `None` at the end.
    fn next_part(&mut self) -> Option<u64> {
        let mut line = String::new();
        // An incomplete line of a killed process acknowledges nothing.
        if self.parts.read_line(&mut line).unwrap() == 0 || !line.ends_with('\n') {
            return None;
        }
        let part: Value = serde_json::from_str(&line).unwrap();
        if part["total"] == true {
            return None;
        }
        let [first, last] = [0, 1].map(|n| usize::try_from(part["lines"][n].as_u64().unwrap()).unwrap());
        self.acknowledged.extend(&self.sample.ids[first - 1..last]);
        part["stored"].as_u64()
    }

    /// Waits until `parts` parts with new events are committed.
    fn until_stored(&mut self, parts: usize) {
        for _ in 0..parts {
            while self.next_part().expect("the import goes on") == 0 {}
        }
    }

    /// kill -9; complete lines written before count.
    fn kill_9(mut self) -> Vec<[u8; 32]> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        while self.next_part().is_some() {}
        self.acknowledged
    }

    fn finish(mut self) -> Vec<[u8; 32]> {
        while self.next_part().is_some() {}
        assert!(self.child.wait().unwrap().success());
        self.acknowledged
    }
}

/// Connects to a server that may still be restarting.
async fn reconnect(owner_url: &Secret) -> Client {
    let started = Instant::now();
    loop {
        match owner::connect(owner_url).await {
            Ok(client) if client.batch_execute("SELECT 1").await.is_ok() => return client,
            _ => assert!(started.elapsed() < Duration::from_mins(1), "PostgreSQL does not come back"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn stored_ids(client: &Client) -> HashSet<[u8; 32]> {
    let rows = client.query("SELECT id FROM events", &[]).await.unwrap();
    let ids: HashSet<[u8; 32]> = rows.iter().map(|row| row.get::<_, &[u8]>(0).try_into().unwrap()).collect();
    assert_eq!(ids.len(), rows.len(), "each event once");
    ids
}

/// Kills the victim and restarts the instance as a user would. Returns the acknowledged ids.
async fn crash(victim: Victim, instance: &mut Instance, mut importing: Importing) -> Vec<[u8; 32]> {
    let owner_url = instance.url("owner_database_url");
    match victim {
        Victim::Import => return importing.kill_9(),
        Victim::Instance => {
            instance.kill_9();
            instance.go();
        }
        Victim::Postmaster => {
            let pid = instance.postmaster_pid().unwrap();
            signal(pid, Signal::SIGKILL);
            await_some("another postmaster", || instance.postmaster_pid().filter(|now| *now != pid));
        }
        Victim::Backend => {
            let client = reconnect(&owner_url).await;
            let busiest = "SELECT pid FROM pg_stat_activity WHERE usename = 'quipu' ORDER BY state = 'active' DESC LIMIT 1";
            let pid: i32 = client.query_one(busiest, &[]).await.unwrap().get(0);
            signal(pid.try_into().unwrap(), Signal::SIGKILL);
            // Before recovery PostgreSQL ends all sessions, including this one; until then it still accepts
            // and answers new ones.
            let ended = async { while client.batch_execute("SELECT 1").await.is_ok() {} };
            tokio::time::timeout(Duration::from_mins(1), ended).await.expect("PostgreSQL notices");
        }
    }
    // The import survives the restart: batches in flight are sent again, and it continues.
    reconnect(&owner_url).await;
    importing.until_stored(1);
    importing.kill_9()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_of_quipu_and_of_postgresql_in_the_middle_of_an_import_lose_and_double_nothing() {
    let seed: u64 = rand::random();
    println!("the seed of the moments is {seed}");
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    let rounds = usize::try_from(rounds()).unwrap();
    let events = EVENTS_A_ROUND * rounds;
    let sample = Arc::new(Sample::of(events));
    let mut instance = Instance::start(&[]);
    let victims = std::iter::repeat_n(VICTIMS, rounds).flatten();
    for (number, victim) in victims.enumerate() {
        let started = Instant::now();
        let mut importing = Importing::start(&instance, &sample);
        importing.until_stored(dice.random_range(1..=8));
        // A random moment during the next commit; no other step depends on it.
        tokio::time::sleep(Duration::from_micros(dice.random_range(0..60_000))).await;
        let acknowledged = crash(victim, &mut instance, importing).await;
        let stored = stored_ids(&reconnect(&instance.url("owner_database_url")).await).await;
        let missing = acknowledged.iter().filter(|id| !stored.contains(*id)).count();
        println!(
            "crash {number}, {victim:?}: {} acknowledged, {} stored, {:?}",
            acknowledged.len(),
            stored.len(),
            started.elapsed()
        );
        assert_eq!(missing, 0, "acknowledged events are missing");
        assert!(stored.len() < events, "the crash came in the middle");
    }

    assert_eq!(Importing::start(&instance, &sample).finish().len(), events);
    let file = instance.folder().join("exported.jsonl");
    instance.run(&["export", "--output", file.to_str().unwrap()]).ok();
    let mut exported = ids_of(&file);
    let mut signed = sample.ids.clone();
    exported.sort_unstable();
    signed.sort_unstable();
    assert!(exported == signed, "{} exported, {} signed", exported.len(), signed.len());
    instance.run(&["verify"]).ok();
    instance.stop();
}
