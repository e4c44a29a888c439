//! Random lives of messages against a simple model: sends, repeats, acknowledgements, devices that come and go and break off in
//! the middle of a frame, expiries, kill -9 of a process and of PostgreSQL, commits whose answer is lost.
//!
//! A life is a list of operations drawn from a seed, which is printed. What arrives is checked as it arrives: nothing for a
//! stranger, nothing altered, nothing after its end, nothing after `ack_ok`, nothing twice on one connection, one identity for
//! each message, answers in the order of the questions. At every calm each device must have everything that it is owed, and at
//! the end the journal must say the same as the model. One device has one reader at a time, as the room asks for; a connection
//! that it left may still be believed in by the process at its other end.

mod client;
mod ledger;
mod races;
pub(super) mod stage;
pub(super) mod talk;

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

use client::{Link, Login, Parked, Say, Shared, now_ms};
use ledger::{Asked, Device, Ledger, Letter};
use stage::Stage;

/// Lives that are lived every time, besides one of a random seed. That of one that failed can be put here for a while.
const SEEDS: [u64; 2] = [4, 20_260_219];

/// Operations of a life.
const OPS: usize = 800;

/// Each wayfarer's devices. The one without a name speaks the first generation.
const DEVICES: [&[&str]; 4] = [&["a", "b", "c"], &["a", "b"], &["", "b"], &["a"]];
const DEVICES_COUNT: usize = 8;

/// A life that does not end within the test, in seconds.
const LONG_S: i64 = 3_600;

/// Longest until everything is quiet, with both processes and PostgreSQL there.
const CALM: Duration = Duration::from_mins(1);

/// Devices and wayfarers by number.
#[derive(Debug, Clone, Copy)]
enum Op {
    Send {
        device: usize,
        to: usize,
        ttl_s: i64,
        is_named: bool,
    },
    /// More at once than a seat has room for, or a process takes of one client.
    Burst {
        device: usize,
        to: usize,
        count: usize,
    },
    /// A message with a `client_msg_id` once more, one that was not answered first; from whichever device.
    Repeat {
        device: usize,
        nth: usize,
    },
    /// So many percent of what it got and did not acknowledge.
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
    Leave {
        device: usize,
        how: Leave,
    },
    /// So many bytes of a send, then a reset; all of it when there are fewer.
    CutSend {
        device: usize,
        to: usize,
        bytes: usize,
    },
    KillProcess(usize),
    StartProcess(usize),
    KillPostgres,
    /// The next commit of a process succeeds unheard.
    LoseAnswer(usize),
    Calm,
}

#[derive(Debug, Clone, Copy)]
enum Leave {
    Close,
    Reset,
    Park,
}

/// The list of operations of a seed.
fn ops(dice: &mut ChaCha8Rng) -> Vec<Op> {
    let mut ops: Vec<Op> = (0..DEVICES_COUNT)
        .map(|device| Op::Connect { device, process: device % 2, by_stream: false })
        .collect();
    // What died comes back after a while, so that a life is more than silence.
    let mut later: Vec<(usize, Op)> = Vec::new();
    for nth in 0..OPS {
        let (device, to) = (dice.random_range(0..DEVICES_COUNT), dice.random_range(0..DEVICES.len()));
        let process = dice.random_range(0..2);
        let op = match dice.random_range(0..1_000) {
            0..320 => {
                let ttl_s = if dice.random_ratio(1, 3) { dice.random_range(1..=3) } else { LONG_S };
                Op::Send { device, to, ttl_s, is_named: dice.random_bool(0.6) }
            }
            320..345 => Op::Burst { device, to, count: dice.random_range(40..150) },
            345..430 => Op::Repeat { device, nth: dice.random_range(0..1_000) },
            430..600 => Op::Acknowledge { device, percent: *pick(dice, &[10, 30, 50, 100]) },
            600..640 => Op::Pull { device },
            640..800 => Op::Connect { device, process, by_stream: dice.random_ratio(1, 4) },
            800..870 => Op::Leave { device, how: *pick(dice, &[Leave::Close, Leave::Reset, Leave::Park]) },
            870..920 => Op::CutSend { device, to, bytes: dice.random_range(1..700) },
            920..945 => {
                later.push((nth + dice.random_range(3..30), Op::StartProcess(process)));
                Op::KillProcess(process)
            }
            945..951 => {
                later.push((nth + dice.random_range(5..40), Op::Calm));
                Op::KillPostgres
            }
            951..990 => Op::LoseAnswer(process),
            _ => Op::Calm,
        };
        ops.push(op);
        ops.extend(later.iter().filter(|(when, _)| *when == nth).map(|(_, op)| *op));
    }
    ops
}

