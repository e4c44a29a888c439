//! Part `idle`: the cost of ten thousand idle connections for the server, and their effect on busy
//! connections.

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
/// Connections opened concurrently.
const CONCURRENT_CONNECTS: usize = 64;
const KB_EACH_MAX: f64 = 20.0;
/// Most that the p99 may grow because of the idle connections.
const SLOWDOWN_MAX: f64 = 1.25;

/// Work of the helper: connects all clients, then reads, so that pings are answered.
pub(crate) async fn hold(count: usize, to: SocketAddr) -> Work {
    let mut connecting = JoinSet::new();
    let mut tasks = JoinSet::new();
    let mut keep = |client: Client| {
        let (mut reader, writer) = client.split();
        tasks.spawn(async move {
            let _open = writer;
            loop {
                reader.next_frame().await;
            }
        });
    };
    for number in 0..count {
        if connecting.len() == CONCURRENT_CONNECTS {
            let client = connecting.join_next().await.expect("some are left");
            keep(client.expect("it connects"));
        }
        connecting.spawn(async move { Client::connect(to, &wayfarer("idle", number)).await });
    }
    connecting.join_all().await.into_iter().for_each(keep);
    Work { ready_line: "all connected".to_owned(), tasks }
}

/// Rounds of busy pairs, and the processor time of the server for each message, in microseconds.
#[derive(Default)]
struct Busy {
    runs: Vec<Run>,
    processor_us: Vec<f64>,
}

impl Busy {
    async fn round(&mut self, pairs: &mut Pairs, instance: &Instance) {
        // The effects of connects and disconnects just before are not measured.
        pairs.exchange(Duration::from_secs(1)).await;
        let before = instance.processor_time();
        let run = pairs.round(instance, ROUND).await;
        let processor_time = instance.processor_time().saturating_sub(before);
        self.processor_us.push(processor_time.as_secs_f64() * 1e6 / (run.per_second * ROUND.as_secs_f64()));
        self.runs.push(run);
    }

    fn p99_ms(&self) -> f64 {
        middle_ms(&self.runs, |run| run.p99)
    }

    fn print(&self, name: &str) {
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
    let (mut without, mut with_idle) = (Busy::default(), Busy::default());
    let (mut kb_each, mut after_load) = (Vec::new(), Vec::new());
    // Rounds with and without idle connections alternate, so that a machine with varying speed affects both
    // alike.
    for _ in 0..ROUNDS {
        without.round(&mut pairs, &room.instance).await;
        let before = room.instance.resident_kib();
        let memory = || (room.instance.resident_kib() - before) * 1.024 / IDLE as f64;
        let _helper = Helper::start(&Role::Idle { count: IDLE, to: room.ws });
        kb_each.push(memory());
        with_idle.round(&mut pairs, &room.instance).await;
        after_load.push(memory());
    }
    without.print("without");
    with_idle.print("beside");
    // Freed memory is used again, so only the first round shows how much the connections need.
    let (kb_each, after_load) = (kb_each[0], after_load[0]);
    vec![
        heading(),
        row(
            "memory of the server for each of 10,000 idle connections",
            format!("{kb_each:.1} kB"),
            format!("{KB_EACH_MAX} kB"),
            kb_each / KB_EACH_MAX,
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
            format!("{:.2} ms", with_idle.p99_ms()),
            format!("{:.2} ms without them", without.p99_ms()),
            with_idle.p99_ms() / without.p99_ms(),
            Bar::AtMost(SLOWDOWN_MAX),
        ),
    ]
}
