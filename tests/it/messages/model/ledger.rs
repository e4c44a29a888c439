//! The model: what was sent, what was said about it, what each device got and acknowledged; and everything that is wrong about it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;

/// What an arrival may take after the moment at which the message was still good, in milliseconds.
const WAY_MS: i64 = 250;

/// How long a pause of this process counts, in milliseconds.
const PAUSE_MS: i64 = 2_000;

/// A message that somebody was told to send.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) content: Vec<u8>,
    pub(super) ttl_s: i64,
    pub(super) client_msg_id: Option<String>,
    /// What `send_ok` said.
    pub(super) accepted: Option<Accepted>,
    /// The identity by which it was ever seen, also when nobody was told that it was accepted.
    pub(super) msg_id: Option<String>,
    pub(super) received_at: Option<i64>,
}

/// What `send_ok` says; the first generation is not told of the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) msg_id: String,
    pub(super) received_at: i64,
}

/// A device of a wayfarer.
#[derive(Debug, Default)]
pub(super) struct Device {
    pub(super) wayfarer: usize,
    pub(super) name: String,
    /// Its connection.
    pub(super) link: Option<usize>,
    /// What it ever got: letters by `msg_id`.
    pub(super) received: BTreeMap<String, usize>,
    /// `ack_ok` was read.
    pub(super) acknowledged: BTreeSet<String>,
    /// An acknowledgement was sent; whether it counts is not known.
    pub(super) asked: BTreeSet<String>,
}

/// A question on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    Send(usize),
    Acknowledge(String),
    Pull,
}

/// A connection of a device.
#[derive(Debug)]
pub(super) struct Session {
    device: usize,
    /// Answers come in the order of the questions.
    asked: VecDeque<Asked>,
    /// What was pushed here.
    pub(super) pushed: BTreeSet<usize>,
    pub(super) is_welcome: bool,
    is_over: bool,
}

/// Figures for people.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Figures {
    pub(super) accepted: usize,
    pub(super) repeated: usize,
    pub(super) arrivals: usize,
    pub(super) acknowledged: usize,
    pub(super) not_served: usize,
    pub(super) sessions: usize,
}

/// Everything that is known.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) wayfarers: Vec<String>,
    pub(super) devices: Vec<Device>,
    pub(super) letters: Vec<Letter>,
    pub(super) sessions: Vec<Session>,
    /// What must not be.
    pub(super) wrongs: Vec<String>,
    pub(super) figures: Figures,
    /// When this process did not run, and for how long: milliseconds.
    pub(super) pauses: VecDeque<(i64, i64)>,
    pub(super) longest_pause_ms: i64,
}

impl Ledger {
    /// A connection of a device begins.
    pub(super) fn begin(&mut self, device: usize) -> usize {
        let (asked, pushed) = (VecDeque::new(), BTreeSet::new());
        self.sessions.push(Session { device, asked, pushed, is_welcome: false, is_over: false });
        self.figures.sessions += 1;
        let link = self.sessions.len() - 1;
        self.devices[device].link = Some(link);
        link
    }

    pub(super) fn welcomed(&mut self, link: usize) {
        self.sessions[link].is_welcome = true;
    }

    /// It is over: what was asked and not answered may have happened or not.
    pub(super) fn ended(&mut self, link: usize) {
        let session = &mut self.sessions[link];
        session.is_over = true;
        session.asked.clear();
        let device = &mut self.devices[session.device];
        device.link = device.link.filter(|current| *current != link);
    }

    /// Writes a question down before it is asked.
    pub(super) fn ask(&mut self, link: usize, asked: Asked) {
        let session = &mut self.sessions[link];
        if session.is_over {
            return;
        }
        if let Asked::Acknowledge(msg_id) = &asked {
            self.devices[session.device].asked.insert(msg_id.clone());
        }
        session.asked.push_back(asked);
    }

    /// Whether a connection waits for answers.
    pub(super) fn waits(&self) -> bool {
        self.sessions.iter().any(|session| !session.asked.is_empty())
    }

    /// This process did not run for so long.
    pub(super) fn paused(&mut self, now_ms: i64, pause_ms: i64) {
        self.longest_pause_ms = self.longest_pause_ms.max(pause_ms);
        self.pauses.push_back((now_ms, pause_ms));
        while self.pauses.front().is_some_and(|(at, _)| at + PAUSE_MS < now_ms) {
            self.pauses.pop_front();
        }
    }

