//! Part `latency`: the time from sending a submission to the answer of a claim that waits for it, over HTTP.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::client::Client;
use super::meter::{Measured, Meter, heading, latency_ms, measured_row};
use super::room::Room;
use super::support::verdict;
use super::{Row, reference};

const ROUNDS: usize = 3;
const TYPE: &str = "waited";
const WORKER: &str = "idle";

/// Seconds for which a claim waits; longer than a job takes to come.
const WAIT_S: u32 = 20;

/// Time after which a claim has looked in vain and waits.
const SETTLED: Duration = Duration::from_millis(15);

const P50_MS_MAX: f64 = 3.0;
const P99_MS_MAX: f64 = 20.0;

pub(crate) async fn measure(jobs: usize) -> Vec<Row> {
    let room = Room::start().await;
    reference::prepare(&room.instance).await;
    let mut submitter = Client::connect(room.http).await;
    let mut worker = Client::connect(room.http).await;
    let (mut rows, mut waited) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        rows.push(reference::round(&room.instance, 1).await);
        waited.push(round(&room, &mut submitter, &mut worker, jobs).await);
    }
    room.stop().await;
    table(rows, waited)
}

async fn round(room: &Room, submitter: &mut Client, worker: &mut Client, jobs: usize) -> Measured {
    let meter = Meter::start(&room.instance).await;
    let mut latencies = Vec::with_capacity(jobs);
    for _ in 0..jobs {
        let submit = async {
            sleep(SETTLED).await;
            let asked = Instant::now();
            submitter.submit(TYPE).await;
            asked
        };
        let claim = async {
            let held = worker.claim(WORKER, TYPE, WAIT_S).await;
            (held, Instant::now())
        };
        let (asked, (held, told)) = tokio::join!(submit, claim);
        let held = held.expect("the claim is accepted").expect("a job was submitted");
        latencies.push(told - asked);
        worker.complete(WORKER, &held).await;
    }
    meter.stop(jobs, latencies).await
}

fn table(rows: Vec<Measured>, waited: Vec<Measured>) -> Vec<Row> {
    let (p50, p99) = (latency_ms(&waited, |run| run.p50), latency_ms(&waited, |run| run.p99));
    vec![
        heading("claim latency"),
        measured_row("pgbench, 1 client, one row each", rows, String::new(), "", ""),
        measured_row(
            "HTTP: submit to claim, a worker waits",
            waited,
            String::new(),
            "p50 < 3 ms, p99 < 20 ms",
            verdict(p50 < P50_MS_MAX && p99 < P99_MS_MAX),
        ),
    ]
}
