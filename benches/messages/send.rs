//! Part `send`: committed sends. Each connection waits for `send_ok` before it sends the next message.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::client::{Client, wayfarer};
use super::room::Room;
use super::support::instance::Instance;
use super::support::pgbench::Pgbench;
use super::support::run::{Run, middle, middle_ms, run_heading, run_row};
use super::support::verdict;
use super::template::{SendTemplate, payload};
use super::{ROUND, ROUNDS, Row};

/// The bar for the p99 with 64 connections.
const P99_MS_MAX: f64 = 15.0;

/// Senders, each with an offline recipient of its own. They stay connected between rounds.
pub(crate) struct Senders(Vec<Sender>);

struct Sender {
    client: Client,
    template: SendTemplate,
    sent: usize,
}

impl Senders {
    pub(crate) async fn connect(to: SocketAddr, group: &str, count: usize) -> Self {
        let mut senders = Vec::with_capacity(count);
        for number in 0..count {
            let client = Client::connect(to, &wayfarer(group, number)).await;
            let recipient = wayfarer(&format!("{group}-to"), number);
            senders.push(Sender { client, template: SendTemplate::to(&recipient), sent: 0 });
        }
        Self(senders)
    }

    /// Sends with this many connections for `length`. Returns the latencies of all sends and the time taken.
    pub(crate) async fn send(&mut self, connections: usize, length: Duration) -> (Vec<Duration>, Duration) {
        let mut tasks = JoinSet::new();
        let started = Instant::now();
        for sender in self.0.drain(..connections) {
            tasks.spawn(sender.send(started, length));
        }
        let (senders, latencies): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().unzip();
        let elapsed = started.elapsed();
        self.0.extend(senders);
        (latencies.concat(), elapsed)
    }

    /// Runs one round on an instance.
    pub(crate) async fn round(&mut self, instance: &Instance, connections: usize, length: Duration) -> Run {
        let wal = instance.wal().await;
        let (latencies, elapsed) = self.send(connections, length).await;
        Run::of(latencies, elapsed, instance.wal().await - wal)
    }
}

impl Sender {
    async fn send(mut self, started: Instant, length: Duration) -> (Self, Vec<Duration>) {
        let mut latencies = Vec::new();
        while started.elapsed() < length {
            self.sent += 1;
            let frame = self.template.frame(self.sent);
            let sent_at = Instant::now();
            self.client.send(frame).await;
            self.client.next_of_type("send_ok").await;
            latencies.push(sent_at.elapsed());
        }
        (self, latencies)
    }
}

/// The reference: `INSERT`s of similar rows, each committed by itself.
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
    let mut reference_runs = Vec::new();
    let mut runs_by_connections: [Vec<Run>; 4] = Default::default();
    for _ in 0..ROUNDS {
        reference_runs.push(reference.round(&room.instance).await);
        for (runs, connections) in runs_by_connections.iter_mut().zip(CONNECTIONS) {
            runs.push(senders.round(&room.instance, connections, ROUND).await);
        }
    }
    let mut table = vec![run_heading("committed sends", "message"), reference_row(&reference_runs)];
    for (runs, connections) in runs_by_connections.iter().zip(CONNECTIONS) {
        let ratio = middle(runs, |run| run.per_second) / middle(&reference_runs, |run| run.per_second);
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
