//! A device on the wire: a socket of either generation, or a stream with requests beside it. It breaks off as it is told, in the
//! middle of a frame if need be; whatever arrives goes to the ledger at once.

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

use super::ledger::Ledger;

/// Longest until a connection is welcome.
const WELCOME: Duration = Duration::from_secs(20);

/// The model, which all connections write into.
pub(super) type Shared = Arc<Mutex<Ledger>>;

/// The machine's clock, in milliseconds: the database's, too.
pub(super) fn now_ms() -> i64 {
    SystemClock.now().timestamp_millis()
}

/// Who connects.
#[derive(Debug, Clone)]
pub(super) struct Login {
    pub(super) wayfarer: String,
    /// Empty: a client of the first generation.
    pub(super) device: String,
}

/// What a connection is told to do.
#[derive(Debug)]
pub(super) enum Say {
    /// A frame, or a request of a stream's device.
    Frame(Value),
    /// So many bytes of a frame, and a reset.
    CutIn(Value, usize),
    /// A whole frame, and a reset before its answer is read.
    CutAfter(Value),
    /// An orderly end.
    Close,
    /// Reset.
    Reset,
    /// Nobody reads any more, and nobody says so: the other end goes on believing in it.
    Park,
}

/// A connection that this end has forgotten; dropping it closes it.
pub(super) type Parked = Box<dyn Send>;

/// A connection under way. Dropping it resets it.
pub(super) struct Link {
    say: UnboundedSender<Say>,
    task: JoinSet<Option<Parked>>,
}

impl Link {
    /// Connects in the background; number `link` of the ledger is its own.
    pub(super) fn socket(address: SocketAddr, login: Login, ledger: &Shared, link: usize) -> Self {
        let ledger = Arc::clone(ledger);
        Self::run(|told| async move {
            let ended = socket(address, &login, &ledger, link, told).await;
            ledger.lock().unwrap().ended(link);
            ended.ok().flatten()
        })
    }

    /// The same by server-sent events.
    pub(super) fn stream(address: SocketAddr, login: Login, ledger: &Shared, link: usize) -> Self {
        let ledger = Arc::clone(ledger);
        Self::run(|told| async move {
            let ended = stream(address, &login, &ledger, link, told).await;
            ledger.lock().unwrap().ended(link);
            ended.ok().flatten()
        })
    }

    fn run<F>(task: impl FnOnce(UnboundedReceiver<Say>) -> F) -> Self
    where
        F: Future<Output = Option<Parked>> + Send + 'static,
    {
        let (say, told) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(task(told));
        Self { say, task: tasks }
    }

    /// Tells it; a connection that has ended does not hear it.
    pub(super) fn say(&self, what: Say) {
        let _ = self.say.send(what);
    }

    /// Whether it has ended.
    pub(super) fn is_over(&self) -> bool {
        self.say.is_closed()
    }

    /// Waits until it has ended after it was told so; what was parked is handed over, to be held on to.
    pub(super) async fn ended(mut self) -> Option<Parked> {
        let ended =
            timeout(WELCOME * 2, self.task.join_next()).await.expect("a connection ends when it is told so");
        ended.and_then(|joined| joined.expect("a connection does not panic"))
    }
}

type Socket = WebSocketStream<TcpStream>;

fn broken(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::other(why)
}

async fn welcome(address: SocketAddr, login: &Login) -> io::Result<Socket> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let connecting = tokio_tungstenite::client_async(format!("ws://{address}/ws"), stream);
    let (mut socket, _) = connecting.await.map_err(broken)?;
    let mut hello = json!({ "type": "hello", "wayfarer_id": login.wayfarer });
    if !login.device.is_empty() {
        hello["device_id"] = json!(login.device);
    }
    socket.send(Message::text(hello.to_string())).await.map_err(broken)?;
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => {
                let frame: Value = serde_json::from_str(&text).map_err(broken)?;
                // An error is the store's that is away; a message would be a wrong.
                assert_ne!(frame["type"], "message", "a message before hello_ok");
                return if frame["type"] == "hello_ok" { Ok(socket) } else { Err(broken(text.to_string())) };
            }
            Some(Ok(_)) => {}
            other => return Err(broken(format!("{other:?}"))),
        }
    }
}

