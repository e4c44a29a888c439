//! The model: sent messages and their replies, received and acknowledged messages of each device, and all
//! violations.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;

/// Time that an arrival may take after the message was last valid, in milliseconds.
const TRANSIT_MS: i64 = 250;

/// How long a pause of this process is taken into account, in milliseconds.
const PAUSE_MS: i64 = 2_000;

/// A message that a device was asked to send.
#[derive(Debug, Clone)]
pub(super) struct SentMessage {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) content: Vec<u8>,
    pub(super) ttl_s: i64,
    pub(super) client_msg_id: Option<String>,
    /// The content of `send_ok`.
    pub(super) accepted: Option<Accepted>,
    /// The id under which the message was first seen, also if no `send_ok` arrived.
    pub(super) msg_id: Option<String>,
    pub(super) received_at: Option<i64>,
}

/// The content of `send_ok` without the expiry, which the first generation does not get.
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
    /// Its current connection.
    pub(super) connection: Option<usize>,
    /// All messages that it ever received: their indexes by `msg_id`.
    pub(super) received: BTreeMap<String, usize>,
    /// Messages for which `ack_ok` was read.
    pub(super) acknowledged: BTreeSet<String>,
    /// Messages for which an acknowledgement was sent without a reply so far.
    pub(super) ack_requested: BTreeSet<String>,
}

/// A request without a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    Send(usize),
    Acknowledge(String),
    Pull,
}

/// A connection of a device.
#[derive(Debug)]
pub(super) struct Session {
    device: usize,
    /// Pending requests; replies come in this order.
    pending: VecDeque<Request>,
    /// Messages pushed on this connection.
    pub(super) pushed: BTreeSet<usize>,
    pub(super) is_greeted: bool,
    has_ended: bool,
}

/// Statistics, printed at the end.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Figures {
    pub(super) accepted: usize,
    pub(super) repeated: usize,
    pub(super) arrivals: usize,
    pub(super) acknowledged: usize,
    pub(super) failed: usize,
    pub(super) sessions: usize,
}

/// The state of the model.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) wayfarers: Vec<String>,
    pub(super) devices: Vec<Device>,
    pub(super) sent_messages: Vec<SentMessage>,
    pub(super) sessions: Vec<Session>,
    /// Descriptions of violations.
    pub(super) violations: Vec<String>,
    pub(super) figures: Figures,
    /// Pauses of this process: when they ended, and how long they were, in milliseconds.
    pub(super) pauses: VecDeque<(i64, i64)>,
    pub(super) longest_pause_ms: i64,
}

impl Model {
    /// Begins a connection of a device. Returns its number.
    pub(super) fn begin(&mut self, device: usize) -> usize {
        let (pending, pushed) = (VecDeque::new(), BTreeSet::new());
        self.sessions.push(Session { device, pending, pushed, is_greeted: false, has_ended: false });
        self.figures.sessions += 1;
        let connection = self.sessions.len() - 1;
        self.devices[device].connection = Some(connection);
        connection
    }

    pub(super) fn greeted(&mut self, connection: usize) {
        self.sessions[connection].is_greeted = true;
    }

    /// Ends a connection. Requests without a reply may or may not have been executed.
    pub(super) fn ended(&mut self, connection: usize) {
        let session = &mut self.sessions[connection];
        session.has_ended = true;
        session.pending.clear();
        let device = &mut self.devices[session.device];
        device.connection = device.connection.filter(|current| *current != connection);
    }

    /// Enters a request before it is sent.
    pub(super) fn request(&mut self, connection: usize, request: Request) {
        let session = &mut self.sessions[connection];
        if session.has_ended {
            return;
        }
        if let Request::Acknowledge(msg_id) = &request {
            self.devices[session.device].ack_requested.insert(msg_id.clone());
        }
        session.pending.push_back(request);
    }

    /// Whether any connection waits for a reply.
    pub(super) fn waits(&self) -> bool {
        self.sessions.iter().any(|session| !session.pending.is_empty())
    }

    /// Enters a pause of this process.
    pub(super) fn paused(&mut self, now_ms: i64, pause_ms: i64) {
        self.longest_pause_ms = self.longest_pause_ms.max(pause_ms);
        self.pauses.push_back((now_ms, pause_ms));
        while self.pauses.front().is_some_and(|(at, _)| at + PAUSE_MS < now_ms) {
            self.pauses.pop_front();
        }
    }

