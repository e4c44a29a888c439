//! The service in the test's process, and clients of it. Every wait has a deadline.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use quipu::app::Parts;
use quipu::config::{self, Settings};
use quipu::lifecycle::Lifecycle;
use quipu::services::messages;
use quipu::services::messages::metrics::MessageMetrics;
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

/// Longest wait before a test fails.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// Waits for a future, at most for [`DEADLINE`].
pub(super) async fn within_deadline<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("timed out waiting for: {what}"))
}

/// The result of a query for one number.
pub(super) async fn number(database: &TestDatabase, sql: &str) -> i64 {
    database.owner().await.query_one(sql, &[]).await.unwrap().get(0)
}

/// A `wayfarer_id` of the second generation.
pub(crate) fn wayfarer(number: u8) -> String {
    hex::encode([number; 32])
}

/// The service as one process runs it. Dropping it drains it.
pub(super) struct Room {
    pub(super) parts: Parts,
    pub(super) ws: SocketAddr,
    pub(super) http: SocketAddr,
}

impl Room {
    /// Starts the service on a test's database.
    pub(super) async fn on(database: &TestDatabase) -> Self {
        Self::with(database, |_| {}).await
    }

    /// Starts it with changed settings.
    pub(super) async fn with(database: &TestDatabase, change: impl FnOnce(&mut config::Messages)) -> Self {
        Self::through(&database.urls(), change).await
    }

    /// Starts it with the given URLs, which may lead through a proxy.
    pub(super) async fn through(urls: &DatabaseUrls, change: impl FnOnce(&mut config::Messages)) -> Self {
        Self::open(Self::parts(urls, change)).await
    }

    /// The parts of the service before it starts.
    pub(super) fn parts(urls: &DatabaseUrls, change: impl FnOnce(&mut config::Messages)) -> Parts {
        let mut settings = Settings::default();
        let messages = &mut settings.services.messages;
        messages.ws_address = Some(([127, 0, 0, 1], 0).into());
        messages.http_address = Some(([127, 0, 0, 1], 0).into());
        // Short, because a partition is created for each hour at the start.
        messages.max_ttl_s = 7_200.try_into().unwrap();
        change(messages);
        Parts::open(urls, settings, Lifecycle::new(Duration::from_secs(5)), Metrics::new("test")).unwrap()
    }

    /// Starts the service from its parts.
    pub(super) async fn open(parts: Parts) -> Self {
        let metrics = MessageMetrics::default();
        parts.metrics.register(|registry| metrics.register(registry));
        let mut addresses = BTreeMap::new();
        messages::start(&parts, metrics, &mut addresses).await.unwrap();
        let [ws, http] = ["messages", "messages-http"].map(|name| addresses[name].parse().unwrap());
        Self { parts, ws, http }
    }

    /// A socket that has sent nothing yet.
    pub(super) async fn connect(&self) -> Client {
        Client::connect(self.ws, &[]).await
    }

    /// A client of the first generation that has been accepted.
    pub(super) async fn one(&self, wayfarer: &str) -> Client {
        let mut client = self.connect().await;
        let answer = client.request(json!({ "type": "hello", "wayfarer_id": wayfarer })).await;
        assert_eq!(answer, json!({ "type": "hello_ok" }));
        client
    }

    /// A client of the second generation that has been accepted.
    pub(super) async fn two(&self, wayfarer: &str, device: &str) -> Client {
        let mut client = self.connect().await;
        client.hello(wayfarer, device).await;
        client
    }

    /// The same with a small receive buffer, so that a client that does not read blocks its sender early.
    pub(super) async fn two_with_small_buffer(&self, wayfarer: &str, device: &str) -> Client {
        let tcp = TcpSocket::new_v4().unwrap();
        tcp.set_recv_buffer_size(4_096).unwrap();
        let stream = within_deadline("a connection", tcp.connect(self.ws)).await.unwrap();
        let mut client = Client::on(stream, &[]).await.unwrap_or_else(|status| panic!("{status}"));
        client.hello(wayfarer, device).await;
        client
    }

