//! The room in the test's process, and clients of it that wait for nothing longer than a deadline.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use quipu::app::Parts;
use quipu::config::{self, Settings};
use quipu::lifecycle::Lifecycle;
use quipu::services::messages;
use quipu::store::DatabaseUrls;
use quipu::telemetry::Metrics;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use uuid::Uuid;

use crate::support::database::TestDatabase;

/// Longest that anything may take before the test fails.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits, within the deadline.
pub(super) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// One number.
pub(super) async fn number(database: &TestDatabase, sql: &str) -> i64 {
    database.owner().await.query_one(sql, &[]).await.unwrap().get(0)
}

/// An id of the second generation.
pub(super) fn wayfarer(number: u8) -> String {
    hex::encode([number; 32])
}

/// The room as one process has it. Dropping it drains it.
pub(super) struct Room {
    pub(super) parts: Parts,
    pub(super) ws: SocketAddr,
    pub(super) http: SocketAddr,
}

impl Room {
    /// The room on a test's database.
    pub(super) async fn on(database: &TestDatabase) -> Self {
        Self::with(database, |_| {}).await
    }

    /// The same with other settings.
    pub(super) async fn with(database: &TestDatabase, change: impl FnOnce(&mut config::Messages)) -> Self {
        Self::through(&database.urls(), change).await
    }

    /// The same, whatever lies between it and the database.
    pub(super) async fn through(urls: &DatabaseUrls, change: impl FnOnce(&mut config::Messages)) -> Self {
        Self::open(Self::parts(urls, change)).await
    }

    /// What a room is made of, before it starts.
    pub(super) fn parts(urls: &DatabaseUrls, change: impl FnOnce(&mut config::Messages)) -> Parts {
        let mut settings = Settings::default();
        let messages = &mut settings.services.messages;
        messages.ws_address = Some(([127, 0, 0, 1], 0).into());
        messages.http_address = Some(([127, 0, 0, 1], 0).into());
        // A partition for each hour of it is made at the start.
        messages.max_ttl_s = 7_200.try_into().unwrap();
        change(messages);
        Parts::open(urls, settings, Lifecycle::new(Duration::from_secs(5)), Metrics::new("test")).unwrap()
    }

    /// Starts a room made of these.
    pub(super) async fn open(parts: Parts) -> Self {
        let mut addresses = BTreeMap::new();
        messages::start(&parts, &mut addresses).await.unwrap();
        let [ws, http] = ["messages", "messages-http"].map(|name| addresses[name].parse().unwrap());
        Self { parts, ws, http }
    }

    /// A socket that has said nothing yet.
    pub(super) async fn connect(&self) -> Client {
        Client::connect(self.ws, &[]).await
    }

    /// A client of the first generation, welcomed.
    pub(super) async fn one(&self, wayfarer: &str) -> Client {
        let mut client = self.connect().await;
        let answer = client.ask(json!({ "type": "hello", "wayfarer_id": wayfarer })).await;
        assert_eq!(answer, json!({ "type": "hello_ok" }));
        client
    }

    /// A client of the second generation, welcomed.
    pub(super) async fn two(&self, wayfarer: &str, device: &str) -> Client {
        let mut client = self.connect().await;
        client.hello(wayfarer, device).await;
        client
    }

    /// The same with as little room as can be for what it does not read.
    pub(super) async fn unread(&self, wayfarer: &str, device: &str) -> Client {
        let tcp = TcpSocket::new_v4().unwrap();
        tcp.set_recv_buffer_size(4_096).unwrap();
        let stream = soon("a connection", tcp.connect(self.ws)).await.unwrap();
        let mut client = Client::on(stream, &[]).await.unwrap_or_else(|status| panic!("{status}"));
        client.hello(wayfarer, device).await;
        client
    }

    /// Asks over HTTP; the answer is its status and its body, JSON where it is some.
    pub(super) async fn get(&self, path: &str) -> (u16, Value) {
        http(self.http, "GET", path, &[], None).await
    }

    /// Sends over HTTP.
    pub(super) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        http(self.http, "POST", path, &[], Some(body)).await
    }

    /// A number of `/metrics`.
    pub(super) async fn metric(&self, name: &str) -> u64 {
        let (status, text) = self.get("/metrics").await;
        assert_eq!(status, 200);
        let text = text.as_str().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().unwrap()
    }

    /// Ends it as a signal does, and waits for the end.
    pub(super) async fn stop(self) {
        self.parts.lifecycle.drain();
        let ending = self.parts.lifecycle.run_until_stopped(futures_util::stream::pending::<&str>()).await;
        assert!(ending.is_clean(), "{ending:?}");
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.parts.lifecycle.drain();
    }
}

