//! Part `send`: committed sends, each connection waiting for `send_ok` before it sends again.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::client::{Client, wayfarer};
use super::draft::{Draft, payload};
use super::room::Room;
use super::support::instance::Instance;
use super::support::pgbench::Pgbench;
use super::support::run::{Run, middle, middle_ms, run_heading, run_row};
use super::support::verdict;
use super::{ROUND, ROUNDS, Row};

/// What the p99 at 64 connections has to stay below.
const P99_MS_MAX: f64 = 15.0;

/// Senders, each with an offline recipient of its own. They stay connected from round to round.
pub(crate) struct Senders(Vec<Sender>);

struct Sender {
    client: Client,
    draft: Draft,
    sent: usize,
}

impl Senders {
    pub(crate) async fn connect(to: SocketAddr, group: &str, count: usize) -> Self {
        let mut senders = Vec::with_capacity(count);
        for number in 0..count {
            let client = Client::connect(to, &wayfarer(group, number)).await;
            let recipient = wayfarer(&format!("{group}-to"), number);
            senders.push(Sender { client, draft: Draft::to(&recipient), sent: 0 });
        }
        Self(senders)
    }

    /// So many of them, for so long; the latencies of all sends, and how long it took.
    pub(crate) async fn send(&mut self, connections: usize, length: Duration) -> (Vec<Duration>, Duration) {
        let mut tasks = JoinSet::new();
        let started = Instant::now();
        for sender in self.0.drain(..connections) {
            tasks.spawn(sender.send(started, length));
        }
        let (senders, latencies): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().unzip();
        let took = started.elapsed();
        self.0.extend(senders);
        (latencies.concat(), took)
    }

    /// One round on an instance.
    pub(crate) async fn round(&mut self, instance: &Instance, connections: usize, length: Duration) -> Run {
        let wal = instance.wal().await;
        let (latencies, took) = self.send(connections, length).await;
        Run::of(latencies, took, instance.wal().await - wal)
    }
}

impl Sender {
    async fn send(mut self, started: Instant, length: Duration) -> (Self, Vec<Duration>) {
        let mut latencies = Vec::new();
        while started.elapsed() < length {
            self.sent += 1;
            let frame = self.draft.numbered(self.sent);
            let asked = Instant::now();
            self.client.say(frame).await;
            self.client.hear_only("send_ok").await;
            latencies.push(asked.elapsed());
        }
        (self, latencies)
    }
}

/// The reference: an INSERT of an equal row, committed by itself.
pub(crate) struct Reference {
    script: String,
}

impl Reference {
    pub(crate) async fn prepare(instance: &Instance) -> Self {
        let table = "CREATE TABLE bench_reference (position bigserial PRIMARY KEY, \
                     recorded_at timestamptz NOT NULL DEFAULT now(), sender text, recipient text, payload text)";
        instance.client.batch_execute(table).await.expect("the owner may");
        let (sender, recipient, payload) = (wayfarer("from", 0), wayfarer("to", 0), payload());
        let script = format!(
            "INSERT INTO bench_reference (sender, recipient, payload) VALUES ('{sender}', '{recipient}', '{payload}');\n"
        );
        Self { script }
    }

    pub(crate) async fn round(&self, instance: &Instance) -> Run {
        let wal = instance.wal().await;
        let (url, script) = (&instance.owner_url, self.script.as_str());
        let latencies = Pgbench { url, mode: "prepared", clients: 64, script, length: ROUND }.run().await;
        Run::of(latencies, ROUND, instance.wal().await - wal)
    }
}

pub(crate) async fn measure() -> Vec<Row> {
    const CONNECTIONS: [usize; 4] = [1, 16, 64, 256];
    let room = Room::start(&[]).await;
    let reference = Reference::prepare(&room.instance).await;
    let mut senders = Senders::connect(room.ws, "send", 256).await;
    senders.send(64, Duration::from_secs(1)).await;
    let mut plain = Vec::new();
    let mut ours: [Vec<Run>; 4] = Default::default();
    for _ in 0..ROUNDS {
        plain.push(reference.round(&room.instance).await);
        for (runs, connections) in ours.iter_mut().zip(CONNECTIONS) {
            runs.push(senders.round(&room.instance, connections, ROUND).await);
        }
    }
    let mut table = vec![run_heading("committed sends", "message"), reference_row(&plain)];
    for (runs, connections) in ours.iter().zip(CONNECTIONS) {
        let ratio = middle(runs, |run| run.per_second) / middle(&plain, |run| run.per_second);
        let p99 = middle_ms(runs, |run| run.p99);
        let (bar, passed) = match connections {
            64 => (">= 0.5, p99 < 15 ms", verdict(ratio >= 0.5 && p99 < P99_MS_MAX)),
            256 => (">= 1", verdict(ratio >= 1.0)),
            _ => ("", ""),
        };
        let name = format!("send to send_ok, {connections} connections");
        table.push(run_row(&name, runs, format!("{ratio:.2}"), bar, passed));
    }
    table
}

pub(crate) fn reference_row(runs: &[Run]) -> Row {
    run_row("pgbench -M prepared, 64 clients, direct", runs, "1".to_owned(), "", "")
}