async fn socket(
    address: SocketAddr,
    login: &Login,
    ledger: &Shared,
    link: usize,
    mut told: UnboundedReceiver<Say>,
) -> io::Result<Option<Parked>> {
    let mut socket = timeout(WELCOME, welcome(address, login)).await.map_err(broken)??;
    ledger.lock().unwrap().welcomed(link);
    loop {
        tokio::select! {
            frame = socket.next() => match frame {
                Some(Ok(Message::Text(text))) => {
                    let frame = serde_json::from_str(&text).map_err(broken)?;
                    ledger.lock().unwrap().frame(link, &frame, now_ms());
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(None),
                Some(Ok(_)) => {}
            },
            say = told.recv() => {
                let cut = match say {
                    Some(Say::Frame(frame)) => {
                        socket.send(Message::text(frame.to_string())).await.map_err(broken)?;
                        continue;
                    }
                    Some(Say::CutIn(frame, bytes)) => {
                        let raw = raw_frame(&frame.to_string());
                        raw[..bytes.min(raw.len() - 1)].to_vec()
                    }
                    Some(Say::CutAfter(frame)) => raw_frame(&frame.to_string()),
                    Some(Say::Close) => {
                        // Whatever is still on its way is not read any more.
                        let _ = socket.close(None).await;
                        return Ok(None);
                    }
                    Some(Say::Park) => return Ok(Some(Box::new(socket))),
                    Some(Say::Reset) | None => Vec::new(),
                };
                let wire = socket.get_mut();
                wire.write_all(&cut).await?;
                wire.flush().await?;
                // With a pause or without: the other end may have read it before the reset takes it away.
                if cut.len() % 2 == 0 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                wire.set_zero_linger()?;
                return Ok(None);
            }
        }
    }
}

/// A text frame as a client writes it, masked with nothing.
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

/// A request of a device, and its answer: the status, and the body where it is JSON.
async fn request(address: SocketAddr, head: &str, body: &str) -> io::Result<(u16, Value)> {
    let mut wire = TcpStream::connect(address).await?;
    let length = body.len();
    let text = format!(
        "{head} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    wire.write_all(text.as_bytes()).await?;
    let mut answer = String::new();
    wire.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| broken("no answer"))?;
    let status =
        head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(|| broken("no status"))?;
    Ok((status, serde_json::from_str(body).unwrap_or(Value::Null)))
}

async fn stream(
    address: SocketAddr,
    login: &Login,
    ledger: &Shared,
    link: usize,
    mut told: UnboundedReceiver<Say>,
) -> io::Result<Option<Parked>> {
    let who = format!("wayfarer_id={}&device_id={}", login.wayfarer, login.device);
    let mut wire = TcpStream::connect(address).await?;
    // A stream that the service ends is seen by the end of its connection alone: nobody here reads chunks.
    let head = format!("GET /v1/stream?{who} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    wire.write_all(head.as_bytes()).await?;
    let mut lines = BufReader::new(wire);
    let mut head = String::new();
    timeout(WELCOME, lines.read_line(&mut head)).await.map_err(broken)??;
    if !head.contains(" 200 ") {
        return Err(broken(head));
    }
    ledger.lock().unwrap().welcomed(link);
    // Requests go one after the other, while the stream is read.
    let (ask, mut asked) = mpsc::unbounded_channel::<Value>();
    let asking = async {
        while let Some(frame) = asked.recv().await {
            let (head, body) = as_request(&frame, &who);
            let answer = request(address, &head, &body).await;
            let arrived = now_ms();
            ledger.lock().unwrap().answered(link, &frame, answer.ok(), arrived);
        }
    };
    let mut asking = std::pin::pin!(asking);
    let mut event = Vec::new();
    loop {
        tokio::select! {
            read = lines.read_until(b'\n', &mut event) => {
                if read? == 0 {
                    return Ok(None);
                }
                if let Some(data) = event.strip_prefix(b"data:") {
                    let frame = serde_json::from_slice(data).map_err(broken)?;
                    ledger.lock().unwrap().delivered(link, &frame, now_ms());
                }
                event.clear();
            }
            () = &mut asking => return Ok(None),
            say = told.recv() => match say {
                Some(Say::Frame(frame)) => ask.send(frame).map_err(broken)?,
                Some(Say::CutIn(frame, _) | Say::CutAfter(frame)) => {
                    // The request goes out, its answer is not waited for.
                    let (head, body) = as_request(&frame, &who);
                    let _ = timeout(Duration::from_millis(1), request(address, &head, &body)).await;
                    return Ok(None);
                }
                Some(Say::Close) => return Ok(None),
                Some(Say::Park) => return Ok(Some(Box::new(lines))),
                Some(Say::Reset) | None => {
                    lines.get_ref().set_zero_linger()?;
                    return Ok(None);
                }
            }
        }
    }
}

/// A frame as its twin over HTTP.
fn as_request(frame: &Value, who: &str) -> (String, String) {
    match frame["type"].as_str() {
        Some("send") => (format!("POST /v1/messages?{who}"), frame.to_string()),
        Some("ack") => {
            (format!("POST /v1/messages/{}/ack?{who}", frame["msg_id"].as_str().unwrap()), String::new())
        }
        _ => (format!("GET /v1/messages?{who}&limit=1000"), String::new()),
    }
}