fn pick<'a, T>(dice: &mut ChaCha8Rng, of: &'a [T]) -> &'a T {
    &of[dice.random_range(0..of.len())]
}

/// A life under way.
struct Life<'a> {
    stage: &'a mut Stage,
    ledger: Shared,
    links: Vec<Option<Link>>,
    by_stream: [bool; DEVICES_COUNT],
    /// Connections that one end has forgotten.
    parked: Vec<Parked>,
    dice: ChaCha8Rng,
    seed: u64,
    trace: Vec<String>,
    kills: BTreeMap<&'static str, usize>,
    _pulse: JoinSet<()>,
}

impl<'a> Life<'a> {
    fn new(stage: &'a mut Stage, seed: u64) -> Self {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        let wayfarers = DEVICES.map(|_| hex::encode(dice.random::<[u8; 32]>())).to_vec();
        let mut ledger = Ledger { wayfarers, ..Ledger::default() };
        for (wayfarer, names) in DEVICES.iter().enumerate() {
            for name in *names {
                ledger.devices.push(Device { wayfarer, name: (*name).to_owned(), ..Device::default() });
            }
        }
        assert_eq!(ledger.devices.len(), DEVICES_COUNT);
        let ledger = Arc::new(Mutex::new(ledger));
        Self {
            stage,
            links: (0..DEVICES_COUNT).map(|_| None).collect(),
            by_stream: [false; DEVICES_COUNT],
            parked: Vec::new(),
            dice,
            seed,
            trace: Vec::new(),
            kills: BTreeMap::new(),
            _pulse: pulse(&ledger),
            ledger,
        }
    }

    /// Fails with everything that somebody needs who looks into it.
    fn check(&self) {
        let ledger = self.ledger.lock().unwrap();
        if !ledger.wrongs.is_empty() {
            let wrongs = ledger.wrongs.join("\n");
            drop(ledger);
            self.fail(&wrongs);
        }
    }

    fn fail(&self, why: &str) -> ! {
        let last = self.trace.len().saturating_sub(60);
        panic!("seed {}:\n{why}\nafter\n{}\n{}", self.seed, self.trace[last..].join("\n"), self.stage.logs());
    }

    async fn run(&mut self) {
        let ops = ops(&mut self.dice);
        let begun = Instant::now();
        for op in ops {
            self.trace.push(format!("{} {op:?}", now_ms()));
            let before = Instant::now();
            self.apply(op).await;
            if before.elapsed() > Duration::from_secs(2) {
                println!("{op:?} took {:?}", before.elapsed());
            }
            self.check();
            // Anywhere in the middle of what it has begun; nothing waits for this.
            let pause = self.dice.random_range(0..20_000);
            tokio::time::sleep(Duration::from_micros(pause)).await;
        }
        self.finish().await;
        let ledger = self.ledger.lock().unwrap();
        println!(
            "seed {}: {OPS} operations in {:?}, {} letters, {:?}, {:?}, longest pause {} ms",
            self.seed,
            begun.elapsed(),
            ledger.letters.len(),
            ledger.figures,
            self.kills,
            ledger.longest_pause_ms
        );
    }

