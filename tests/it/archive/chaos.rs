//! kill -9 of a synchronizer, of the pooler and of the server, and a relay that stalls behind a proxy: in the
//! end the archive equals what the relays hold, pair by pair.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::SocketAddr;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nostr_sdk::EventId;
use quipu::store::owner;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::kit::now;
use crate::support::farm::{Character, Extent, Farm, Plan};
use crate::support::instance::{Instance, await_some, signal, wait};
use crate::support::rounds::rounds;

/// Timeout until the archive is complete again: two leases, a retry pause, and the work.
const TIMEOUT: Duration = Duration::from_mins(3);

/// All relays are honest, some slow, some with small pages: enough work to be interrupted in the middle.
const PLAN: Plan = Plan {
    relays: 16,
    character: |number| match number % 4 {
        0 => Character::Slow,
        1 => Character::Limit(10),
        2 => Character::Negentropy,
        _ => Character::Honest,
    },
    extent: Extent { seed: 51, events: 3_000 },
    events_each: 700,
    port: 0,
};

/// Leases short enough to be taken over within the test.
const LEASE: &str = "services.synchronizer.lease_s=5";

type Pairs = BTreeSet<(EventId, String)>;

/// Every pair of event and relay in the archive. Fails on a duplicate. `None` while the server is away.
async fn pairs(instance: &Instance) -> Option<Pairs> {
    let client = owner::connect(&instance.url("owner_database_url")).await.ok()?;
    let rows = client.query("SELECT event_id, relay_url FROM events_relays", &[]).await.ok()?;
    let pairs: Pairs =
        rows.iter().map(|row| (EventId::from_slice(row.get(0)).unwrap(), row.get(1))).collect();
    assert_eq!(pairs.len(), rows.len(), "a pair is there twice");
    Some(pairs)
}

