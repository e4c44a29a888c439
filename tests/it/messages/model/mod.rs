//! Compares random runs of the service with a simple model: sends, repeats, acknowledgements, devices that
//! connect and disconnect in the middle of a frame, expiries, `kill -9` of a process and of PostgreSQL,
//! commits whose answer is lost.
//!
//! A run is a list of operations drawn from a seed, which is printed. Each arrival is checked at once: no
//! message reaches another wayfarer, is altered, arrives after its expiry or after `ack_ok`, or is pushed
//! twice on one connection; each message has one id; replies come in the order of the requests. Whenever the
//! system settles, each device must have every message that the model expects, and at the end the journal
//! must agree with the model. One device has one reader at a time, as the service requires; the process at
//! the other end may not have noticed the end of an earlier connection.

mod client;
pub(super) mod cluster;
mod races;
pub(super) mod simple_client;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;

use client::{Action, Connection, Login, Parked, Shared, now_ms};
use cluster::Cluster;
use state::{Device, Model, Request, SentMessage};

use crate::support::rounds::rounds;

/// Seeds of known lives. The seed of a failed run can be added here for a while. `make test` runs the first
/// one and a random one; `make soak` runs all of them, several random ones, and longer ones.
const SEEDS: [u64; 2] = [4, 20_260_219];

/// Operations of a life in `make test`, and in `make soak`.
const OPS: [usize; 2] = [500, 800];

/// The devices of each wayfarer. The device without a name uses the first generation.
const DEVICES: [&[&str]; 4] = [&["a", "b", "c"], &["a", "b"], &["", "b"], &["a"]];
const DEVICES_COUNT: usize = 8;

/// A time to live longer than the test, in seconds.
const LONG_TTL_S: i64 = 3_600;

/// Longest time until the system settles with both processes and PostgreSQL running.
const SETTLE_TIMEOUT: Duration = Duration::from_mins(1);

/// An operation. Devices and wayfarers are given by their indexes.
#[derive(Debug, Clone, Copy)]
enum Op {
    Send {
        device: usize,
        to: usize,
        ttl_s: i64,
        is_named: bool,
    },
    /// More messages at once than a mailbox holds, or than a process accepts from one client.
    Burst {
        device: usize,
        to: usize,
        count: usize,
    },
    /// Sends a message with a `client_msg_id` again from any device of its sender; prefers one without a
    /// reply.
    Repeat {
        device: usize,
        nth: usize,
    },
    /// Acknowledges this percentage of the unacknowledged messages of a device.
    Acknowledge {
        device: usize,
        percent: u32,
    },
    Pull {
        device: usize,
    },
    Connect {
        device: usize,
        process: usize,
        by_stream: bool,
    },
    Disconnect {
        device: usize,
        how: Disconnect,
    },
    /// Sends this many bytes of a `send` frame, then resets the connection; sends all of a shorter frame.
    TruncateSend {
        device: usize,
        to: usize,
        bytes: usize,
    },
    KillProcess(usize),
    StartProcess(usize),
    KillPostgres,
    /// The next commit of a process succeeds, but the process does not get the answer.
    LoseCommitAnswer(usize),
    Settle,
}

#[derive(Debug, Clone, Copy)]
enum Disconnect {
    Close,
    Reset,
    Park,
}

/// Draws the operations of a run.
fn ops(rng: &mut ChaCha8Rng) -> Vec<Op> {
    let count = OPS[usize::from(rounds() > 1)];
    let mut ops: Vec<Op> = (0..DEVICES_COUNT)
        .map(|device| Op::Connect { device, process: device % 2, by_stream: false })
        .collect();
    // Killed processes restart after a while, so that the run does not stop.
    let mut later: Vec<(usize, Op)> = Vec::new();
    for nth in 0..count {
        let (device, to) = (rng.random_range(0..DEVICES_COUNT), rng.random_range(0..DEVICES.len()));
        let process = rng.random_range(0..2);
        let op = match rng.random_range(0..1_000) {
            0..320 => {
                let ttl_s = if rng.random_ratio(1, 3) { rng.random_range(1..=3) } else { LONG_TTL_S };
                Op::Send { device, to, ttl_s, is_named: rng.random_bool(0.6) }
            }
            320..345 => Op::Burst { device, to, count: rng.random_range(40..150) },
            345..430 => Op::Repeat { device, nth: rng.random_range(0..1_000) },
            430..600 => Op::Acknowledge { device, percent: *pick(rng, &[10, 30, 50, 100]) },
            600..640 => Op::Pull { device },
            640..800 => Op::Connect { device, process, by_stream: rng.random_ratio(1, 4) },
            800..870 => Op::Disconnect {
                device,
                how: *pick(rng, &[Disconnect::Close, Disconnect::Reset, Disconnect::Park]),
            },
            870..920 => Op::TruncateSend { device, to, bytes: rng.random_range(1..700) },
            920..945 => {
                later.push((nth + rng.random_range(3..30), Op::StartProcess(process)));
                Op::KillProcess(process)
            }
            945..951 => {
                later.push((nth + rng.random_range(5..40), Op::Settle));
                Op::KillPostgres
            }
            951..990 => Op::LoseCommitAnswer(process),
            _ => Op::Settle,
        };
        ops.push(op);
        ops.extend(later.iter().filter(|(when, _)| *when == nth).map(|(_, op)| *op));
    }
    ops
}

