//! Part `queue`: messages queued for an offline recipient arrive when it connects, each exactly once.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::client::{Client, Reader, Writer, ack_of, kind_of, wayfarer};
use super::room::Room;
use super::template::{SendTemplate, number_of};
use super::{Row, heading};
use crate::support::verdict;

/// Connections that fill a queue.
const SENDERS: usize = 64;
/// Most acknowledgements queued for sending; enough that this client never stops reading.
const ACKS_MAX: usize = 1_024;

/// What a recipient received on its first connection.
pub(crate) struct Arrival {
    /// Time from `hello_ok` to the last message.
    pub(crate) received: Duration,
    /// Time from `hello_ok` to the last `ack_ok`.
    pub(crate) acknowledged: Duration,
    /// Number of repeated messages.
    pub(crate) repeated: usize,
}

/// Queues messages numbered from 0 for one recipient.
pub(crate) async fn fill(to: SocketAddr, recipient: &str, count: usize) {
    let mut tasks = JoinSet::new();
    let template = SendTemplate::to(recipient);
    for sender in 0..SENDERS {
        let template = template.clone();
        tasks.spawn(async move {
            let mut client = Client::connect(to, &wayfarer("fill", sender)).await;
            for number in (sender..count).step_by(SENDERS) {
                client.send(template.frame(number)).await;
                client.next_of_type("send_ok").await;
            }
        });
    }
    tasks.join_all().await;
}

/// Connects and acknowledges each message without waiting for the replies.
pub(crate) async fn receive(to: SocketAddr, recipient: &str, count: usize) -> Arrival {
    let (acks, waiting) = mpsc::channel(ACKS_MAX);
    let started = Instant::now();
    let (reader, writer) = Client::connect(to, recipient).await.split();
    let (arrival, ()) =
        tokio::join!(receive_all(reader, acks, started, count), send_acknowledgements(writer, waiting));
    arrival
}

async fn receive_all(
    mut reader: Reader,
    acks: mpsc::Sender<String>,
    started: Instant,
    count: usize,
) -> Arrival {
    let mut times = vec![0_usize; count];
    let (mut missing, mut answered) = (count, 0_usize);
    let mut received = Duration::ZERO;
    while missing > 0 || answered < count {
        let frame = reader.next_frame().await;
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

/// Sends acknowledgements that are queued at the same time with one flush.
async fn send_acknowledgements(mut writer: Writer, mut waiting: mpsc::Receiver<String>) {
    let mut frames = Vec::new();
    while waiting.recv_many(&mut frames, ACKS_MAX).await > 0 {
        for frame in frames.drain(..) {
            writer.feed(frame).await;
        }
        writer.flush().await;
    }
}

/// Whether a new connection of the recipient finds no message.
pub(crate) async fn is_empty(to: SocketAddr, recipient: &str) -> bool {
    let mut client = Client::connect(to, recipient).await;
    client.send(r#"{"type":"pull","limit":100}"#.to_owned()).await;
    let frame = client.next_frame().await;
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