    /// Enters a frame received on a socket.
    pub(super) fn frame(&mut self, connection: usize, frame: &Value, now_ms: i64) {
        match frame["type"].as_str().unwrap_or_default() {
            "message" => self.delivered(connection, frame, now_ms),
            "send_ok" => match self.sessions[connection].pending.pop_front() {
                Some(Request::Send(sent)) => self.accepted(sent, frame),
                other => self.violation(format!("send_ok for {other:?}")),
            },
            "ack_ok" => match self.sessions[connection].pending.pop_front() {
                Some(Request::Acknowledge(msg_id)) if frame["msg_id"] == *msg_id => {
                    self.acknowledged(connection, msg_id);
                }
                other => self.violation(format!("{frame} for {other:?}")),
            },
            "messages" => match self.sessions[connection].pending.pop_front() {
                Some(Request::Pull) => self.pulled(connection, frame, now_ms),
                other => self.violation(format!("messages for {other:?}")),
            },
            "error" => {
                let request = self.sessions[connection].pending.pop_front();
                let is_unavailable = frame["code"] == "INTERNAL_ERROR"
                    || frame["msg_id"]
                        .as_str()
                        .is_some_and(|why| why.starts_with("the store is unavailable"));
                self.figures.failed += 1;
                if !is_unavailable {
                    self.violation(format!("{request:?} was refused: {frame}"));
                }
            }
            other => self.violation(format!("a frame {other:?}: {frame}")),
        }
    }

    /// Enters the response to a request of a device with a stream; `None` if none arrived.
    pub(super) fn answered(
        &mut self,
        connection: usize,
        frame: &Value,
        answer: Option<(u16, Value)>,
        now_ms: i64,
    ) {
        let Some(request) = self.sessions[connection].pending.pop_front() else { return };
        match (request, answer) {
            (Request::Send(sent), Some((200 | 201, body))) => self.accepted(sent, &body),
            (Request::Acknowledge(msg_id), Some((200, _))) => self.acknowledged(connection, msg_id),
            (Request::Pull, Some((200, body))) => self.pulled(connection, &body, now_ms),
            (_, None | Some((500 | 503, _))) => self.figures.failed += 1,
            (request, Some((status, body))) => {
                self.violation(format!("{request:?} ({frame}) was answered {status}: {body}"));
            }
        }
    }

    fn accepted(&mut self, number: usize, answer: &Value) {
        let msg_id = answer["msg_id"].as_str().unwrap_or_default().to_owned();
        let received_at = answer["received_at"].as_i64().or(answer["at"].as_i64()).unwrap_or_default();
        let accepted = Accepted { msg_id: msg_id.clone(), received_at };
        let sent = &self.sent_messages[number];
        if let Some(expires_at) = answer["expires_at"].as_i64()
            && expires_at != received_at + sent.ttl_s
        {
            self.violation(format!("{sent:?} expires at {expires_at}: {answer}"));
        }
        match &self.sent_messages[number].accepted {
            Some(before) if *before != accepted => {
                let problem = format!("message {number} was answered {before:?}, then {accepted:?}");
                self.violation(problem);
            }
            Some(_) => self.figures.repeated += 1,
            None => {
                self.figures.accepted += 1;
                self.sent_messages[number].accepted = Some(accepted);
            }
        }
        self.identity(number, &msg_id, received_at);
    }

    /// Checks that a message has one id and one acceptance time.
    fn identity(&mut self, number: usize, msg_id: &str, received_at: i64) {
        let sent = &mut self.sent_messages[number];
        let known = sent.msg_id.get_or_insert_with(|| msg_id.to_owned()) == msg_id;
        let same = *sent.received_at.get_or_insert(received_at) == received_at;
        if !known || !same {
            let problem = format!("message {number} is {msg_id} of {received_at}, too: {sent:?}");
            self.violation(problem);
        }
    }

    fn acknowledged(&mut self, connection: usize, msg_id: String) {
        self.figures.acknowledged += 1;
        let device = &mut self.devices[self.sessions[connection].device];
        device.ack_requested.remove(&msg_id);
        device.acknowledged.insert(msg_id);
    }

    fn pulled(&mut self, connection: usize, answer: &Value, now_ms: i64) {
        for message in answer["messages"].as_array().into_iter().flatten() {
            self.arrived(connection, message, now_ms);
        }
    }