fn pick<'a, T>(rng: &mut ChaCha8Rng, of: &'a [T]) -> &'a T {
    &of[rng.random_range(0..of.len())]
}

/// A run in progress.
struct Run<'a> {
    cluster: &'a mut Cluster,
    model: Shared,
    connections: Vec<Option<Connection>>,
    by_stream: [bool; DEVICES_COUNT],
    /// Connections that the client no longer reads.
    parked: Vec<Parked>,
    rng: ChaCha8Rng,
    seed: u64,
    trace: Vec<String>,
    kills: BTreeMap<&'static str, usize>,
    _pause_watch: JoinSet<()>,
}

impl<'a> Run<'a> {
    fn new(cluster: &'a mut Cluster, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let wayfarers = DEVICES.map(|_| hex::encode(rng.random::<[u8; 32]>())).to_vec();
        let mut model = Model { wayfarers, ..Model::default() };
        for (wayfarer, names) in DEVICES.iter().enumerate() {
            for name in *names {
                model.devices.push(Device { wayfarer, name: (*name).to_owned(), ..Device::default() });
            }
        }
        assert_eq!(model.devices.len(), DEVICES_COUNT);
        let model = Arc::new(Mutex::new(model));
        Self {
            cluster,
            connections: (0..DEVICES_COUNT).map(|_| None).collect(),
            by_stream: [false; DEVICES_COUNT],
            parked: Vec::new(),
            rng,
            seed,
            trace: Vec::new(),
            kills: BTreeMap::new(),
            _pause_watch: watch_pauses(&model),
            model,
        }
    }

    /// Fails if there are violations, with the details needed to investigate.
    fn check(&self) {
        let model = self.model.lock().unwrap();
        if !model.violations.is_empty() {
            let violations = model.violations.join("\n");
            drop(model);
            self.fail(&violations);
        }
    }

    fn fail(&self, why: &str) -> ! {
        let last = self.trace.len().saturating_sub(60);
        panic!(
            "seed {}:\n{why}\nafter\n{}\n{}",
            self.seed,
            self.trace[last..].join("\n"),
            self.cluster.logs()
        );
    }

    async fn run(&mut self) {
        let ops = ops(&mut self.rng);
        let (count, started) = (ops.len(), Instant::now());
        for op in ops {
            self.trace.push(format!("{} {op:?}", now_ms()));
            let before = Instant::now();
            self.apply(op).await;
            if before.elapsed() > Duration::from_secs(2) {
                println!("{op:?} took {:?}", before.elapsed());
            }
            self.check();
            // A short pause, so that operations overlap at random points; the loop does not wait for their
            // completion.
            let pause = self.rng.random_range(0..20_000);
            tokio::time::sleep(Duration::from_micros(pause)).await;
        }
        self.finish().await;
        let model = self.model.lock().unwrap();
        println!(
            "seed {}: {count} operations in {:?}, {} messages, {:?}, {:?}, longest pause {} ms",
            self.seed,
            started.elapsed(),
            model.sent_messages.len(),
            model.figures,
            self.kills,
            model.longest_pause_ms
        );
    }

