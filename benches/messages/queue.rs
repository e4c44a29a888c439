//! Part `queue`: what is queued for an offline recipient arrives once it connects, every message exactly once.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::client::{Client, Ear, Mouth, ack_of, kind_of, wayfarer};
use super::draft::{Draft, number_of};
use super::room::Room;
use super::{Row, heading};
use crate::support::verdict;

/// Connections that fill a queue.
const SENDERS: usize = 64;
/// Acknowledgements that may wait for the socket: all of them, so that this client never stops reading.
const ACKS_MAX: usize = 1_024;

/// What a recipient got on its first connection.
pub(crate) struct Arrival {
    /// From the greeting to the last message.
    pub(crate) received: Duration,
    /// From the greeting to the last `ack_ok`.
    pub(crate) acknowledged: Duration,
    /// Messages that came more than once.
    pub(crate) repeated: usize,
}

/// Queues messages numbered from 0 for one recipient.
pub(crate) async fn fill(to: SocketAddr, recipient: &str, count: usize) {
    let mut tasks = JoinSet::new();
    let draft = Draft::to(recipient);
    for sender in 0..SENDERS {
        let draft = draft.clone();
        tasks.spawn(async move {
            let mut client = Client::connect(to, &wayfarer("fill", sender)).await;
            for number in (sender..count).step_by(SENDERS) {
                client.say(draft.numbered(number)).await;
                client.hear_only("send_ok").await;
            }
        });
    }
    tasks.join_all().await;
}

/// Connects and acknowledges what comes, without waiting for the answers.
pub(crate) async fn receive(to: SocketAddr, recipient: &str, count: usize) -> Arrival {
    let (acks, waiting) = mpsc::channel(ACKS_MAX);
    let started = Instant::now();
    let (ear, mouth) = Client::connect(to, recipient).await.split();
    let (arrival, ()) = tokio::join!(hear_all(ear, acks, started, count), say_all(mouth, waiting));
    arrival
}

async fn hear_all(mut ear: Ear, acks: mpsc::Sender<String>, started: Instant, count: usize) -> Arrival {
    let mut times = vec![0_usize; count];
    let (mut missing, mut answered) = (count, 0_usize);
    let mut received = Duration::ZERO;
    while missing > 0 || answered < count {
        let frame = ear.hear().await;
        match kind_of(&frame) {
            "message" => {
                let times = &mut times[number_of(&frame)];
                *times += 1;
                if *times == 1 {
                    missing -= 1;
                    received = started.elapsed();
                    acks.send(ack_of(&frame)).await.expect("the writer is joined");
                }
            }
            "ack_ok" => answered += 1,
            kind => panic!("a {kind} was not asked for"),
        }
    }
    let repeated = times.iter().map(|times| times - 1).sum();
    Arrival { received, acknowledged: started.elapsed(), repeated }
}

/// Acknowledgements that wait at the same time leave together.
async fn say_all(mut mouth: Mouth, mut waiting: mpsc::Receiver<String>) {
    let mut frames = Vec::new();
    while waiting.recv_many(&mut frames, ACKS_MAX).await > 0 {
        for frame in frames.drain(..) {
            mouth.begin(frame).await;
        }
        mouth.flush().await;
    }
}

/// Whether nothing is left for a recipient that connects again.
pub(crate) async fn is_empty(to: SocketAddr, recipient: &str) -> bool {
    let mut client = Client::connect(to, recipient).await;
    client.say(r#"{"type":"pull","limit":100}"#.to_owned()).await;
    let frame = client.hear().await;
    kind_of(&frame) == "messages" && !frame.contains("\"msg_id\"")
}

pub(crate) async fn measure() -> Vec<Row> {
    let room = Room::start(&[]).await;
    let mut table = vec![heading()];
    for (number, count) in [500, 100_000].into_iter().enumerate() {
        let recipient = wayfarer("queued", number);
        let filling = Instant::now();
        fill(room.ws, &recipient, count).await;
        println!("{count} queued in {:.1} s", filling.elapsed().as_secs_f64());
        let arrival = receive(room.ws, &recipient, count).await;
        let is_empty = is_empty(room.ws, &recipient).await;
        let passed = arrival.repeated == 0 && is_empty;
        let per_second = count as f64 / arrival.received.as_secs_f64();
        table.push(vec![
            format!("{count} of {count} queued messages received"),
            format!("{:.2} s, {per_second:.0} messages/s", arrival.received.as_secs_f64()),
            format!("all acknowledged after {:.2} s", arrival.acknowledged.as_secs_f64()),
            String::new(),
            format!("each once ({} repeated), then none left", arrival.repeated),
            verdict(passed).to_owned(),
        ]);
    }
    table
}