    /// What a socket's frame says.
    pub(super) fn frame(&mut self, link: usize, frame: &Value, now_ms: i64) {
        match frame["type"].as_str().unwrap_or_default() {
            "message" => self.delivered(link, frame, now_ms),
            "send_ok" => match self.sessions[link].asked.pop_front() {
                Some(Asked::Send(letter)) => self.accepted(letter, frame),
                other => self.wrong(format!("send_ok for {other:?}")),
            },
            "ack_ok" => match self.sessions[link].asked.pop_front() {
                Some(Asked::Acknowledge(msg_id)) if frame["msg_id"] == *msg_id => {
                    self.acknowledged(link, msg_id);
                }
                other => self.wrong(format!("{frame} for {other:?}")),
            },
            "messages" => match self.sessions[link].asked.pop_front() {
                Some(Asked::Pull) => self.pulled(link, frame, now_ms),
                other => self.wrong(format!("messages for {other:?}")),
            },
            "error" => {
                let asked = self.sessions[link].asked.pop_front();
                let is_away = frame["code"] == "INTERNAL_ERROR"
                    || frame["msg_id"]
                        .as_str()
                        .is_some_and(|why| why.starts_with("the store is unavailable"));
                self.figures.not_served += 1;
                if !is_away {
                    self.wrong(format!("{asked:?} was refused: {frame}"));
                }
            }
            other => self.wrong(format!("a frame {other:?}: {frame}")),
        }
    }

    /// The answer to a request beside a stream; `None` when none came.
    pub(super) fn answered(&mut self, link: usize, asked: &Value, answer: Option<(u16, Value)>, now_ms: i64) {
        let Some(question) = self.sessions[link].asked.pop_front() else { return };
        match (question, answer) {
            (Asked::Send(letter), Some((200 | 201, body))) => self.accepted(letter, &body),
            (Asked::Acknowledge(msg_id), Some((200, _))) => self.acknowledged(link, msg_id),
            (Asked::Pull, Some((200, body))) => self.pulled(link, &body, now_ms),
            (_, None | Some((500 | 503, _))) => self.figures.not_served += 1,
            (question, Some((status, body))) => {
                self.wrong(format!("{question:?} ({asked}) was answered {status}: {body}"));
            }
        }
    }

    fn accepted(&mut self, number: usize, said: &Value) {
        let msg_id = said["msg_id"].as_str().unwrap_or_default().to_owned();
        let received_at = said["received_at"].as_i64().or(said["at"].as_i64()).unwrap_or_default();
        let accepted = Accepted { msg_id: msg_id.clone(), received_at };
        let letter = &self.letters[number];
        if let Some(expires_at) = said["expires_at"].as_i64()
            && expires_at != received_at + letter.ttl_s
        {
            self.wrong(format!("{letter:?} expires at {expires_at}: {said}"));
        }
        match &self.letters[number].accepted {
            Some(before) if *before != accepted => {
                let words = format!("letter {number} was answered {before:?}, then {accepted:?}");
                self.wrong(words);
            }
            Some(_) => self.figures.repeated += 1,
            None => {
                self.figures.accepted += 1;
                self.letters[number].accepted = Some(accepted);
            }
        }
        self.identity(number, &msg_id, received_at);
    }

    /// A letter has one identity, and one moment at which it was accepted.
    fn identity(&mut self, number: usize, msg_id: &str, received_at: i64) {
        let letter = &mut self.letters[number];
        let known = letter.msg_id.get_or_insert_with(|| msg_id.to_owned()) == msg_id;
        let same = *letter.received_at.get_or_insert(received_at) == received_at;
        if !known || !same {
            let words = format!("letter {number} is {msg_id} of {received_at}, too: {letter:?}");
            self.wrong(words);
        }
    }

    fn acknowledged(&mut self, link: usize, msg_id: String) {
        self.figures.acknowledged += 1;
        let device = &mut self.devices[self.sessions[link].device];
        device.asked.remove(&msg_id);
        device.acknowledged.insert(msg_id);
    }

    fn pulled(&mut self, link: usize, said: &Value, now_ms: i64) {
        for message in said["messages"].as_array().into_iter().flatten() {
            self.arrived(link, message, now_ms);
        }
    }

    /// A message was pushed: once on a connection.
    pub(super) fn delivered(&mut self, link: usize, message: &Value, now_ms: i64) {
        if let Some(letter) = self.arrived(link, message, now_ms)
            && !self.sessions[link].pushed.insert(letter)
        {
            self.wrong(format!("letter {letter} was pushed twice on connection {link}"));
        }
    }