    async fn apply(&mut self, op: Op) {
        match op {
            Op::Send { device, to, ttl_s, is_named } => self.send(device, to, ttl_s, is_named),
            Op::Burst { device, to, count } => {
                for _ in 0..count {
                    self.send(device, to, LONG_TTL_S, false);
                }
            }
            Op::Repeat { device, nth } => self.repeat(device, nth),
            Op::Acknowledge { device, percent } => self.acknowledge(device, percent),
            Op::Pull { device } => {
                self.request(device, Request::Pull, json!({ "type": "pull", "limit": 100 }));
            }
            Op::Connect { device, process, by_stream } => {
                if !self.has_connection(device) {
                    self.connect(device, process, by_stream);
                }
            }
            Op::Disconnect { device, how } => self.disconnect(device, how).await,
            Op::TruncateSend { device, to, bytes } => {
                let Some(frame) =
                    self.has_connection(device).then(|| self.new_message(device, to, LONG_TTL_S, true))
                else {
                    return;
                };
                let length = frame.to_string().len();
                let action =
                    if bytes < length { Action::Truncate(frame, bytes) } else { Action::SendAndReset(frame) };
                self.end(device, action).await;
            }
            Op::KillProcess(process) => {
                if self.cluster.kill_process(process) {
                    *self.kills.entry("processes").or_default() += 1;
                }
            }
            Op::StartProcess(process) => self.cluster.start_process(process),
            Op::KillPostgres => {
                if self.cluster.kill_postgres() {
                    *self.kills.entry("postgres").or_default() += 1;
                }
            }
            Op::LoseCommitAnswer(process) => self.cluster.lose_commit_answer(process),
            Op::Settle => self.settle().await,
        }
    }

    fn has_connection(&self, device: usize) -> bool {
        self.connections[device].as_ref().is_some_and(|connection| !connection.has_ended())
    }

    fn connect(&mut self, device: usize, process: usize, by_stream: bool) {
        let Some(address) = self.cluster.any_address(process) else { return };
        // An earlier connection has ended; drop what is left of it.
        self.connections[device] = None;
        let mut model = self.model.lock().unwrap();
        let Device { wayfarer, name, .. } = &model.devices[device];
        let login = Login { wayfarer: model.wayfarers[*wayfarer].clone(), device: name.clone() };
        // The first generation has no streams.
        let by_stream = by_stream && !login.device.is_empty();
        let number = model.begin(device);
        drop(model);
        self.by_stream[device] = by_stream;
        self.connections[device] = Some(if by_stream {
            Connection::stream(address, login, &self.model, number)
        } else {
            Connection::socket(address, login, &self.model, number)
        });
    }

    async fn disconnect(&mut self, device: usize, how: Disconnect) {
        let action = match how {
            Disconnect::Close => Action::Close,
            Disconnect::Reset => Action::Reset,
            Disconnect::Park => Action::Park,
        };
        self.end(device, action).await;
    }

    async fn end(&mut self, device: usize, action: Action) {
        if let Some(connection) = self.connections[device].take() {
            connection.act(action);
            self.parked.extend(connection.ended().await);
        }
    }

    /// Sends a request on the connection of a device, if it has one.
    fn request(&mut self, device: usize, request: Request, frame: Value) {
        let Some(connection) = &self.connections[device] else { return };
        let mut model = self.model.lock().unwrap();
        if let Some(number) = model.devices[device].connection {
            model.request(number, request);
            connection.act(Action::Frame(frame));
        }
    }

    /// Creates a message in the model. Returns the frame that sends it.
    fn new_message(&mut self, device: usize, to: usize, ttl_s: i64, is_named: bool) -> Value {
        let mut model = self.model.lock().unwrap();
        let number = model.sent_messages.len();
        let mut content = u64::try_from(number).unwrap().to_be_bytes().to_vec();
        let length = self.rng.random_range(0..300);
        content.extend((0..length).map(|_| self.rng.random::<u8>()));
        let from = model.devices[device].wayfarer;
        let client_msg_id = is_named.then(|| format!("{}-{number}", self.seed));
        let (accepted, msg_id, received_at) = (None, None, None);
        model.sent_messages.push(SentMessage {
            from,
            to,
            content,
            ttl_s,
            client_msg_id,
            accepted,
            msg_id,
            received_at,
        });
        drop(model);
        self.frame(device, number)
    }

    /// The frame with which a device sends a message.
    fn frame(&self, device: usize, number: usize) -> Value {
        let model = self.model.lock().unwrap();
        let sent = &model.sent_messages[number];
        let is_first = model.devices[device].name.is_empty();
        let payload =
            if is_first { STANDARD.encode(&sent.content) } else { URL_SAFE_NO_PAD.encode(&sent.content) };
        let to = &model.wayfarers[sent.to];
        let mut frame =
            json!({ "type": "send", "to": to, "payload_b64": payload, "ttl_seconds": sent.ttl_s });
        if let Some(id) = &sent.client_msg_id {
            frame["client_msg_id"] = json!(id);
        }
        frame
    }

