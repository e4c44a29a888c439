//! Part `deliver`: from a send to the receipt at its online recipient. Each pair keeps one message in flight.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::client::{Client, ack_of, kind_of, wayfarer};
use super::draft::{Draft, number_of};
use super::room::Room;
use super::support::instance::Instance;
use super::support::run::{Run, middle_ms, run_heading, run_row};
use super::support::verdict;
use super::{ROUND, ROUNDS, Row};

pub(crate) const PAIRS: usize = 64;
const P99_MS_MAX: f64 = 20.0;

/// Senders and their recipients, connected from round to round.
pub(crate) struct Pairs {
    pairs: Vec<Pair>,
}

struct Pair {
    sender: Client,
    recipient: Client,
    draft: Draft,
    sent: usize,
}

impl Pairs {
    /// Senders connect to the first address, recipients to the second.
    pub(crate) async fn connect(from: SocketAddr, to: SocketAddr, group: &str, count: usize) -> Self {
        let mut pairs = Vec::with_capacity(count);
        for number in 0..count {
            let recipient = wayfarer(&format!("{group}-to"), number);
            pairs.push(Pair {
                sender: Client::connect(from, &wayfarer(group, number)).await,
                draft: Draft::to(&recipient),
                recipient: Client::connect(to, &recipient).await,
                sent: 0,
            });
        }
        Self { pairs }
    }

    /// For so long; the latencies of all messages, and how long it took.
    pub(crate) async fn exchange(&mut self, length: Duration) -> (Vec<Duration>, Duration) {
        let mut tasks = JoinSet::new();
        let started = Instant::now();
        for pair in self.pairs.drain(..) {
            tasks.spawn(pair.exchange(started, length));
        }
        let (pairs, latencies): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().unzip();
        let took = started.elapsed();
        self.pairs = pairs;
        (latencies.concat(), took)
    }

    /// One round on an instance.
    pub(crate) async fn round(&mut self, instance: &Instance, length: Duration) -> Run {
        let wal = instance.wal().await;
        let (latencies, took) = self.exchange(length).await;
        Run::of(latencies, took, instance.wal().await - wal)
    }

    /// All rounds, after a short one that warms everything.
    pub(crate) async fn rounds(&mut self, instance: &Instance) -> Vec<Run> {
        self.exchange(Duration::from_secs(1)).await;
        let mut runs = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            runs.push(self.round(instance, ROUND).await);
        }
        runs
    }
}

impl Pair {
    async fn exchange(mut self, started: Instant, length: Duration) -> (Self, Vec<Duration>) {
        let mut latencies = Vec::new();
        while started.elapsed() < length {
            self.sent += 1;
            let frame = self.draft.numbered(self.sent);
            let asked = Instant::now();
            self.sender.say(frame).await;
            let message = self.received().await;
            latencies.push(asked.elapsed());
            self.recipient.say(ack_of(&message)).await;
            self.sender.hear_only("send_ok").await;
        }
        (self, latencies)
    }

    /// The message that was just sent. An earlier one may come again: delivery is at least once.
    async fn received(&mut self) -> String {
        loop {
            let frame = self.recipient.hear().await;
            if kind_of(&frame) == "message" && number_of(&frame) == self.sent {
                return frame.to_string();
            }
        }
    }
}

pub(crate) async fn measure() -> Vec<Row> {
    let room = Room::start(&[]).await;
    let mut pairs = Pairs::connect(room.ws, room.ws, "deliver", PAIRS).await;
    let runs = pairs.rounds(&room.instance).await;
    let p99 = middle_ms(&runs, |run| run.p99);
    vec![
        run_heading("send to receipt, online recipient", "message"),
        run_row("64 pairs", &runs, String::new(), "p99 < 20 ms", verdict(p99 < P99_MS_MAX)),
    ]
}