    async fn apply(&mut self, op: Op) {
        match op {
            Op::Send { device, to, ttl_s, is_named } => self.send(device, to, ttl_s, is_named),
            Op::Burst { device, to, count } => {
                for _ in 0..count {
                    self.send(device, to, LONG_S, false);
                }
            }
            Op::Repeat { device, nth } => self.repeat(device, nth),
            Op::Acknowledge { device, percent } => self.acknowledge(device, percent),
            Op::Pull { device } => self.ask(device, Asked::Pull, json!({ "type": "pull", "limit": 100 })),
            Op::Connect { device, process, by_stream } => {
                if !self.is_linked(device) {
                    self.connect(device, process, by_stream);
                }
            }
            Op::Leave { device, how } => self.leave(device, how).await,
            Op::CutSend { device, to, bytes } => {
                let Some(frame) = self.is_linked(device).then(|| self.letter(device, to, LONG_S, true))
                else {
                    return;
                };
                let length = frame.to_string().len();
                let say = if bytes < length { Say::CutIn(frame, bytes) } else { Say::CutAfter(frame) };
                self.end(device, say).await;
            }
            Op::KillProcess(process) => {
                if self.stage.kill_process(process) {
                    *self.kills.entry("processes").or_default() += 1;
                }
            }
            Op::StartProcess(process) => self.stage.start_process(process),
            Op::KillPostgres => {
                if self.stage.kill_postgres() {
                    *self.kills.entry("postgres").or_default() += 1;
                }
            }
            Op::LoseAnswer(process) => self.stage.lose_answer(process),
            Op::Calm => self.calm().await,
        }
    }

    fn is_linked(&self, device: usize) -> bool {
        self.links[device].as_ref().is_some_and(|link| !link.is_over())
    }

    fn connect(&mut self, device: usize, process: usize, by_stream: bool) {
        let Some(address) = self.stage.any_address(process) else { return };
        // What is left of an earlier one has ended.
        self.links[device] = None;
        let mut ledger = self.ledger.lock().unwrap();
        let Device { wayfarer, name, .. } = &ledger.devices[device];
        let login = Login { wayfarer: ledger.wayfarers[*wayfarer].clone(), device: name.clone() };
        // The first generation knows no streams.
        let by_stream = by_stream && !login.device.is_empty();
        let number = ledger.begin(device);
        drop(ledger);
        self.by_stream[device] = by_stream;
        self.links[device] = Some(if by_stream {
            Link::stream(address, login, &self.ledger, number)
        } else {
            Link::socket(address, login, &self.ledger, number)
        });
    }

    async fn leave(&mut self, device: usize, how: Leave) {
        let say = match how {
            Leave::Close => Say::Close,
            Leave::Reset => Say::Reset,
            Leave::Park => Say::Park,
        };
        self.end(device, say).await;
    }

    async fn end(&mut self, device: usize, say: Say) {
        if let Some(link) = self.links[device].take() {
            link.say(say);
            self.parked.extend(link.ended().await);
        }
    }

    /// Asks on a device's connection, if it has one.
    fn ask(&mut self, device: usize, asked: Asked, frame: Value) {
        let Some(link) = &self.links[device] else { return };
        let mut ledger = self.ledger.lock().unwrap();
        if let Some(number) = ledger.devices[device].link {
            ledger.ask(number, asked);
            link.say(Say::Frame(frame));
        }
    }

    /// A new letter, and the frame that sends it.
    fn letter(&mut self, device: usize, to: usize, ttl_s: i64, is_named: bool) -> Value {
        let mut ledger = self.ledger.lock().unwrap();
        let number = ledger.letters.len();
        let mut content = u64::try_from(number).unwrap().to_be_bytes().to_vec();
        let length = self.dice.random_range(0..300);
        content.extend((0..length).map(|_| self.dice.random::<u8>()));
        let from = ledger.devices[device].wayfarer;
        let client_msg_id = is_named.then(|| format!("{}-{number}", self.seed));
        let (accepted, msg_id, received_at) = (None, None, None);
        ledger.letters.push(Letter {
            from,
            to,
            content,
            ttl_s,
            client_msg_id,
            accepted,
            msg_id,
            received_at,
        });
        drop(ledger);
        self.frame(device, number)
    }