    /// Enters a pushed message. A connection may push it only once.
    pub(super) fn delivered(&mut self, connection: usize, message: &Value, now_ms: i64) {
        if let Some(sent) = self.arrived(connection, message, now_ms)
            && !self.sessions[connection].pushed.insert(sent)
        {
            self.violation(format!("message {sent} was pushed twice on connection {connection}"));
        }
    }

    /// Enters an arrival on any transport and checks it.
    fn arrived(&mut self, connection: usize, message: &Value, now_ms: i64) -> Option<usize> {
        self.figures.arrivals += 1;
        let device_index = self.sessions[connection].device;
        let device = &self.devices[device_index];
        let label = format!("device {device_index} ({:?} of wayfarer {})", device.name, device.wayfarer);
        let payload = message["payload_b64"].as_str().unwrap_or_default();
        let content =
            if device.name.is_empty() { STANDARD.decode(payload) } else { URL_SAFE_NO_PAD.decode(payload) };
        let number = content.as_ref().ok().and_then(|content| number_of(content));
        let Some((number, sent)) = number.and_then(|number| Some((number, self.sent_messages.get(number)?)))
        else {
            self.violation(format!("{label} got a message that was never sent: {message}"));
            return None;
        };
        let msg_id = message["msg_id"].as_str().unwrap_or_default().to_owned();
        // In `messages` of the first generation the time is text.
        let received_at =
            ["received_at", "at"].iter().find_map(|name| message[*name].as_i64()).or(sent.received_at);
        let mut violations = Vec::new();
        if sent.to != device.wayfarer {
            violations.push(format!("{label} got message {number}, which is for wayfarer {}", sent.to));
        }
        if message["from"] != self.wayfarers[sent.from] || content.as_ref() != Ok(&sent.content) {
            violations.push(format!("{label} got message {number} altered: {message}, {sent:?}"));
        }
        if device.acknowledged.contains(&msg_id) {
            violations.push(format!(
                "{label} got message {number} ({msg_id}) again on connection {connection}, after ack_ok"
            ));
        }
        if let Some(received_at) = received_at {
            let end_ms = (received_at + sent.ttl_s) * 1_000;
            let pause_ms = self.pauses.iter().map(|(_, pause)| *pause).max().unwrap_or(0);
            if now_ms > end_ms + TRANSIT_MS + pause_ms {
                let late = now_ms - end_ms;
                violations.push(format!(
                    "{label} got message {number} {late} ms after its end (pauses {pause_ms} ms)"
                ));
            }
            self.identity(number, &msg_id, received_at);
        }
        self.violations.extend(violations);
        self.devices[device_index].received.insert(msg_id, number);
        Some(number)
    }

    fn violation(&mut self, problem: String) {
        self.violations.push(problem);
    }

    /// The messages that a device must still get on its connection: accepted, not acknowledged, and valid for
    /// longer than `margin_ms`.
    pub(super) fn missing(&self, device_index: usize, now_ms: i64, margin_ms: i64) -> Vec<usize> {
        let device = &self.devices[device_index];
        let session = device.connection.map(|connection| &self.sessions[connection]);
        let is_missing = |(number, sent): (usize, &SentMessage)| {
            let accepted = sent.accepted.as_ref().filter(|_| sent.to == device.wayfarer)?;
            let is_good = (accepted.received_at + sent.ttl_s) * 1_000 > now_ms + margin_ms;
            let is_done = device.acknowledged.contains(&accepted.msg_id)
                || device.ack_requested.contains(&accepted.msg_id);
            let was_pushed = session.is_some_and(|session| session.pushed.contains(&number));
            (is_good && !is_done && !was_pushed).then_some(number)
        };
        self.sent_messages.iter().enumerate().filter_map(is_missing).collect()
    }

    /// The messages that a device has received and not acknowledged, optionally only those of its current
    /// connection.
    pub(super) fn unacknowledged(&self, device_index: usize, this_connection_only: bool) -> Vec<String> {
        let device = &self.devices[device_index];
        let session = device.connection.map(|connection| &self.sessions[connection].pushed);
        let is_wanted =
            |number: &usize| !this_connection_only || session.is_some_and(|pushed| pushed.contains(number));
        device
            .received
            .iter()
            .filter(|(msg_id, number)| !device.acknowledged.contains(*msg_id) && is_wanted(number))
            .map(|(msg_id, _)| msg_id.clone())
            .collect()
    }