    fn send(&mut self, device: usize, to: usize, ttl_s: i64, is_named: bool) {
        if self.has_connection(device) {
            let frame = self.new_message(device, to, ttl_s, is_named);
            let number = self.model.lock().unwrap().sent_messages.len() - 1;
            self.request(device, Request::Send(number), frame);
        }
    }

    fn repeat(&mut self, device: usize, nth: usize) {
        let model = self.model.lock().unwrap();
        let sender = model.devices[device].wayfarer;
        let named = |is_wanted: fn(&SentMessage) -> bool| -> Vec<usize> {
            let sent_messages = model.sent_messages.iter().enumerate();
            let own = sent_messages.filter(|(_, message)| {
                message.from == sender && message.client_msg_id.is_some() && is_wanted(message)
            });
            own.map(|(number, _)| number).collect()
        };
        let mut candidates = named(|sent| sent.accepted.is_none());
        if candidates.is_empty() {
            candidates = named(|_| true);
        }
        drop(model);
        if let Some(&number) = candidates.get(nth % candidates.len().max(1)) {
            let frame = self.frame(device, number);
            self.request(device, Request::Send(number), frame);
        }
    }

    fn acknowledge(&mut self, device: usize, percent: u32) {
        // A stream and its requests are separate connections, so pushes are not ordered with the replies. A
        // device with a stream therefore acknowledges only messages that arrived on this stream, which pushes
        // none twice.
        let known = self.model.lock().unwrap().unacknowledged(device, self.by_stream[device]);
        for msg_id in known {
            if self.rng.random_ratio(percent, 100) {
                let frame = json!({ "type": "ack", "msg_id": msg_id });
                self.request(device, Request::Acknowledge(msg_id), frame);
            }
        }
    }

