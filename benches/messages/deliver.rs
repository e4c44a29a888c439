//! Part `deliver`: the time from sending a message to its receipt by an online recipient. Each pair keeps one
//! message in flight.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::client::{Client, ack_of, kind_of, wayfarer};
use super::room::Room;
use super::support::instance::Instance;
use super::support::run::{Run, middle_ms, run_heading, run_row};
use super::support::verdict;
use super::template::{SendTemplate, number_of};
use super::{ROUND, ROUNDS, Row};

pub(crate) const PAIRS: usize = 64;
const P99_MS_MAX: f64 = 20.0;

/// Senders and their recipients, which stay connected between rounds.
pub(crate) struct Pairs {
    pairs: Vec<Pair>,
}

struct Pair {
    sender: Client,
    recipient: Client,
    template: SendTemplate,
    sent: usize,
}

impl Pairs {
    /// Connects senders to the first address and recipients to the second.
    pub(crate) async fn connect(from: SocketAddr, to: SocketAddr, group: &str, count: usize) -> Self {
        let mut pairs = Vec::with_capacity(count);
        for number in 0..count {
            let recipient = wayfarer(&format!("{group}-to"), number);
            pairs.push(Pair {
                sender: Client::connect(from, &wayfarer(group, number)).await,
                template: SendTemplate::to(&recipient),
                recipient: Client::connect(to, &recipient).await,
                sent: 0,
            });
        }
        Self { pairs }
    }

    /// Exchanges messages for `length`. Returns the latencies of all messages and the time taken.
    pub(crate) async fn exchange(&mut self, length: Duration) -> (Vec<Duration>, Duration) {
        let mut tasks = JoinSet::new();
        let started = Instant::now();
        for pair in self.pairs.drain(..) {
            tasks.spawn(pair.exchange(started, length));
        }
        let (pairs, latencies): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().unzip();
        let elapsed = started.elapsed();
        self.pairs = pairs;
        (latencies.concat(), elapsed)
    }

    /// Runs one round on an instance.
    pub(crate) async fn round(&mut self, instance: &Instance, length: Duration) -> Run {
        let wal = instance.wal().await;
        let (latencies, elapsed) = self.exchange(length).await;
        Run::of(latencies, elapsed, instance.wal().await - wal)
    }

    /// Runs all rounds, after a short one as a warm-up.
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
            let frame = self.template.frame(self.sent);
            let sent_at = Instant::now();
            self.sender.send(frame).await;
            let message = self.received().await;
            latencies.push(sent_at.elapsed());
            self.recipient.send(ack_of(&message)).await;
            self.sender.next_of_type("send_ok").await;
        }
        (self, latencies)
    }

    /// Waits for the message just sent. An earlier message may come again, since delivery is at least once.
    async fn received(&mut self) -> String {
        loop {
            let frame = self.recipient.next_frame().await;
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
