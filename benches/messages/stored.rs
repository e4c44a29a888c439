//! Part `stored`: sends and deliveries with five million messages stored, against an instance without any. They take turns,
//! short ones and each first as often as second, so that a machine whose pace changes disturbs both alike.

use std::time::{Duration, Instant};

use super::client::wayfarer;
use super::deliver::{PAIRS, Pairs};
use super::draft::payload;
use super::room::Room;
use super::send::Senders;
use super::support::instance::Instance;
use super::support::percentile;
use super::support::run::{Run, middle};
use super::{Bar, Row, heading, row};

const STORED: i64 = 5_000_000;
/// Messages of one statement.
const CHUNK: i64 = 250_000;
const RECIPIENTS: i64 = 10_000;
/// Turns of each instance, and how long each figure is measured in one. The slowest percent of deliveries is made by a few
/// stalls of a shared machine: it takes many turns. For sends every fifth one is enough.
const TURNS: usize = 45;
const TURN: Duration = Duration::from_millis(1_500);
const SENDS_EVERY: usize = 5;
/// Hours over which they expire, from an hour after now on.
const HOURS: i64 = 5;
/// How far a figure may be from that of the empty instance.
const APART_MAX: f64 = 0.15;

/// As the room's own append does it: the fact, then the payload under its position.
const FILL: &str = "
    WITH fresh AS (
        INSERT INTO message_log (kind, msg_id, sender, recipient, ttl_s, expires_at, payload_sha256, payload_bytes)
        SELECT 'accepted', gen_random_uuid(), $1::text, lpad(to_hex(n % $2::bigint), 64, 'f'), 3600 + n % $3::bigint,
               date_trunc('second', now()) + make_interval(secs => 3600 + n % $3), sha256(int8send(n)), 256
        FROM generate_series($4::bigint, $5::bigint) n
        RETURNING position, expires_at)
    INSERT INTO message_payloads (expires_at, message, generation, payload)
    SELECT expires_at, position, 2, $6::text FROM fresh";

/// One instance and its load.
struct Side {
    room: Room,
    senders: Senders,
    pairs: Pairs,
    /// Sends by 64 connections, and by 256.
    sends: [Vec<Run>; 2],
    /// Latencies of all deliveries.
    deliveries: Vec<Duration>,
}

impl Side {
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

    let (mut empty, mut full) = (Side::prepare(empty).await, Side::prepare(full).await);
    for turn in 0..TURNS {
        let (first, second) = if turn % 2 == 0 { (&mut empty, &mut full) } else { (&mut full, &mut empty) };
        if turn % SENDS_EVERY == 0 {
            first.send().await;
            second.send().await;
        }
        first.deliver().await;
        second.deliver().await;
    }
    let wal = |side: &Side| middle(&side.sends[0], |run| run.wal_each);
    println!("WAL bytes a message at 64 connections: {:.0}, with none stored {:.0}", wal(&full), wal(&empty));
    let mut table = vec![heading()];
    for (number, name) in ["sends, 64 connections", "sends, 256 connections"].into_iter().enumerate() {
        let rate = |side: &Side| middle(&side.sends[number], |run| run.per_second);
        let (full, empty) = (rate(&full), rate(&empty));
        table.push(row(
            &format!("{name}, 5,000,000 stored"),
            format!("{full:.0} messages/s"),
            format!("{empty:.0}/s with none stored"),
            full / empty,
            Bar::AtLeast(1.0 - APART_MAX),
        ));
    }
    // Of all turns together: a stall that comes every few seconds would be in no middle turn.
    empty.deliveries.sort_unstable();
    full.deliveries.sort_unstable();
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let latency = |side: &Side| percentile(&side.deliveries, share).as_secs_f64() * 1e3;
        let (full, empty) = (latency(&full), latency(&empty));
        table.push(row(
            &format!("send to receipt, 64 pairs, {name}, 5,000,000 stored"),
            format!("{full:.2} ms"),
            format!("{empty:.2} ms with none stored"),
            full / empty,
            Bar::AtMost(1.0 + APART_MAX),
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
    // Else both come during the rounds.
    client.batch_execute("VACUUM (ANALYZE) message_log, message_payloads").await.expect("the owner may");
    instance.checkpoint().await;
}