/// A client's socket.
pub(super) struct Client(WebSocketStream<TcpStream>);

impl Client {
    /// Shakes hands with further headers.
    pub(super) async fn connect(address: SocketAddr, headers: &[(&'static str, &str)]) -> Self {
        Self::try_connect(address, headers).await.unwrap_or_else(|status| panic!("HTTP status {status}"))
    }

    /// The same; the HTTP status where hands are not shaken.
    pub(super) async fn try_connect(
        address: SocketAddr,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, u16> {
        let stream = soon("a connection", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::on(stream, headers).await
    }

    /// Shakes hands on a connection of one's own.
    pub(super) async fn on(stream: TcpStream, headers: &[(&'static str, &str)]) -> Result<Self, u16> {
        let mut request = format!("ws://{}/ws", stream.peer_addr().unwrap()).into_client_request().unwrap();
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).unwrap();
            request.headers_mut().insert(HeaderName::from_static(name), value);
        }
        match soon("the handshake", client_async(request, stream)).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// Says hello in the second generation and is welcomed.
    pub(super) async fn hello(&mut self, wayfarer: &str, device: &str) {
        let hello = json!({ "type": "hello", "wayfarer_id": wayfarer, "device_id": device });
        assert_eq!(self.ask(hello).await, json!({ "type": "hello_ok", "relay_id": "quipu" }));
    }

    /// Sends one WebSocket message.
    pub(super) async fn put(&mut self, message: Message) {
        soon("a message to be taken", self.0.send(message)).await.unwrap();
    }

    /// Sends a text as it is.
    pub(super) async fn say(&mut self, text: impl Into<String>) {
        self.put(Message::text(text.into())).await;
    }

    /// Sends a text to a relay that may close before it has taken it.
    pub(super) async fn try_say(&mut self, text: impl Into<String>) {
        let _ = soon("a message to be taken", self.0.send(Message::text(text.into()))).await;
    }

    /// Sends one WebSocket message to a relay that may close; whether it was taken.
    pub(super) async fn try_put(&mut self, message: Message) -> bool {
        soon("a message to be taken or refused", self.0.send(message)).await.is_ok()
    }

    /// Sends a text to a relay that may close; the next frame, if there is one.
    pub(super) async fn try_ask(&mut self, text: &str) -> Option<Value> {
        self.try_say(text).await;
        self.hear().await.map(|text| serde_json::from_str(&text).unwrap())
    }

    /// Reads while it sends a text that the relay does not take: what is said to it, and the code of the farewell.
    pub(super) async fn try_say_and_hear(&mut self, text: String) -> (Value, Option<u16>) {
        let (mut mouth, mut ear) = (&mut self.0).split();
        let heard = async {
            let Some(Ok(Message::Text(said))) = ear.next().await else { panic!("nothing was said") };
            let Some(Ok(Message::Close(farewell))) = ear.next().await else { panic!("no farewell") };
            (serde_json::from_str(&said).unwrap(), farewell.map(|frame| frame.code.into()))
        };
        // It ends when the relay hangs up.
        let (_sent, heard) =
            soon("a refusal", async { tokio::join!(mouth.send(Message::text(text)), heard) }).await;
        heard
    }

    /// The next text as it came; pings are passed over. `None` when the relay has closed or is gone.
    pub(super) async fn hear(&mut self) -> Option<String> {
        loop {
            match soon("a frame", self.0.next()).await {
                Some(Ok(Message::Text(text))) => return Some(text.as_str().to_owned()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(other)) => panic!("{other:?}"),
            }
        }
    }

    /// The next frame.
    pub(super) async fn next(&mut self) -> Value {
        let text = self.hear().await.expect("the relay does not close");
        serde_json::from_str(&text).unwrap()
    }

    /// Sends a frame and gives the next one.
    pub(super) async fn ask(&mut self, frame: Value) -> Value {
        self.say(frame.to_string()).await;
        self.next().await
    }

    /// Waits for the end; the code of the relay's farewell, where it gave one. Frames before it are passed over.
    pub(super) async fn ended(&mut self) -> Option<u16> {
        loop {
            match soon("the end", self.0.next()).await {
                Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
                Some(Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// Everything that comes before the answer to a question asked now: what was committed before is handed over before it.
    pub(super) async fn waiting(&mut self) -> Vec<Value> {
        self.say(r#"{"type":"is anything there"}"#).await;
        let mut came = Vec::new();
        loop {
            let frame = self.next().await;
            if frame["type"] == "error" {
                return came;
            }
            came.push(frame);
        }
    }

    /// Nothing is there.
    pub(super) async fn hears_nothing(&mut self) {
        assert_eq!(self.waiting().await, Vec::<Value>::new());
    }

    /// Sends a message that is accepted; its `msg_id`.
    pub(super) async fn send(&mut self, to: &str, payload_b64: &str) -> String {
        let frame = json!({ "type": "send", "to": to, "payload_b64": payload_b64 });
        self.send_frame(frame).await["msg_id"].as_str().unwrap().to_owned()
    }

    /// Sends a message that is accepted; the answer.
    pub(super) async fn send_frame(&mut self, frame: Value) -> Value {
        let answer = self.ask(frame).await;
        assert_eq!(answer["type"], "send_ok", "{answer}");
        answer
    }

    /// Sends a message again until the recipient's inbox has room; its `msg_id`. What is full is counted once a second.
    pub(super) async fn send_when_there_is_room(&mut self, frame: Value) -> String {
        let sent = async {
            loop {
                let answer = self.ask(frame.clone()).await;
                if answer["code"] != "RATE_LIMITED" {
                    break answer["msg_id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon("room in the inbox", sent).await
    }

    /// Sends one message for each payload, many at a time; their `msg_id`s in that order.
    pub(super) async fn send_all(&mut self, to: &str, payloads: &[String]) -> Vec<String> {
        let mut ids = Vec::new();
        for some in payloads.chunks(50) {
            for payload in some {
                self.say(json!({ "type": "send", "to": to, "payload_b64": payload }).to_string()).await;
            }
            for _ in some {
                let answer = self.next().await;
                assert_eq!(answer["type"], "send_ok", "{answer}");
                ids.push(answer["msg_id"].as_str().unwrap().to_owned());
            }
        }
        ids
    }

    /// The next so many frames are messages; their `msg_id`s.
    pub(super) async fn messages(&mut self, number: usize) -> Vec<String> {
        let mut ids = Vec::new();
        while ids.len() < number {
            ids.push(self.message().await);
        }
        ids
    }

    /// Acknowledges a message.
    pub(super) async fn acknowledge(&mut self, msg_id: &str) {
        let answer = self.ask(json!({ "type": "ack", "msg_id": msg_id })).await;
        assert_eq!(answer, json!({ "type": "ack_ok", "msg_id": msg_id }));
    }

    /// Acknowledges the message that comes first.
    pub(super) async fn acknowledge_first(&mut self, msg_id: &str) {
        assert_eq!(self.message().await, msg_id);
        self.acknowledge(msg_id).await;
    }

    /// The next frame is a message; its `msg_id`.
    pub(super) async fn message(&mut self) -> String {
        let frame = self.next().await;
        assert_eq!(frame["type"], "message", "{frame}");
        frame["msg_id"].as_str().unwrap().to_owned()
    }

    /// What a pull lists, as `msg_id`s.
    pub(super) async fn pull(&mut self, limit: u32) -> Vec<String> {
        let answer = self.ask(json!({ "type": "pull", "limit": limit })).await;
        assert_eq!(answer["type"], "messages", "{answer}");
        let listed = answer["messages"].as_array().into_iter().flatten();
        listed.map(|message| message["msg_id"].as_str().unwrap().to_owned()).collect()
    }
}

/// One request on a connection of its own. A body that is no JSON is given as a string.
pub(super) async fn http(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> (u16, Value) {
    let answer = soon(path, async {
        let mut stream = open(address, method, path, headers, body).await;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    })
    .await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|_| body.into()))
}

/// Sends a request, and leaves the answer to be read until the relay closes.
pub(super) async fn open(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> TcpStream {
    let body = body.map(Value::to_string).unwrap_or_default();
    // HTTP/1.0: the answer is not chunked and ends with the connection.
    let mut request = format!("{method} {path} HTTP/1.0\r\ncontent-length: {}\r\n", body.len());
    if headers.iter().all(|(name, _)| *name != "host") {
        let _ = write!(request, "host: {address}\r\n");
    }
    if !body.is_empty() {
        request += "content-type: application/json\r\n";
    }
    for (name, value) in headers {
        let _ = write!(request, "{name}: {value}\r\n");
    }
    request += "\r\n";
    request += &body;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// A stream of server-sent events.
pub(super) struct Stream {
    lines: Lines<BufReader<TcpStream>>,
}

impl Stream {
    /// Opens `/v1/stream` with a query and further headers; the status where it is refused.
    pub(super) async fn open(room: &Room, query: &str, headers: &[(&str, &str)]) -> Result<Self, u16> {
        let stream = open(room.http, "GET", &format!("/v1/stream?{query}"), headers, None).await;
        let mut lines = BufReader::new(stream).lines();
        let mut line = async || soon("a head", lines.next_line()).await.unwrap().unwrap();
        let status = line().await.split(' ').nth(1).unwrap().parse().unwrap();
        if status != 200 {
            return Err(status);
        }
        while !line().await.is_empty() {}
        Ok(Self { lines })
    }

    /// The next event: its id and its data. `None` at the stream's end.
    pub(super) async fn next(&mut self) -> Option<(i64, Value)> {
        let (mut id, mut data) = (None, None);
        loop {
            let line = soon("an event", self.lines.next_line()).await.ok()??;
            if let Some(said) = line.strip_prefix("id: ") {
                id = Some(said.parse().unwrap());
            } else if let Some(said) = line.strip_prefix("data: ") {
                data = Some(serde_json::from_str(said).unwrap());
            } else if line.is_empty()
                && let (Some(id), Some(data)) = (id, data.take())
            {
                return Some((id, data));
            }
        }
    }

    /// The last event of a stream that cannot go on: its data. The stream ends after it.
    pub(super) async fn error(&mut self) -> Value {
        let data = soon("an error and the end", async {
            let mut line = async || self.lines.next_line().await.unwrap();
            while line().await.expect("an error is told before the end") != "event: error" {}
            let data = line().await.expect("an error has data");
            while line().await.is_some() {}
            data
        });
        serde_json::from_str(data.await.strip_prefix("data: ").unwrap()).unwrap()
    }

    /// The next so many messages; their `msg_id`s.
    pub(super) async fn messages(&mut self, number: usize) -> Vec<String> {
        let mut ids = Vec::new();
        while ids.len() < number {
            let (_, message) = self.next().await.expect("the stream goes on");
            ids.push(message["msg_id"].as_str().unwrap().to_owned());
        }
        ids
    }
}

/// Rewrites what differs from run to run: identities become `M1`, `M2`… in the order in which they are first seen, times `NOW`
/// and what is added to it.
#[derive(Default)]
pub(super) struct Scribe(Vec<String>);

impl Scribe {
    /// The frame as it came, with what differs rewritten.
    pub(super) fn told(&mut self, frame: &str) -> String {
        let parsed: Value = serde_json::from_str(frame).unwrap();
        let mut text = frame.to_owned();
        self.rewrite(&parsed, &mut text);
        text
    }

    /// The text that stands for an identity.
    pub(super) fn id(&self, number: usize) -> &str {
        &self.0[number - 1]
    }

    fn rewrite(&mut self, value: &Value, text: &mut String) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.rewrite(item, text)),
            Value::Object(fields) => {
                if let Some(id) = fields.get("msg_id").and_then(Value::as_str)
                    && Uuid::parse_str(id).is_ok()
                {
                    if !self.0.iter().any(|known| known == id) {
                        self.0.push(id.to_owned());
                    }
                    let number = self.0.iter().position(|known| known == id).unwrap() + 1;
                    *text = text.replace(id, &format!("M{number}"));
                }
                let received = ["received_at", "at"].iter().find_map(|name| fields.get(*name));
                if let Some(received) = received {
                    let now =
                        chrono::DateTime::timestamp(&quipu::base::Clock::now(&quipu::base::SystemClock));
                    let at = received.as_i64().unwrap_or_else(|| {
                        let time = chrono::DateTime::parse_from_rfc3339(received.as_str().unwrap()).unwrap();
                        time.timestamp()
                    });
                    assert!((now - 60..=now).contains(&at), "{text}: {at}, now {now}");
                    *text = text.replace(&received.to_string(), "NOW");
                    if let Some(expires) = fields.get("expires_at").and_then(Value::as_i64) {
                        *text = text.replace(&expires.to_string(), &format!("NOW+{}", expires - at));
                    }
                }
                fields.values().for_each(|field| self.rewrite(field, text));
            }
            _ => {}
        }
    }
}