    /// Sends a GET request. Returns the status and the body, as JSON if it is JSON.
    pub(super) async fn get(&self, path: &str) -> (u16, Value) {
        http(self.http, "GET", path, &[], None).await
    }

    /// Sends a POST request.
    pub(super) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        http(self.http, "POST", path, &[], Some(body)).await
    }

    /// The value of a metric in `/metrics`.
    pub(super) async fn metric(&self, name: &str) -> u64 {
        let (status, text) = self.get("/metrics").await;
        assert_eq!(status, 200);
        let text = text.as_str().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().unwrap()
    }

    /// Shuts the service down as a signal does, and waits for the end.
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
    /// Connects with further headers.
    pub(super) async fn connect(address: SocketAddr, headers: &[(&'static str, &str)]) -> Self {
        Self::try_connect(address, headers).await.unwrap_or_else(|status| panic!("HTTP status {status}"))
    }

    /// Connects; the HTTP status if the handshake is refused.
    pub(super) async fn try_connect(
        address: SocketAddr,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, u16> {
        let stream = within_deadline("a connection", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::on(stream, headers).await
    }

    /// Performs the handshake on an existing connection.
    pub(super) async fn on(stream: TcpStream, headers: &[(&'static str, &str)]) -> Result<Self, u16> {
        let mut request = format!("ws://{}/ws", stream.peer_addr().unwrap()).into_client_request().unwrap();
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).unwrap();
            request.headers_mut().insert(HeaderName::from_static(name), value);
        }
        match within_deadline("the handshake", client_async(request, stream)).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// Sends `hello` of the second generation and is accepted.
    pub(super) async fn hello(&mut self, wayfarer: &str, device: &str) {
        let hello = json!({ "type": "hello", "wayfarer_id": wayfarer, "device_id": device });
        assert_eq!(self.request(hello).await, json!({ "type": "hello_ok", "relay_id": "quipu" }));
    }

    /// Sends one WebSocket message.
    pub(super) async fn send_message(&mut self, message: Message) {
        within_deadline("a message to be sent", self.0.send(message)).await.unwrap();
    }

    /// Sends a text frame.
    pub(super) async fn send_text(&mut self, text: impl Into<String>) {
        self.send_message(Message::text(text.into())).await;
    }

    /// Sends a text frame to a relay that may close the connection.
    pub(super) async fn try_send_text(&mut self, text: impl Into<String>) {
        let _ = within_deadline("a message to be sent", self.0.send(Message::text(text.into()))).await;
    }

    /// Sends one WebSocket message to a relay that may close the connection. Returns whether it was sent.
    pub(super) async fn try_send_message(&mut self, message: Message) -> bool {
        within_deadline("a message to be sent or refused", self.0.send(message)).await.is_ok()
    }

    /// Sends a text frame to a relay that may close the connection. Returns the next frame, if there is one.
    pub(super) async fn try_request(&mut self, text: &str) -> Option<Value> {
        self.try_send_text(text).await;
        self.next_text().await.map(|text| serde_json::from_str(&text).unwrap())
    }

    /// Reads while it sends a text that the relay refuses. Returns the refusal and the code of the close
    /// frame.
    pub(super) async fn send_text_while_reading(&mut self, text: String) -> (Value, Option<u16>) {
        let (mut sender, mut receiver) = (&mut self.0).split();
        let reply = async {
            let Some(Ok(Message::Text(text))) = receiver.next().await else { panic!("no refusal") };
            let Some(Ok(Message::Close(close_frame))) = receiver.next().await else {
                panic!("no close frame")
            };
            (serde_json::from_str(&text).unwrap(), close_frame.map(|frame| frame.code.into()))
        };
        // The send ends when the relay closes the connection.
        let (_sent, reply) =
            within_deadline("a refusal", async { tokio::join!(sender.send(Message::text(text)), reply) })
                .await;
        reply
    }

    /// The next text frame, unparsed; pings are skipped. `None` when the relay has closed the connection.
    pub(super) async fn next_text(&mut self) -> Option<String> {
        loop {
            match within_deadline("a frame", self.0.next()).await {
                Some(Ok(Message::Text(text))) => return Some(text.as_str().to_owned()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(other)) => panic!("{other:?}"),
            }
        }
    }

    /// The next frame, parsed.
    pub(super) async fn next(&mut self) -> Value {
        let text = self.next_text().await.expect("the relay does not close");
        serde_json::from_str(&text).unwrap()
    }

    /// Sends a frame and returns the next one.
    pub(super) async fn request(&mut self, frame: Value) -> Value {
        self.send_text(frame.to_string()).await;
        self.next().await
    }

    /// Waits until the relay closes the connection, skipping frames. Returns the code of the close frame, if
    /// there was one.
    pub(super) async fn closed(&mut self) -> Option<u16> {
        loop {
            match within_deadline("the end", self.0.next()).await {
                Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
                Some(Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// All frames before the reply to a request sent now. Messages committed before are pushed before it.
    pub(super) async fn pending_frames(&mut self) -> Vec<Value> {
        self.send_text(r#"{"type":"is anything there"}"#).await;
        let mut frames = Vec::new();
        loop {
            let frame = self.next().await;
            if frame["type"] == "error" {
                return frames;
            }
            frames.push(frame);
        }
    }

    /// Asserts that no frame is pending.
    pub(super) async fn expect_no_frames(&mut self) {
        assert_eq!(self.pending_frames().await, Vec::<Value>::new());
    }

    /// Sends a message that is accepted. Returns its `msg_id`.
    pub(super) async fn send(&mut self, to: &str, payload_b64: &str) -> String {
        let frame = json!({ "type": "send", "to": to, "payload_b64": payload_b64 });
        self.send_frame(frame).await["msg_id"].as_str().unwrap().to_owned()
    }

    /// Sends a message that is accepted. Returns the reply.
    pub(super) async fn send_frame(&mut self, frame: Value) -> Value {
        let answer = self.request(frame).await;
        assert_eq!(answer["type"], "send_ok", "{answer}");
        answer
    }

    /// Sends a message again until the recipient's inbox has room. Returns its `msg_id`. A full inbox is
    /// counted once a second.
    pub(super) async fn send_when_there_is_room(&mut self, frame: Value) -> String {
        let sent = async {
            loop {
                let answer = self.request(frame.clone()).await;
                if answer["code"] != "RATE_LIMITED" {
                    break answer["msg_id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        within_deadline("room in the inbox", sent).await
    }

    /// Sends one message for each payload, many at a time. Returns their `msg_id`s in the same order.
    pub(super) async fn send_all(&mut self, to: &str, payloads: &[String]) -> Vec<String> {
        let mut ids = Vec::new();
        for chunk in payloads.chunks(50) {
            for payload in chunk {
                self.send_text(json!({ "type": "send", "to": to, "payload_b64": payload }).to_string()).await;
            }
            for _ in chunk {
                let answer = self.next().await;
                assert_eq!(answer["type"], "send_ok", "{answer}");
                ids.push(answer["msg_id"].as_str().unwrap().to_owned());
            }
        }
        ids
    }

    /// Expects `number` messages as the next frames. Returns their `msg_id`s.
    pub(super) async fn messages(&mut self, number: usize) -> Vec<String> {
        let mut ids = Vec::new();
        while ids.len() < number {
            ids.push(self.message().await);
        }
        ids
    }

    /// Acknowledges a message.
    pub(super) async fn acknowledge(&mut self, msg_id: &str) {
        let answer = self.request(json!({ "type": "ack", "msg_id": msg_id })).await;
        assert_eq!(answer, json!({ "type": "ack_ok", "msg_id": msg_id }));
    }

    /// Expects a message as the next frame and acknowledges it.
    pub(super) async fn acknowledge_first(&mut self, msg_id: &str) {
        assert_eq!(self.message().await, msg_id);
        self.acknowledge(msg_id).await;
    }

    /// Expects a message as the next frame. Returns its `msg_id`.
    pub(super) async fn message(&mut self) -> String {
        let frame = self.next().await;
        assert_eq!(frame["type"], "message", "{frame}");
        frame["msg_id"].as_str().unwrap().to_owned()
    }

    /// Pulls messages. Returns their `msg_id`s.
    pub(super) async fn pull(&mut self, limit: u32) -> Vec<String> {
        let answer = self.request(json!({ "type": "pull", "limit": limit })).await;
        assert_eq!(answer["type"], "messages", "{answer}");
        let listed = answer["messages"].as_array().into_iter().flatten();
        listed.map(|message| message["msg_id"].as_str().unwrap().to_owned()).collect()
    }
}

/// Sends one request on its own connection. A body that is not JSON is returned as a string.
pub(crate) async fn http(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> (u16, Value) {
    let answer = within_deadline(path, async {
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

/// Sends a request. The caller reads the response until the relay closes the connection.
pub(super) async fn open(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> TcpStream {
    let body = body.map(Value::to_string).unwrap_or_default();
    // HTTP/1.0, so that the response is not chunked and ends with the connection.
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
    /// Opens `/v1/stream` with a query and further headers; the status if it is refused.
    pub(super) async fn open(room: &Room, query: &str, headers: &[(&str, &str)]) -> Result<Self, u16> {
        let stream = open(room.http, "GET", &format!("/v1/stream?{query}"), headers, None).await;
        let mut lines = BufReader::new(stream).lines();
        let mut line = async || within_deadline("a head", lines.next_line()).await.unwrap().unwrap();
        let status = line().await.split(' ').nth(1).unwrap().parse().unwrap();
        if status != 200 {
            return Err(status);
        }
        while !line().await.is_empty() {}
        Ok(Self { lines })
    }

    /// The next event: its id and its data. `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> Option<(i64, Value)> {
        let (mut id, mut data) = (None, None);
        loop {
            let line = within_deadline("an event", self.lines.next_line()).await.ok()??;
            if let Some(text) = line.strip_prefix("id: ") {
                id = Some(text.parse().unwrap());
            } else if let Some(text) = line.strip_prefix("data: ") {
                data = Some(serde_json::from_str(text).unwrap());
            } else if line.is_empty()
                && let (Some(id), Some(data)) = (id, data.take())
            {
                return Some((id, data));
            }
        }
    }

    /// The data of the last event of a stream that failed. The stream ends after it.
    pub(super) async fn error(&mut self) -> Value {
        let data = within_deadline("an error and the end", async {
            let mut line = async || self.lines.next_line().await.unwrap();
            while line().await.expect("an error event comes before the end") != "event: error" {}
            let data = line().await.expect("an error has data");
            while line().await.is_some() {}
            data
        });
        serde_json::from_str(data.await.strip_prefix("data: ").unwrap()).unwrap()
    }

    /// Expects `number` messages. Returns their `msg_id`s.
    pub(super) async fn messages(&mut self, number: usize) -> Vec<String> {
        let mut ids = Vec::new();
        while ids.len() < number {
            let (_, message) = self.next().await.expect("the stream goes on");
            ids.push(message["msg_id"].as_str().unwrap().to_owned());
        }
        ids
    }
}

/// Replaces the values that differ between runs: ids become `M1`, `M2`… in the order in which they appear,
/// times become `NOW` plus an offset.
#[derive(Default)]
pub(super) struct Normalizer(Vec<String>);

impl Normalizer {
    /// The frame with these values replaced.
    pub(super) fn normalize(&mut self, frame: &str) -> String {
        let parsed: Value = serde_json::from_str(frame).unwrap();
        let mut text = frame.to_owned();
        self.rewrite(&parsed, &mut text);
        text
    }

    /// The id for which `M{number}` stands.
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
