//! A stub relay on the loopback that answers HTTP and WebSocket on one port in a configurable way.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

/// Behaviour for REQ and EVENT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Answers every client, accepts events and sends them back.
    Honest,
    /// Answers after authentication with any key.
    WantsAnyKey,
    /// Refuses every key.
    WantsAnotherKey,
    /// Accepts events and does not send them back.
    Forgetful,
    /// Refuses events.
    ReadOnly,
    /// Accepts the first event of a session, and hangs up when it has received the second.
    HangsUp,
    /// Never answers.
    Silent,
}

/// The complete HTTP answer for the information document.
#[derive(Debug, Clone)]
pub(super) struct Page(Vec<u8>);

impl Page {
    pub(super) fn new(status: &str, content_type: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nServer: stub/1\r\nConnection: close\r\n\r\n",
            body.len()
        );
        Self([head.as_bytes(), body].concat())
    }

    pub(super) fn document(document: &Value) -> Self {
        Self::new("200 OK", "application/nostr+json", document.to_string())
    }

    pub(super) fn redirect(to: &str) -> Self {
        Self(
            format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                .into(),
        )
    }
}

#[derive(Debug, Default)]
struct Log {
    requests: AtomicUsize,
    sessions: AtomicUsize,
    events: Mutex<Vec<Value>>,
}

/// The running relay. Dropping it stops the relay.
pub(super) struct Stub {
    pub(super) address: SocketAddr,
    log: Arc<Log>,
    _tasks: JoinSet<()>,
}

impl Stub {
    pub(super) async fn start(manner: Manner, page: Page) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Log::default());
        let mut tasks = JoinSet::new();
        let seen = Arc::clone(&log);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (log, page) = (Arc::clone(&seen), page.clone());
                connections.spawn(async move { drop(serve(stream, manner, &page, &log).await) });
            }
        });
        Self { address, log, _tasks: tasks }
    }

    pub(super) async fn honest() -> Self {
        Self::start(Manner::Honest, Page::document(&json!({ "name": "stub" }))).await
    }

    pub(super) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Number of requests for its document.
    pub(super) fn requests(&self) -> usize {
        self.log.requests.load(Ordering::SeqCst)
    }

    /// Number of WebSocket sessions.
    pub(super) fn sessions(&self) -> usize {
        self.log.sessions.load(Ordering::SeqCst)
    }

    /// Every event it has received.
    pub(super) fn events(&self) -> Vec<Value> {
        self.log.events.lock().unwrap().clone()
    }
}

/// True if the request asks for a WebSocket. Peeks at the head without consuming it.
async fn wants_socket(stream: &TcpStream) -> std::io::Result<bool> {
    let mut head = [0; 2_048];
    loop {
        let length = stream.peek(&mut head).await?;
        let text = String::from_utf8_lossy(&head[..length]).to_lowercase();
        if text.contains("\r\n\r\n") || length == 0 {
            return Ok(text.contains("upgrade: websocket"));
        }
        tokio::task::yield_now().await;
    }
}

async fn serve(
    mut stream: TcpStream,
    manner: Manner,
    page: &Page,
    log: &Log,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    if !wants_socket(&stream).await? {
        log.requests.fetch_add(1, Ordering::SeqCst);
        let mut head = [0; 2_048];
        let _ = stream.read(&mut head).await?;
        stream.write_all(&page.0).await?;
        stream.shutdown().await?;
        return Ok(());
    }
    let mut socket = tokio_tungstenite::accept_async(stream).await?;
    log.sessions.fetch_add(1, Ordering::SeqCst);
    let mut is_known = !matches!(manner, Manner::WantsAnyKey | Manner::WantsAnotherKey);
    let (mut open, mut received): (Vec<Value>, usize) = (Vec::new(), 0);
    if !is_known {
        socket.send(Message::text(json!(["AUTH", "challenge"]).to_string())).await?;
    }
    while let Some(message) = socket.next().await {
        let Message::Text(text) = message? else { continue };
        let message: Value = serde_json::from_str(&text)?;
        let mut answers = Vec::new();
        match message[0].as_str() {
            _ if manner == Manner::Silent => {}
            Some("REQ") if !is_known => {
                answers.push(json!(["CLOSED", message[1], "auth-required: who are you"]));
            }
            Some("REQ") => {
                open.push(message[1].clone());
                answers.push(json!(["EOSE", message[1]]));
            }
            Some("AUTH") => {
                let is_own_host =
                    message[1]["kind"] == 22_242 && message[1]["tags"].to_string().contains("challenge");
                is_known = is_own_host && manner == Manner::WantsAnyKey;
                answers.push(json!([
                    "OK",
                    message[1]["id"],
                    is_known,
                    if is_known { "" } else { "restricted: not you" }
                ]));
            }
            Some("EVENT") => {
                log.events.lock().unwrap().push(message[1].clone());
                received += 1;
                if manner == Manner::HangsUp && received == 2 {
                    return Ok(());
                }
                let takes = is_known && manner != Manner::ReadOnly;
                let word = if takes { "" } else { "blocked: nobody writes here" };
                answers.push(json!(["OK", message[1]["id"], takes, word]));
                if takes && manner != Manner::Forgetful {
                    answers.extend(open.iter().map(|id| json!(["EVENT", id, message[1]])));
                }
            }
            _ => {}
        }
        for answer in answers {
            socket.send(Message::text(answer.to_string())).await?;
        }
    }
    Ok(())
}