    /// Waits until all devices are connected, all requests are answered, and each device has every message
    /// that the model expects.
    async fn settle(&mut self) {
        self.cluster.start_both().await;
        let started = Instant::now();
        let mut reports = 0;
        loop {
            for device in 0..DEVICES_COUNT {
                if !self.has_connection(device) {
                    let process = self.rng.random_range(0..2);
                    self.connect(device, process, false);
                }
            }
            let left = self.unsettled();
            self.check();
            if left.is_empty() {
                return;
            }
            if started.elapsed().as_secs() / 3 > reports {
                reports += 1;
                println!("  {:?}: {left}", started.elapsed());
            }
            if started.elapsed() > SETTLE_TIMEOUT {
                self.fail(&format!("the system does not settle: {left}"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Describes what is still missing before the system has settled.
    fn unsettled(&self) -> String {
        let model = self.model.lock().unwrap();
        let mut left = String::new();
        if model.waits() {
            left += "requests are not answered; ";
        }
        for device in 0..DEVICES_COUNT {
            let missing = model.missing(device, now_ms(), 1_000);
            if !model.is_connected(device) {
                let _ = write!(left, "device {device} is not connected; ");
            } else if !missing.is_empty() {
                let some = &missing[..missing.len().min(5)];
                let _ = write!(left, "device {device} lacks {} messages, of them {some:?}; ", missing.len());
            }
        }
        left
    }

    /// Reads and acknowledges all messages, checks that none comes again, then compares the journal.
    async fn finish(&mut self) {
        self.trace.push("finish".to_owned());
        self.settle().await;
        for round in 0..2 {
            for device in 0..DEVICES_COUNT {
                self.request(device, Request::Pull, json!({ "type": "pull", "limit": 100 }));
                if round == 0 {
                    self.acknowledge(device, 100);
                }
            }
            self.settle().await;
            for device in 0..DEVICES_COUNT {
                self.acknowledge(device, 100);
            }
            self.settle().await;
            for device in 0..DEVICES_COUNT {
                let how = *pick(&mut self.rng, &[Disconnect::Close, Disconnect::Reset, Disconnect::Park]);
                self.disconnect(device, how).await;
                let process = self.rng.random_range(0..2);
                self.connect(device, process, false);
            }
            for to in 0..DEVICES.len() {
                self.send(0, to, LONG_TTL_S, true);
            }
            self.settle().await;
        }
        self.trace.push("compare the journal".to_owned());
        self.compare().await;
        for device in 0..DEVICES_COUNT {
            self.disconnect(device, Disconnect::Close).await;
        }
        self.check();
    }

    /// Compares the journal with the model.
    async fn compare(&self) {
        let client = self.cluster.client().await;
        let wayfarers = self.model.lock().unwrap().wayfarers.clone();
        let accepted = client
            .query(
                "SELECT msg_id::text, sender, recipient, client_msg_id, payload_sha256 FROM message_log \
                 WHERE kind = 'accepted' AND recipient = ANY ($1)",
                &[&wayfarers],
            )
            .await
            .unwrap();
        let acknowledged = client
            .query(
                "SELECT l.recipient, a.device, l.msg_id::text FROM message_log a JOIN message_log l ON l.position = a.message \
                 WHERE a.kind = 'acknowledged' AND l.recipient = ANY ($1)",
                &[&wayfarers],
            )
            .await
            .unwrap();
        let mut model = self.model.lock().unwrap();
        let mut violations = Vec::new();
        let by_content: BTreeMap<Vec<u8>, usize> = model
            .sent_messages
            .iter()
            .enumerate()
            .map(|(n, message)| (Sha256::digest(&message.content).to_vec(), n))
            .collect();
        let mut stored = BTreeMap::new();
        for row in &accepted {
            let Some(&number) = by_content.get(row.get::<_, &[u8]>(4)) else {
                violations.push(format!("{row:?} was never sent"));
                continue;
            };
            let sent = &model.sent_messages[number];
            let msg_id: String = row.get(0);
            let stored_fields: (&str, &str, Option<&str>) = (row.get(1), row.get(2), row.get(3));
            let sent_fields =
                (&*model.wayfarers[sent.from], &*model.wayfarers[sent.to], sent.client_msg_id.as_deref());
            if stored_fields != sent_fields || sent.msg_id.as_ref().is_some_and(|known| *known != msg_id) {
                violations.push(format!("message {number} is stored as {row:?}: {sent:?}"));
            }
            for (device_index, device) in model.devices.iter().enumerate() {
                let is_meant = device.wayfarer == sent.to && sent.ttl_s == LONG_TTL_S;
                if is_meant && !device.received.contains_key(&msg_id) {
                    violations
                        .push(format!("device {device_index} never got message {number}, which is stored"));
                }
            }
            if stored.insert(number, msg_id).is_some() {
                violations.push(format!("message {number} is stored twice"));
            }
        }
        for (number, sent) in model.sent_messages.iter().enumerate() {
            if sent.msg_id.is_some() && !stored.contains_key(&number) {
                violations.push(format!("message {number} is not stored: {sent:?}"));
            }
        }
        for (device_index, device) in model.devices.iter().enumerate() {
            let recorded: BTreeSet<String> = acknowledged
                .iter()
                .filter(|row| row.get::<_, &str>(0) == model.wayfarers[device.wayfarer])
                .filter(|row| row.get::<_, &str>(1) == device.name)
                .map(|row| row.get(2))
                .collect();
            let missing = device.acknowledged.difference(&recorded).count();
            let known: BTreeSet<String> = device.acknowledged.union(&device.ack_requested).cloned().collect();
            let invented = recorded.difference(&known).count();
            if (missing, invented) != (0, 0) {
                violations.push(format!(
                    "device {device_index}: {missing} acknowledgements are missing, {invented} are invented"
                ));
            }
        }
        model.violations.extend(violations);
        drop(model);
        self.check();
    }
}

/// Reports to the model when this process was not scheduled.
fn watch_pauses(model: &Shared) -> JoinSet<()> {
    let model = Arc::clone(model);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        const BEAT: Duration = Duration::from_millis(10);
        loop {
            let before = Instant::now();
            tokio::time::sleep(BEAT).await;
            let late = before.elapsed().saturating_sub(BEAT);
            model.lock().unwrap().paused(now_ms(), i64::try_from(late.as_millis()).unwrap());
        }
    });
    tasks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_lives_with_crashes_of_every_part_agree_with_the_model() {
    let mut cluster = Cluster::start().await;
    let rounds = usize::try_from(rounds()).unwrap();
    let random = std::iter::repeat_with(rand::random).take(rounds);
    for seed in SEEDS.into_iter().take(rounds).chain(random) {
        println!("seed {seed}");
        cluster.kill_instance();
        Run::new(&mut cluster, seed).run().await;
    }
    println!("{} commits succeeded without an answer", cluster.lost_commit_answers());
    cluster.stop();
}
