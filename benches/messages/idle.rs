//! Part `idle`: ten thousand connections that do nothing, what each costs the server, and whether the busy ones notice.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;

use super::client::{Client, wayfarer};
use super::deliver::{PAIRS, Pairs};
use super::helper::{Helper, Role, Work};
use super::room::Room;
use super::support::instance::Instance;
use super::support::median;
use super::support::run::{Run, middle, middle_ms};
use super::{Bar, ROUND, ROUNDS, Row, heading, row};

const IDLE: usize = 10_000;
/// Connections that are being made at the same time.
const DIALLING: usize = 64;
const KB_EACH_MAX: f64 = 20.0;
/// How much worse the p99 may be than without the idle ones.
const SLOWDOWN_MAX: f64 = 1.25;

/// The helper's side: connects all, then listens, so that pings are answered.
pub(crate) async fn hold(count: usize, to: SocketAddr) -> Work {
    let mut dialling = JoinSet::new();
    let mut tasks = JoinSet::new();
    let mut keep = |client: Client| {
        let (mut ear, mouth) = client.split();
        tasks.spawn(async move {
            let _open = mouth;
            loop {
                ear.hear().await;
            }
        });
    };
    for number in 0..count {
        if dialling.len() == DIALLING {
            let client = dialling.join_next().await.expect("some are left");
            keep(client.expect("it connects"));
        }
        dialling.spawn(async move { Client::connect(to, &wayfarer("idle", number)).await });
    }
    dialling.join_all().await.into_iter().for_each(keep);
    Work { said: "all connected".to_owned(), tasks }
}

/// Rounds of busy pairs, and the server's processor time for each message, in microseconds.
#[derive(Default)]
struct Busy {
    runs: Vec<Run>,
    processor_us: Vec<f64>,
}

impl Busy {
    async fn round(&mut self, pairs: &mut Pairs, instance: &Instance) {
        // What came or went just now is not to be measured.
        pairs.exchange(Duration::from_secs(1)).await;
        let before = instance.processor_time();
        let run = pairs.round(instance, ROUND).await;
        let spent = instance.processor_time().saturating_sub(before);
        self.processor_us.push(spent.as_secs_f64() * 1e6 / (run.per_second * ROUND.as_secs_f64()));
        self.runs.push(run);
    }

    fn p99_ms(&self) -> f64 {
        middle_ms(&self.runs, |run| run.p99)
    }

    fn tell(&self, name: &str) {
        println!(
            "64 pairs {name} them: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms, {:.0} µs of the server's processors each",
            middle(&self.runs, |run| run.per_second),
            middle_ms(&self.runs, |run| run.p50),
            self.p99_ms(),
            median(self.processor_us.clone()),
        );
    }
}

pub(crate) async fn measure() -> Vec<Row> {
    let room = Room::start(&[]).await;
    let mut pairs = Pairs::connect(room.ws, room.ws, "busy", PAIRS).await;
    let (mut without, mut beside) = (Busy::default(), Busy::default());
    let (mut each, mut after_load) = (Vec::new(), Vec::new());
    // They come and go, so that a machine whose pace changes disturbs both alike.
    for _ in 0..ROUNDS {
        without.round(&mut pairs, &room.instance).await;
        let before = room.instance.resident_kib();
        let memory = || (room.instance.resident_kib() - before) * 1.024 / IDLE as f64;
        let _helper = Helper::start(&Role::Idle { count: IDLE, to: room.ws });
        each.push(memory());
        beside.round(&mut pairs, &room.instance).await;
        after_load.push(memory());
    }
    without.tell("without");
    beside.tell("beside");
    // Memory that was let go is used again: what they take is seen the first time alone.
    let (each, after_load) = (each[0], after_load[0]);
    vec![
        heading(),
        row(
            "memory of the server for each of 10,000 idle connections",
            format!("{each:.1} kB"),
            format!("{KB_EACH_MAX} kB"),
            each / KB_EACH_MAX,
            Bar::AtMost(1.0),
        ),
        row(
            "the same after 5 s of load beside them",
            format!("{after_load:.1} kB"),
            format!("{KB_EACH_MAX} kB"),
            after_load / KB_EACH_MAX,
            Bar::AtMost(1.0),
        ),
        row(
            "send to receipt, 64 pairs beside the idle ones, p99",
            format!("{:.2} ms", beside.p99_ms()),
            format!("{:.2} ms without them", without.p99_ms()),
            beside.p99_ms() / without.p99_ms(),
            Bar::AtMost(SLOWDOWN_MAX),
        ),
    ]
}