    /// A message arrived, whatever the way.
    fn arrived(&mut self, link: usize, message: &Value, now_ms: i64) -> Option<usize> {
        self.figures.arrivals += 1;
        let place = self.sessions[link].device;
        let device = &self.devices[place];
        let who = format!("device {place} ({:?} of wayfarer {})", device.name, device.wayfarer);
        let told = message["payload_b64"].as_str().unwrap_or_default();
        let content =
            if device.name.is_empty() { STANDARD.decode(told) } else { URL_SAFE_NO_PAD.decode(told) };
        let number = content.as_ref().ok().and_then(|content| number_of(content));
        let Some((number, letter)) = number.and_then(|number| Some((number, self.letters.get(number)?)))
        else {
            self.wrong(format!("{who} got what nobody sent: {message}"));
            return None;
        };
        let msg_id = message["msg_id"].as_str().unwrap_or_default().to_owned();
        // What the first generation pulls says its time as text.
        let received_at =
            ["received_at", "at"].iter().find_map(|name| message[*name].as_i64()).or(letter.received_at);
        let mut wrongs = Vec::new();
        if letter.to != device.wayfarer {
            wrongs.push(format!("{who} got letter {number}, which is for wayfarer {}", letter.to));
        }
        if message["from"] != self.wayfarers[letter.from] || content.as_ref() != Ok(&letter.content) {
            wrongs.push(format!("{who} got letter {number} altered: {message}, {letter:?}"));
        }
        if device.acknowledged.contains(&msg_id) {
            wrongs.push(format!(
                "{who} got letter {number} ({msg_id}) again on connection {link}, after ack_ok"
            ));
        }
        if let Some(received_at) = received_at {
            let end_ms = (received_at + letter.ttl_s) * 1_000;
            let pause_ms = self.pauses.iter().map(|(_, pause)| *pause).max().unwrap_or(0);
            if now_ms > end_ms + WAY_MS + pause_ms {
                let late = now_ms - end_ms;
                wrongs.push(format!(
                    "{who} got letter {number} {late} ms after its end (pauses {pause_ms} ms)"
                ));
            }
            self.identity(number, &msg_id, received_at);
        }
        self.wrongs.extend(wrongs);
        self.devices[place].received.insert(msg_id, number);
        Some(number)
    }

    fn wrong(&mut self, words: String) {
        self.wrongs.push(words);
    }

    /// What a device must still get on its connection: accepted, not acknowledged, good for longer than `margin_ms`.
    pub(super) fn owed(&self, place: usize, now_ms: i64, margin_ms: i64) -> Vec<usize> {
        let device = &self.devices[place];
        let here = device.link.map(|link| &self.sessions[link]);
        let is_owed = |(number, letter): (usize, &Letter)| {
            let accepted = letter.accepted.as_ref().filter(|_| letter.to == device.wayfarer)?;
            let is_good = (accepted.received_at + letter.ttl_s) * 1_000 > now_ms + margin_ms;
            let is_done =
                device.acknowledged.contains(&accepted.msg_id) || device.asked.contains(&accepted.msg_id);
            let is_here = here.is_some_and(|session| session.pushed.contains(&number));
            (is_good && !is_done && !is_here).then_some(number)
        };
        self.letters.iter().enumerate().filter_map(is_owed).collect()
    }

    /// What a device got and has not acknowledged; on this connection alone, if so wanted.
    pub(super) fn unacknowledged(&self, place: usize, here_only: bool) -> Vec<String> {
        let device = &self.devices[place];
        let here = device.link.map(|link| &self.sessions[link].pushed);
        let is_wanted = |number: &usize| !here_only || here.is_some_and(|pushed| pushed.contains(number));
        device
            .received
            .iter()
            .filter(|(msg_id, number)| !device.acknowledged.contains(*msg_id) && is_wanted(number))
            .map(|(msg_id, _)| msg_id.clone())
            .collect()
    }

    /// Whether a device's connection is welcome and lives.
    pub(super) fn is_connected(&self, place: usize) -> bool {
        self.devices[place]
            .link
            .is_some_and(|link| self.sessions[link].is_welcome && !self.sessions[link].is_over)
    }
}