    /// Whether a device has an accepted connection.
    pub(super) fn is_connected(&self, device_index: usize) -> bool {
        self.devices[device_index].connection.is_some_and(|connection| {
            self.sessions[connection].is_greeted && !self.sessions[connection].has_ended
        })
    }
}

/// The index at the beginning of a message's content.
fn number_of(content: &[u8]) -> Option<usize> {
    let number = u64::from_be_bytes(content.get(..8)?.try_into().ok()?);
    usize::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW_MS: i64 = 1_000_000;

    /// Wayfarer 0 has sent message 0, with a time to live of 10 seconds, to wayfarer 1, whose only device is
    /// connected.
    fn model() -> Model {
        let devices = [(0, "desk"), (1, "phone")].map(|(wayfarer, name)| Device {
            wayfarer,
            name: name.to_owned(),
            ..Device::default()
        });
        let content = [0_u64.to_be_bytes().as_slice(), b"hello"].concat();
        let (client_msg_id, accepted, msg_id, received_at) = (None, None, None, None);
        let sent =
            SentMessage { from: 0, to: 1, content, ttl_s: 10, client_msg_id, accepted, msg_id, received_at };
        let mut model = Model {
            wayfarers: vec!["zero".to_owned(), "one".to_owned()],
            devices: devices.into(),
            sent_messages: vec![sent],
            ..Model::default()
        };
        for device in 0..2 {
            let connection = model.begin(device);
            model.greeted(connection);
        }
        model.request(0, Request::Send(0));
        model.frame(
            0,
            &json!({ "type": "send_ok", "msg_id": "m", "received_at": 1_000, "expires_at": 1_010 }),
            NOW_MS,
        );
        assert_eq!(model.missing(1, NOW_MS, 1_000), [0]);
        model
    }

    fn message(model: &Model) -> Value {
        let payload = URL_SAFE_NO_PAD.encode(&model.sent_messages[0].content);
        json!({ "type": "message", "msg_id": "m", "from": "zero", "payload_b64": payload, "received_at": 1_000 })
    }

    /// Each kind of violation is caused once and must be detected.
    #[test]
    fn each_kind_of_violation_is_detected() {
        let check = |text: &str, cause: &dyn Fn(&mut Model, Value)| {
            let mut model = model();
            let message = message(&model);
            cause(&mut model, message);
            let is_detected = model.violations.iter().any(|violation| violation.contains(text));
            assert!(is_detected != text.is_empty(), "{text}: {:?}", model.violations);
        };
        check("", &|model, message| {
            model.frame(1, &message, NOW_MS);
            assert!(model.missing(1, NOW_MS, 1_000).is_empty());
        });
        check("which is for wayfarer 1", &|model, message| model.frame(0, &message, NOW_MS));
        check("pushed twice", &|model, message| {
            model.frame(1, &message, NOW_MS);
            model.frame(1, &message, NOW_MS);
        });
        check("after its end", &|model, message| model.frame(1, &message, 1_010_000 + TRANSIT_MS + 1));
        check("altered", &|model, mut message| {
            message["from"] = json!("one");
            model.frame(1, &message, NOW_MS);
        });
        check("is m2 of 1000, too", &|model, mut message| {
            message["msg_id"] = json!("m2");
            model.frame(1, &message, NOW_MS);
        });
        check("that was never sent", &|model, mut message| {
            message["payload_b64"] = json!("AAAAAAAAAAE");
            model.frame(1, &message, NOW_MS);
        });
        check("after ack_ok", &|model, message| {
            model.frame(1, &message, NOW_MS);
            model.request(1, Request::Acknowledge("m".to_owned()));
            model.frame(1, &json!({ "type": "ack_ok", "msg_id": "m" }), NOW_MS);
            let again = model.begin(1);
            model.greeted(again);
            assert!(model.missing(1, NOW_MS, 1_000).is_empty());
            model.frame(again, &message, NOW_MS);
        });
        check("answered", &|model, _| {
            model.request(0, Request::Send(0));
            model.frame(0, &json!({ "type": "send_ok", "msg_id": "m3", "received_at": 1_000 }), NOW_MS);
        });
        check("for Some(Pull)", &|model, _| {
            model.request(1, Request::Pull);
            model.frame(1, &json!({ "type": "ack_ok", "msg_id": "m" }), NOW_MS);
        });
        check("was refused", &|model, _| {
            model.request(1, Request::Pull);
            model.frame(1, &json!({ "type": "error", "code": "INVALID_PAYLOAD" }), NOW_MS);
        });
    }
}
