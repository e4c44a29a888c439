//! A device of the model on a connection: a socket of either generation, or an event stream with separate
//! requests. It can disconnect in the middle of a frame. Every arrival is entered into the model at once.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use quipu::base::{Clock as _, SystemClock};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::state::Model;

/// Longest time until a connection is accepted.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// The model, shared by all connections.
pub(super) type Shared = Arc<Mutex<Model>>;

/// The clock of this machine, which is also the database's, in milliseconds.
pub(super) fn now_ms() -> i64 {
    SystemClock.now().timestamp_millis()
}

/// The identity of a connection.
#[derive(Debug, Clone)]
pub(super) struct Login {
    pub(super) wayfarer: String,
    /// Empty for a client of the first generation.
    pub(super) device: String,
}

/// An action of a connection.
#[derive(Debug)]
pub(super) enum Action {
    /// Sends a frame, or its HTTP request if the device has a stream.
    Frame(Value),
    /// Sends this many bytes of a frame, then resets the connection.
    Truncate(Value, usize),
    /// Sends a whole frame, then resets the connection before the reply.
    SendAndReset(Value),
    /// Closes the connection.
    Close,
    /// Resets the connection.
    Reset,
    /// Stops reading but keeps the connection open, so that the other end does not notice.
    Park,
}

/// A connection that is kept open without being read; dropping it closes it.
pub(super) type Parked = Box<dyn Send>;

/// A running connection. Dropping it resets it.
pub(super) struct Connection {
    act: UnboundedSender<Action>,
    task: JoinSet<Option<Parked>>,
}

impl Connection {
    /// Connects in the background as connection number `connection` of the model.
    pub(super) fn socket(address: SocketAddr, login: Login, model: &Shared, connection: usize) -> Self {
        let model = Arc::clone(model);
        Self::run(|actions| async move {
            let ended = socket(address, &login, &model, connection, actions).await;
            model.lock().unwrap().ended(connection);
            ended.ok().flatten()
        })
    }

    /// The same with server-sent events.
    pub(super) fn stream(address: SocketAddr, login: Login, model: &Shared, connection: usize) -> Self {
        let model = Arc::clone(model);
        Self::run(|actions| async move {
            let ended = stream(address, &login, &model, connection, actions).await;
            model.lock().unwrap().ended(connection);
            ended.ok().flatten()
        })
    }

    fn run<F>(task: impl FnOnce(UnboundedReceiver<Action>) -> F) -> Self
    where
        F: Future<Output = Option<Parked>> + Send + 'static,
    {
        let (act, actions) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(task(actions));
        Self { act, task: tasks }
    }

    /// Requests an action. A connection that has ended ignores it.
    pub(super) fn act(&self, what: Action) {
        let _ = self.act.send(what);
    }

    /// Whether the connection has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.act.is_closed()
    }

    /// Waits until the connection has ended after an action that ends it. Returns the parked connection, if
    /// there is one.
    pub(super) async fn ended(mut self) -> Option<Parked> {
        let ended = timeout(CONNECT_TIMEOUT * 2, self.task.join_next())
            .await
            .expect("a connection ends after the action");
        ended.and_then(|joined| joined.expect("a connection does not panic"))
    }
}

type Socket = WebSocketStream<TcpStream>;

fn io_error(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::other(why)
}

async fn connect_socket(address: SocketAddr, login: &Login) -> io::Result<Socket> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let connecting = tokio_tungstenite::client_async(format!("ws://{address}/ws"), stream);
    let (mut socket, _) = connecting.await.map_err(io_error)?;
    let mut hello = json!({ "type": "hello", "wayfarer_id": login.wayfarer });
    if !login.device.is_empty() {
        hello["device_id"] = json!(login.device);
    }
    socket.send(Message::text(hello.to_string())).await.map_err(io_error)?;
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => {
                let frame: Value = serde_json::from_str(&text).map_err(io_error)?;
                // An error means that the database is unavailable. A message would be a violation.
                assert_ne!(frame["type"], "message", "a message before hello_ok");
                return if frame["type"] == "hello_ok" {
                    Ok(socket)
                } else {
                    Err(io_error(text.to_string()))
                };
            }
            Some(Ok(_)) => {}
            other => return Err(io_error(format!("{other:?}"))),
        }
    }
}

