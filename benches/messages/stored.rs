//! Part `stored`: sends and deliveries with five million messages stored, compared with an empty instance.
//! The two instances take short turns in alternating order, so that a machine with varying speed affects both
//! alike.

use std::time::{Duration, Instant};

use super::client::wayfarer;
use super::deliver::{PAIRS, Pairs};
use super::room::Room;
use super::send::Senders;
use super::support::instance::Instance;
use super::support::percentile;
use super::support::run::{Run, middle};
use super::template::payload;
use super::{Bar, Row, heading, row};

const STORED: i64 = 5_000_000;
/// Messages inserted by one statement.
const CHUNK: i64 = 250_000;
const RECIPIENTS: i64 = 10_000;
/// Turns of each instance, and the duration of each measurement in a turn. The slowest percent of deliveries
/// is caused by a few stalls of a shared machine, so many turns are needed. Sends are measured only in every
/// fifth turn.
const TURNS: usize = 45;
const TURN: Duration = Duration::from_millis(1_500);
const SENDS_EVERY: usize = 5;
/// The messages expire over this many hours, beginning one hour from now.
const HOURS: i64 = 5;
/// Largest difference to the empty instance.
const DIFFERENCE_MAX: f64 = 0.15;

/// Inserts as the service does: the fact first, then the payload under its position.
const FILL: &str = "
    WITH fresh AS (
        INSERT INTO message_log (kind, msg_id, sender, recipient, ttl_s, expires_at, payload_sha256, payload_bytes)
        SELECT 'accepted', gen_random_uuid(), $1::text, lpad(to_hex(n % $2::bigint), 64, 'f'), 3600 + n % $3::bigint,
               date_trunc('second', now()) + make_interval(secs => 3600 + n % $3), sha256(int8send(n)), 256
        FROM generate_series($4::bigint, $5::bigint) n
        RETURNING position, expires_at)
    INSERT INTO message_payloads (expires_at, message, generation, payload)
    SELECT expires_at, position, 2, $6::text FROM fresh";

/// An instance and its clients.
struct Load {
    room: Room,
    senders: Senders,
    pairs: Pairs,
    /// Runs of sends with 64 and with 256 connections.
    sends: [Vec<Run>; 2],
    /// Latencies of all deliveries.
    deliveries: Vec<Duration>,
}

impl Load {
    async fn prepare(room: Room) -> Self {
        let mut senders = Senders::connect(room.ws, "send", 256).await;
        let mut pairs = Pairs::connect(room.ws, room.ws, "deliver", PAIRS).await;
        senders.send(256, Duration::from_secs(1)).await;
        pairs.exchange(Duration::from_secs(1)).await;
        Self { room, senders, pairs, sends: Default::default(), deliveries: Vec::new() }
    }

    async fn send(&mut self) {
        for (runs, connections) in self.sends.iter_mut().zip([64, 256]) {
            runs.push(self.senders.round(&self.room.instance, connections, TURN).await);
        }
    }

    async fn deliver(&mut self) {
        self.deliveries.extend(self.pairs.exchange(TURN).await.0);
    }
}

pub(crate) async fn measure() -> Vec<Row> {
    let (empty, full) = (Room::start(&[]).await, Room::start(&[]).await);
    let started = Instant::now();
    fill(&full.instance).await;
    let bytes = "SELECT (pg_total_relation_size('message_log') + sum(pg_total_relation_size(inhrelid)))::bigint \
                 FROM pg_inherits WHERE inhparent = 'message_payloads'::regclass";
    let each = full.instance.count(bytes).await / STORED;
    println!("{STORED} messages stored in {:.0} s, {each} bytes each", started.elapsed().as_secs_f64());

    let (mut empty, mut full) = (Load::prepare(empty).await, Load::prepare(full).await);
    for turn in 0..TURNS {
        let (first, second) = if turn % 2 == 0 { (&mut empty, &mut full) } else { (&mut full, &mut empty) };
        if turn % SENDS_EVERY == 0 {
            first.send().await;
            second.send().await;
        }
        first.deliver().await;
        second.deliver().await;
    }
    let wal = |load: &Load| middle(&load.sends[0], |run| run.wal_each);
    println!("WAL bytes a message at 64 connections: {:.0}, with none stored {:.0}", wal(&full), wal(&empty));
    let mut table = vec![heading()];
    for (number, name) in ["sends, 64 connections", "sends, 256 connections"].into_iter().enumerate() {
        let rate = |load: &Load| middle(&load.sends[number], |run| run.per_second);
        let (full, empty) = (rate(&full), rate(&empty));
        table.push(row(
            &format!("{name}, 5,000,000 stored"),
            format!("{full:.0} messages/s"),
            format!("{empty:.0}/s with none stored"),
            full / empty,
            Bar::AtLeast(1.0 - DIFFERENCE_MAX),
        ));
    }
    // All turns together: a stall every few seconds would not appear in a median of turns.
    empty.deliveries.sort_unstable();
    full.deliveries.sort_unstable();
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let latency = |load: &Load| percentile(&load.deliveries, share).as_secs_f64() * 1e3;
        let (full, empty) = (latency(&full), latency(&empty));
        table.push(row(
            &format!("send to receipt, 64 pairs, {name}, 5,000,000 stored"),
            format!("{full:.2} ms"),
            format!("{empty:.2} ms with none stored"),
            full / empty,
            Bar::AtMost(1.0 + DIFFERENCE_MAX),
        ));
    }
    table
}

async fn fill(instance: &Instance) {
    let client = &instance.client;
    let hours = format!(
        "SELECT quipu_ensure_message_hours(extract(epoch FROM now())::bigint + 3600 * {})",
        HOURS + 2
    );
    client.batch_execute(&hours).await.expect("the owner may");
    let statement = client.prepare(FILL).await.expect("the statement is right");
    let (sender, payload, spread) = (wayfarer("stored", 0), payload(), HOURS * 3_600);
    for first in (0..STORED).step_by(usize::try_from(CHUNK).expect("64 bits")) {
        let last = first + CHUNK - 1;
        client
            .execute(&statement, &[&sender, &RECIPIENTS, &spread, &first, &last, &payload])
            .await
            .expect("they are stored");
    }
    // Otherwise vacuum and checkpoint would run during the measurement.
    client.batch_execute("VACUUM (ANALYZE) message_log, message_payloads").await.expect("the owner may");
    instance.checkpoint().await;
}