    /// The frame by which a device sends a letter.
    fn frame(&self, device: usize, number: usize) -> Value {
        let ledger = self.ledger.lock().unwrap();
        let letter = &ledger.letters[number];
        let is_first = ledger.devices[device].name.is_empty();
        let payload =
            if is_first { STANDARD.encode(&letter.content) } else { URL_SAFE_NO_PAD.encode(&letter.content) };
        let to = &ledger.wayfarers[letter.to];
        let mut frame =
            json!({ "type": "send", "to": to, "payload_b64": payload, "ttl_seconds": letter.ttl_s });
        if let Some(id) = &letter.client_msg_id {
            frame["client_msg_id"] = json!(id);
        }
        frame
    }

    fn send(&mut self, device: usize, to: usize, ttl_s: i64, is_named: bool) {
        if self.is_linked(device) {
            let frame = self.letter(device, to, ttl_s, is_named);
            let number = self.ledger.lock().unwrap().letters.len() - 1;
            self.ask(device, Asked::Send(number), frame);
        }
    }

    fn repeat(&mut self, device: usize, nth: usize) {
        let ledger = self.ledger.lock().unwrap();
        let sender = ledger.devices[device].wayfarer;
        let named = |is_wanted: fn(&Letter) -> bool| -> Vec<usize> {
            let letters = ledger.letters.iter().enumerate();
            let own = letters.filter(|(_, l)| l.from == sender && l.client_msg_id.is_some() && is_wanted(l));
            own.map(|(number, _)| number).collect()
        };
        let mut candidates = named(|letter| letter.accepted.is_none());
        if candidates.is_empty() {
            candidates = named(|_| true);
        }
        drop(ledger);
        if let Some(&number) = candidates.get(nth % candidates.len().max(1)) {
            let frame = self.frame(device, number);
            self.ask(device, Asked::Send(number), frame);
        }
    }

    fn acknowledge(&mut self, device: usize, percent: u32) {
        // A stream and a request are two connections: what the stream brings is ordered with no answer to the request, so it
        // acknowledges what came on this very one, which brings nothing twice.
        let known = self.ledger.lock().unwrap().unacknowledged(device, self.by_stream[device]);
        for msg_id in known {
            if self.dice.random_ratio(percent, 100) {
                let frame = json!({ "type": "ack", "msg_id": msg_id });
                self.ask(device, Asked::Acknowledge(msg_id), frame);
            }
        }
    }