async fn socket(
    address: SocketAddr,
    login: &Login,
    model: &Shared,
    connection: usize,
    mut actions: UnboundedReceiver<Action>,
) -> io::Result<Option<Parked>> {
    let mut socket = timeout(CONNECT_TIMEOUT, connect_socket(address, login)).await.map_err(io_error)??;
    model.lock().unwrap().greeted(connection);
    loop {
        tokio::select! {
            frame = socket.next() => match frame {
                Some(Ok(Message::Text(text))) => {
                    let frame = serde_json::from_str(&text).map_err(io_error)?;
                    model.lock().unwrap().frame(connection, &frame, now_ms());
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(None),
                Some(Ok(_)) => {}
            },
            act = actions.recv() => {
                let cut = match act {
                    Some(Action::Frame(frame)) => {
                        socket.send(Message::text(frame.to_string())).await.map_err(io_error)?;
                        continue;
                    }
                    Some(Action::Truncate(frame, bytes)) => {
                        let raw = raw_frame(&frame.to_string());
                        raw[..bytes.min(raw.len() - 1)].to_vec()
                    }
                    Some(Action::SendAndReset(frame)) => raw_frame(&frame.to_string()),
                    Some(Action::Close) => {
                        // Frames that are still in transit are not read.
                        let _ = socket.close(None).await;
                        return Ok(None);
                    }
                    Some(Action::Park) => return Ok(Some(Box::new(socket))),
                    Some(Action::Reset) | None => Vec::new(),
                };
                let stream = socket.get_mut();
                stream.write_all(&cut).await?;
                stream.flush().await?;
                // Sometimes with a pause: then the other end may read the bytes before the reset discards
                // them.
                if cut.len() % 2 == 0 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                stream.set_zero_linger()?;
                return Ok(None);
            }
        }
    }
}

/// A text frame of a client, with a zero mask.
fn raw_frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u16::try_from(text.len()).unwrap() {
        length @ 0..126 => frame.push(0x80 | u8::try_from(length).unwrap()),
        length => {
            frame.push(0xfe);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    frame
}

/// Sends a request. Returns the status, and the body if it is JSON.
async fn request(address: SocketAddr, head: &str, body: &str) -> io::Result<(u16, Value)> {
    let mut stream = TcpStream::connect(address).await?;
    let length = body.len();
    let text = format!(
        "{head} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| io_error("no answer"))?;
    let status =
        head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(|| io_error("no status"))?;
    Ok((status, serde_json::from_str(body).unwrap_or(Value::Null)))
}

async fn stream(
    address: SocketAddr,
    login: &Login,
    model: &Shared,
    connection: usize,
    mut actions: UnboundedReceiver<Action>,
) -> io::Result<Option<Parked>> {
    let query = format!("wayfarer_id={}&device_id={}", login.wayfarer, login.device);
    let mut stream = TcpStream::connect(address).await?;
    // The code does not decode chunks, so only the end of the connection shows the end of a stream.
    let head = format!("GET /v1/stream?{query} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut lines = BufReader::new(stream);
    let mut head = String::new();
    timeout(CONNECT_TIMEOUT, lines.read_line(&mut head)).await.map_err(io_error)??;
    if !head.contains(" 200 ") {
        return Err(io_error(head));
    }
    model.lock().unwrap().greeted(connection);
    // Requests are sent one after the other while the stream is read.
    let (requests_sender, mut requests) = mpsc::unbounded_channel::<Value>();
    let sending = async {
        while let Some(frame) = requests.recv().await {
            let (head, body) = as_request(&frame, &query);
            let answer = request(address, &head, &body).await;
            let arrived = now_ms();
            model.lock().unwrap().answered(connection, &frame, answer.ok(), arrived);
        }
    };
    let mut sending = std::pin::pin!(sending);
    let mut event = Vec::new();
    loop {
        tokio::select! {
            read = lines.read_until(b'\n', &mut event) => {
                if read? == 0 {
                    return Ok(None);
                }
                // The last event of a stream whose store cannot be read; its data is no message.
                if event.starts_with(b"event: error") {
                    return Ok(None);
                }
                if let Some(data) = event.strip_prefix(b"data:") {
                    let frame = serde_json::from_slice(data).map_err(io_error)?;
                    model.lock().unwrap().delivered(connection, &frame, now_ms());
                }
                event.clear();
            }
            () = &mut sending => return Ok(None),
            act = actions.recv() => match act {
                Some(Action::Frame(frame)) => requests_sender.send(frame).map_err(io_error)?,
                Some(Action::Truncate(frame, _) | Action::SendAndReset(frame)) => {
                    // The request is sent, but its response is not awaited.
                    let (head, body) = as_request(&frame, &query);
                    let _ = timeout(Duration::from_millis(1), request(address, &head, &body)).await;
                    return Ok(None);
                }
                Some(Action::Close) => return Ok(None),
                Some(Action::Park) => return Ok(Some(Box::new(lines))),
                Some(Action::Reset) | None => {
                    lines.get_ref().set_zero_linger()?;
                    return Ok(None);
                }
            }
        }
    }
}

/// The HTTP request that corresponds to a frame.
fn as_request(frame: &Value, query: &str) -> (String, String) {
    match frame["type"].as_str() {
        Some("send") => (format!("POST /v1/messages?{query}"), frame.to_string()),
        Some("ack") => {
            (format!("POST /v1/messages/{}/ack?{query}", frame["msg_id"].as_str().unwrap()), String::new())
        }
        _ => (format!("GET /v1/messages?{query}&limit=1000"), String::new()),
    }
}