/// Waits until at least `wanted` pairs are archived.
async fn until_archived(instance: &Instance, wanted: usize) -> Pairs {
    let started = Instant::now();
    loop {
        let found = pairs(instance).await.unwrap_or_default();
        if found.len() >= wanted {
            return found;
        }
        assert!(started.elapsed() < TIMEOUT, "{} of {wanted} pairs:\n{}", found.len(), instance.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Asserts that the archive equals the ground truth, and that its proofs hold.
async fn assert_whole(instance: &Instance, truth: &Pairs) {
    let found = until_archived(instance, truth.len()).await;
    assert!(found == *truth, "{} pairs, {} in truth", found.len(), truth.len());
    let distinct: BTreeSet<&EventId> = truth.iter().map(|(id, _)| id).collect();
    let events = instance.count("SELECT count(*) FROM events").await;
    assert_eq!(usize::try_from(events).unwrap(), distinct.len());
    instance.run(&["verify", "--events"]).ok();
}

/// Connection slots for half of the relays in each process, so that both crawl some.
const SLOTS: &str = "networks.clearnet.relays_at_once=8";

/// `quipu run synchronizer` on an instance whose own synchronizer is off.
fn synchronizer(instance: &Instance, farm: &Farm, name: &str) -> Child {
    let urls: Vec<String> = farm.relays().iter().map(|relay| relay.url()).collect();
    let only = format!("services.synchronizer.only_relays={}", serde_json::json!(urls));
    // Each process has its own operations listener.
    let settings = ["--set", LEASE, "--set", SLOTS, "--set", "http.ops_address=127.0.0.1:0", "--set", &only];
    let mut command: Command = instance.command(&[&["run", "synchronizer"], settings.as_slice()].concat());
    let log = File::create(instance.folder().join(name)).unwrap();
    command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

fn add_all(instance: &Instance, farm: &Farm) {
    let urls: Vec<String> = farm.relays().iter().map(|relay| relay.url()).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    instance.run(&[&["relays", "add"], urls.as_slice()].concat()).ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_relays_of_a_killed_synchronizer_are_taken_over_and_nothing_is_lost_or_doubled() {
    for _ in 0..rounds() {
        kill_a_synchronizer().await;
    }
}

async fn kill_a_synchronizer() {
    let farm = Farm::start(&PLAN).await.unwrap();
    let instance = Instance::start(&["--set", "services.synchronizer.enabled=false"]);
    add_all(&instance, &farm);
    let mut doomed = synchronizer(&instance, &farm, "doomed.log");
    let mut other = synchronizer(&instance, &farm, "other.log");
    let holders = "SELECT count(DISTINCT holder) FROM lease WHERE name LIKE 'synchronizer/%'";
    let owner_url = instance.url("owner_database_url");
    let client = owner::connect(&owner_url).await.unwrap();
    let started = Instant::now();
    while client.query_one(holders, &[]).await.unwrap().get::<_, i64>(0) < 2 {
        assert!(started.elapsed() < TIMEOUT, "both have relays");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    doomed.kill().unwrap();
    doomed.wait().unwrap();
    let before = pairs(&instance).await.unwrap().len();
    let truth = farm.truth(u64::try_from(now()).unwrap());
    assert!(before < truth.len(), "it died in the middle");

    assert_whole(&instance, &truth).await;
    signal(other.id(), Signal::SIGTERM);
    assert!(wait(&mut other).is_some_and(|status| status.success()));
    instance.stop();
}

/// The pooler's process id, from its pid file.
fn pooler_pid(instance: &Instance) -> Option<u32> {
    let mut folders = vec![instance.data()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).ok()?.flatten() {
            if entry.file_name() == "pgbouncer.pid" {
                return std::fs::read_to_string(entry.path()).ok()?.trim().parse().ok();
            }
            // The server's data folder is large and holds no such file.
            if entry.path().is_dir() && entry.file_name() != "postgres" {
                folders.push(entry.path());
            }
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crawl_survives_the_death_of_its_pooler_and_of_its_server() {
    for _ in 0..rounds() {
        kill_the_pooler_and_the_server().await;
    }
}

async fn kill_the_pooler_and_the_server() {
    let farm = Farm::start(&PLAN).await.unwrap();
    let urls: Vec<String> = farm.relays().iter().map(|relay| relay.url()).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let instance = Instance::crawling(&urls, &["--set", LEASE]);
    add_all(&instance, &farm);
    let truth = farm.truth(u64::try_from(now()).unwrap());

    until_archived(&instance, truth.len() / 10).await;
    let pid = pooler_pid(&instance).unwrap();
    signal(pid, Signal::SIGKILL);
    await_some("another pooler", || pooler_pid(&instance).filter(|now| *now != pid));

    let found = until_archived(&instance, truth.len() / 4).await;
    assert!(found.len() < truth.len(), "the crash comes in the middle");
    let pid = instance.postmaster_pid().unwrap();
    signal(pid, Signal::SIGKILL);
    await_some("another postmaster", || instance.postmaster_pid().filter(|now| *now != pid));

    assert_whole(&instance, &truth).await;
    instance.stop();
}

/// A proxy in front of one relay. Once, after a number of bytes of the relay's answers, it stops forwarding
/// and keeps the connection open.
struct SilentProxy {
    address: SocketAddr,
    fell_silent: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

impl SilentProxy {
    async fn before(relay: SocketAddr, bytes: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let fell_silent = Arc::new(AtomicBool::new(false));
        let (told, left) = (Arc::clone(&fell_silent), Arc::new(AtomicU64::new(bytes)));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (told, left) = (Arc::clone(&told), Arc::clone(&left));
                connections.spawn(async move {
                    let server = TcpStream::connect(relay).await.unwrap();
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    let asks = tokio::io::copy(&mut from_client, &mut to_server);
                    let answers = async {
                        let mut heard = vec![0; 4_096];
                        while let Ok(n @ 1..) = from_server.read(&mut heard).await {
                            if !told.load(Ordering::SeqCst) {
                                let n = u64::try_from(n).unwrap();
                                let before =
                                    left.fetch_sub(n.min(left.load(Ordering::SeqCst)), Ordering::SeqCst);
                                if before <= n {
                                    told.store(true, Ordering::SeqCst);
                                    // Half open: both ends consider the connection alive, but no data passes.
                                    std::future::pending::<()>().await;
                                }
                            }
                            if to_client.write_all(&heard[..n]).await.is_err() {
                                return;
                            }
                        }
                    };
                    // The proxy ends when the client disconnects, not when no data passes.
                    tokio::select! {
                        _ = asks => {}
                        () = answers => {}
                    }
                });
            }
        });
        Self { address, fell_silent, _tasks: tasks }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_connection_is_given_up_and_the_relay_is_archived_whole() {
    let plan = Plan { relays: 2, character: Character::honest, events_each: 2_000, ..PLAN };
    let farm = Farm::start(&plan).await.unwrap();
    let [first, second] = farm.relays() else { panic!("two relays") };
    let proxy = SilentProxy::before(first.address(), 300_000).await;
    let proxied = format!("ws://{}", proxy.address);
    let urls = [proxied.as_str(), &second.url()];
    let instance =
        Instance::crawling(&urls, &["--set", LEASE, "--set", "networks.clearnet.idle_timeout_s=2"]);
    instance.run(&[&["relays", "add"], urls.as_slice()].concat()).ok();

    let until = u64::try_from(now()).unwrap();
    let renamed = |(id, url): (EventId, String)| (id, if url == first.url() { proxied.clone() } else { url });
    let truth: Pairs = farm.truth(until).into_iter().map(renamed).collect();
    assert_whole(&instance, &truth).await;
    assert!(proxy.fell_silent.load(Ordering::SeqCst), "it did go silent");
    let noted = format!(
        "SELECT count(*) FROM relay_log JOIN relays r ON r.number = relay WHERE kind = 'observed' AND r.url = '{proxied}'"
    );
    assert!(instance.count(&noted).await >= 1, "that the relay went silent is recorded");
    instance.stop();
}

/// Checks the farm itself: each relay has its share, and the same seed gives the same ground truth.
#[tokio::test]
async fn the_truth_of_a_farm_is_known_beforehand() {
    let by_number = |farm: &Farm| -> BTreeMap<usize, BTreeSet<EventId>> {
        farm.relays().iter().map(|relay| relay.sound(u64::MAX).collect()).enumerate().collect()
    };
    let plan = Plan { relays: 24, character: Character::mixed, events_each: 30, ..PLAN };
    let (one, two) = (Farm::start(&plan).await.unwrap(), Farm::start(&plan).await.unwrap());
    assert_eq!(by_number(&one), by_number(&two));
    assert!(by_number(&one).values().all(|held| held.len() >= 30));
}