    /// Everybody is there and connected, every question is answered, and every device has what it is owed.
    async fn calm(&mut self) {
        self.stage.start_both().await;
        let begun = Instant::now();
        let mut said = 0;
        loop {
            for device in 0..DEVICES_COUNT {
                if !self.is_linked(device) {
                    let process = self.dice.random_range(0..2);
                    self.connect(device, process, false);
                }
            }
            let left = self.unquiet();
            self.check();
            if left.is_empty() {
                return;
            }
            if begun.elapsed().as_secs() / 3 > said {
                said += 1;
                println!("  {:?}: {left}", begun.elapsed());
            }
            if begun.elapsed() > CALM {
                self.fail(&format!("it does not become calm: {left}"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What is still to come, in words.
    fn unquiet(&self) -> String {
        let ledger = self.ledger.lock().unwrap();
        let mut left = String::new();
        if ledger.waits() {
            left += "questions are not answered; ";
        }
        for device in 0..DEVICES_COUNT {
            let owed = ledger.owed(device, now_ms(), 1_000);
            if !ledger.is_connected(device) {
                let _ = write!(left, "device {device} is not connected; ");
            } else if !owed.is_empty() {
                let some = &owed[..owed.len().min(5)];
                let _ = write!(left, "device {device} is owed {} letters, of them {some:?}; ", owed.len());
            }
        }
        left
    }

    /// Everything is read, acknowledged, and does not come again; then the journal is compared.
    async fn finish(&mut self) {
        self.trace.push("the end".to_owned());
        self.calm().await;
        for round in 0..2 {
            for device in 0..DEVICES_COUNT {
                self.ask(device, Asked::Pull, json!({ "type": "pull", "limit": 100 }));
                if round == 0 {
                    self.acknowledge(device, 100);
                }
            }
            self.calm().await;
            for device in 0..DEVICES_COUNT {
                self.acknowledge(device, 100);
            }
            self.calm().await;
            for device in 0..DEVICES_COUNT {
                let how = *pick(&mut self.dice, &[Leave::Close, Leave::Reset, Leave::Park]);
                self.leave(device, how).await;
                let process = self.dice.random_range(0..2);
                self.connect(device, process, false);
            }
            for to in 0..DEVICES.len() {
                self.send(0, to, LONG_S, true);
            }
            self.calm().await;
        }
        self.trace.push("the journal".to_owned());
        self.compare().await;
        for device in 0..DEVICES_COUNT {
            self.leave(device, Leave::Close).await;
        }
        self.check();
    }

    /// The journal says what the model says.
    async fn compare(&self) {
        let client = self.stage.client().await;
        let wayfarers = self.ledger.lock().unwrap().wayfarers.clone();
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
        let mut ledger = self.ledger.lock().unwrap();
        let mut wrongs = Vec::new();
        let by_content: BTreeMap<Vec<u8>, usize> = ledger
            .letters
            .iter()
            .enumerate()
            .map(|(n, l)| (Sha256::digest(&l.content).to_vec(), n))
            .collect();
        let mut stored = BTreeMap::new();
        for row in &accepted {
            let Some(&number) = by_content.get(row.get::<_, &[u8]>(4)) else {
                wrongs.push(format!("nobody sent {row:?}"));
                continue;
            };
            let letter = &ledger.letters[number];
            let msg_id: String = row.get(0);
            let said: (&str, &str, Option<&str>) = (row.get(1), row.get(2), row.get(3));
            let meant = (
                &*ledger.wayfarers[letter.from],
                &*ledger.wayfarers[letter.to],
                letter.client_msg_id.as_deref(),
            );
            if said != meant || letter.msg_id.as_ref().is_some_and(|known| *known != msg_id) {
                wrongs.push(format!("letter {number} is stored as {row:?}: {letter:?}"));
            }
            for (place, device) in ledger.devices.iter().enumerate() {
                let is_meant = device.wayfarer == letter.to && letter.ttl_s == LONG_S;
                if is_meant && !device.received.contains_key(&msg_id) {
                    wrongs.push(format!("device {place} never got letter {number}, which is stored"));
                }
            }
            if stored.insert(number, msg_id).is_some() {
                wrongs.push(format!("letter {number} is stored twice"));
            }
        }
        for (number, letter) in ledger.letters.iter().enumerate() {
            if letter.msg_id.is_some() && !stored.contains_key(&number) {
                wrongs.push(format!("letter {number} is not stored: {letter:?}"));
            }
        }
        for (place, device) in ledger.devices.iter().enumerate() {
            let recorded: BTreeSet<String> = acknowledged
                .iter()
                .filter(|row| row.get::<_, &str>(0) == ledger.wayfarers[device.wayfarer])
                .filter(|row| row.get::<_, &str>(1) == device.name)
                .map(|row| row.get(2))
                .collect();
            let missing = device.acknowledged.difference(&recorded).count();
            let known: BTreeSet<String> = device.acknowledged.union(&device.asked).cloned().collect();
            let invented = recorded.difference(&known).count();
            if (missing, invented) != (0, 0) {
                wrongs.push(format!(
                    "device {place}: {missing} acknowledgements are missing, {invented} are invented"
                ));
            }
        }
        ledger.wrongs.extend(wrongs);
        drop(ledger);
        self.check();
    }
}

/// Tells the ledger when this process did not run.
fn pulse(ledger: &Shared) -> JoinSet<()> {
    let ledger = Arc::clone(ledger);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        const BEAT: Duration = Duration::from_millis(10);
        loop {
            let before = Instant::now();
            tokio::time::sleep(BEAT).await;
            let late = before.elapsed().saturating_sub(BEAT);
            ledger.lock().unwrap().paused(now_ms(), i64::try_from(late.as_millis()).unwrap());
        }
    });
    tasks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_lives_with_crashes_of_every_part_agree_with_the_model() {
    let mut stage = Stage::start().await;
    for seed in SEEDS.into_iter().chain([rand::random()]) {
        println!("seed {seed}");
        stage.kill_instance();
        Life::new(&mut stage, seed).run().await;
    }
    println!("{} commits happened unheard", stage.lost_answers());
    stage.stop();
}