/// The number that a letter's content begins with.
fn number_of(content: &[u8]) -> Option<usize> {
    let number = u64::from_be_bytes(content.get(..8)?.try_into().ok()?);
    usize::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW_MS: i64 = 1_000_000;

    /// Wayfarer 0 has sent letter 0, which lives for 10 seconds, to wayfarer 1; that one's only device is connected.
    fn ledger() -> Ledger {
        let devices = [(0, "desk"), (1, "phone")].map(|(wayfarer, name)| Device {
            wayfarer,
            name: name.to_owned(),
            ..Device::default()
        });
        let content = [0_u64.to_be_bytes().as_slice(), b"hello"].concat();
        let (client_msg_id, accepted, msg_id, received_at) = (None, None, None, None);
        let letter =
            Letter { from: 0, to: 1, content, ttl_s: 10, client_msg_id, accepted, msg_id, received_at };
        let mut ledger = Ledger {
            wayfarers: vec!["zero".to_owned(), "one".to_owned()],
            devices: devices.into(),
            letters: vec![letter],
            ..Ledger::default()
        };
        for device in 0..2 {
            let link = ledger.begin(device);
            ledger.welcomed(link);
        }
        ledger.ask(0, Asked::Send(0));
        ledger.frame(
            0,
            &json!({ "type": "send_ok", "msg_id": "m", "received_at": 1_000, "expires_at": 1_010 }),
            NOW_MS,
        );
        assert_eq!(ledger.owed(1, NOW_MS, 1_000), [0]);
        ledger
    }

    fn message(ledger: &Ledger) -> Value {
        let payload = URL_SAFE_NO_PAD.encode(&ledger.letters[0].content);
        json!({ "type": "message", "msg_id": "m", "from": "zero", "payload_b64": payload, "received_at": 1_000 })
    }

    /// Each violation is planted once, and seen.
    #[test]
    fn what_must_not_be_is_seen() {
        let check = |word: &str, plant: &dyn Fn(&mut Ledger, Value)| {
            let mut ledger = ledger();
            let message = message(&ledger);
            plant(&mut ledger, message);
            let is_seen = ledger.wrongs.iter().any(|wrong| wrong.contains(word));
            assert!(is_seen != word.is_empty(), "{word}: {:?}", ledger.wrongs);
        };
        check("", &|ledger, message| {
            ledger.frame(1, &message, NOW_MS);
            assert!(ledger.owed(1, NOW_MS, 1_000).is_empty());
        });
        check("which is for wayfarer 1", &|ledger, message| ledger.frame(0, &message, NOW_MS));
        check("pushed twice", &|ledger, message| {
            ledger.frame(1, &message, NOW_MS);
            ledger.frame(1, &message, NOW_MS);
        });
        check("after its end", &|ledger, message| ledger.frame(1, &message, 1_010_000 + WAY_MS + 1));
        check("altered", &|ledger, mut message| {
            message["from"] = json!("one");
            ledger.frame(1, &message, NOW_MS);
        });
        check("is m2 of 1000, too", &|ledger, mut message| {
            message["msg_id"] = json!("m2");
            ledger.frame(1, &message, NOW_MS);
        });
        check("nobody sent", &|ledger, mut message| {
            message["payload_b64"] = json!("AAAAAAAAAAE");
            ledger.frame(1, &message, NOW_MS);
        });
        check("after ack_ok", &|ledger, message| {
            ledger.frame(1, &message, NOW_MS);
            ledger.ask(1, Asked::Acknowledge("m".to_owned()));
            ledger.frame(1, &json!({ "type": "ack_ok", "msg_id": "m" }), NOW_MS);
            let again = ledger.begin(1);
            ledger.welcomed(again);
            assert!(ledger.owed(1, NOW_MS, 1_000).is_empty());
            ledger.frame(again, &message, NOW_MS);
        });
        check("answered", &|ledger, _| {
            ledger.ask(0, Asked::Send(0));
            ledger.frame(0, &json!({ "type": "send_ok", "msg_id": "m3", "received_at": 1_000 }), NOW_MS);
        });
        check("for Some(Pull)", &|ledger, _| {
            ledger.ask(1, Asked::Pull);
            ledger.frame(1, &json!({ "type": "ack_ok", "msg_id": "m" }), NOW_MS);
        });
        check("was refused", &|ledger, _| {
            ledger.ask(1, Asked::Pull);
            ledger.frame(1, &json!({ "type": "error", "code": "INVALID_PAYLOAD" }), NOW_MS);
        });
    }
}
