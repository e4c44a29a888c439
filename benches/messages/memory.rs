//! A relay that keeps everything in memory. It shows what the load generator can do when nothing is stored,
//! and checks its frames.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::accept_async_with_config;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::client::{kind_of, text_of};
use super::helper::Work;

/// Most frames queued for a socket.
const FRAMES_MAX: usize = 1_024;

/// A recipient: its socket and its unacknowledged messages.
#[derive(Default)]
struct Mailbox {
    socket: Option<mpsc::Sender<String>>,
    queued: VecDeque<(String, String)>,
}

#[derive(Default)]
struct State {
    mailboxes: HashMap<String, Mailbox>,
    messages: u64,
}

type Shared = Arc<Mutex<State>>;

/// Listens on a free port and reports the address.
pub(crate) async fn serve() -> Work {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let ready_line = listener.local_addr().expect("bound").to_string();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let state = Shared::default();
        let mut sockets = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.expect("open files are left");
            stream.set_nodelay(true).expect("a TCP socket");
            sockets.spawn(serve_client(stream, Arc::clone(&state)));
        }
    });
    Work { ready_line, tasks }
}

async fn serve_client(stream: TcpStream, state: Shared) {
    let config = WebSocketConfig::default().read_buffer_size(4_096).write_buffer_size(4_096);
    let Ok(socket) = accept_async_with_config(stream, Some(config)).await else { return };
    let (mut writer, mut reader) = socket.split();
    let (frames, mut outgoing) = mpsc::channel::<String>(FRAMES_MAX);
    let writing = async {
        while let Some(frame) = outgoing.recv().await {
            if writer.send(Message::text(frame)).await.is_err() {
                return;
            }
        }
    };
    let reading = async {
        let mut wayfarer = String::new();
        while let Some(Ok(Message::Text(frame))) = reader.next().await {
            if kind_of(&frame) == "hello" {
                text_of(&frame, "\"wayfarer_id\":\"").clone_into(&mut wayfarer);
            }
            for (to, reply) in handle_frame(&frame, &wayfarer, &state, &frames) {
                let _ = to.send(reply).await;
            }
        }
    };
    tokio::select! {
        () = writing => {}
        () = reading => {}
    }
}

/// Executes a frame. Returns the frames to send, each with its socket.
fn handle_frame(
    frame: &str,
    wayfarer: &str,
    state: &Shared,
    socket: &mpsc::Sender<String>,
) -> Vec<(mpsc::Sender<String>, String)> {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let reply = |frame: String| (socket.clone(), frame);
    match kind_of(frame) {
        "hello" => {
            let mailbox = state.mailboxes.entry(wayfarer.to_owned()).or_default();
            mailbox.socket = Some(socket.clone());
            let queued = mailbox.queued.iter().map(|(_, message)| reply(pushed(message)));
            std::iter::once(reply(r#"{"type":"hello_ok","relay_id":"memory"}"#.to_owned()))
                .chain(queued)
                .collect()
        }
        "send" => {
            state.messages += 1;
            let msg_id = format!("{:032x}", state.messages);
            let payload = text_of(frame, "\"payload_b64\":\"");
            let message = format!(
                r#""msg_id":"{msg_id}","from":"{wayfarer}","payload_b64":"{payload}","received_at":1"#
            );
            let to = text_of(frame, "\"to\":\"");
            let mailbox = state.mailboxes.entry(to.to_owned()).or_default();
            let push = mailbox.socket.clone().map(|socket| (socket, pushed(&message)));
            mailbox.queued.push_back((msg_id.clone(), message));
            let ok = format!(r#"{{"type":"send_ok","msg_id":"{msg_id}","received_at":1,"expires_at":2}}"#);
            std::iter::once(reply(ok)).chain(push).collect()
        }
        "ack" => {
            let msg_id = text_of(frame, "\"msg_id\":\"");
            let mailbox = state.mailboxes.entry(wayfarer.to_owned()).or_default();
            if let Some(index) = mailbox.queued.iter().position(|(queued, _)| queued == msg_id) {
                mailbox.queued.remove(index);
            }
            vec![reply(format!(r#"{{"type":"ack_ok","msg_id":"{msg_id}"}}"#))]
        }
        "pull" => {
            let queued = state.mailboxes.get(wayfarer).into_iter().flat_map(|mailbox| mailbox.queued.iter());
            let mut list = String::new();
            for (_, message) in queued.take(100) {
                let comma = if list.is_empty() { "" } else { "," };
                let _ = write!(list, "{comma}{{{message}}}");
            }
            vec![reply(format!(r#"{{"type":"messages","messages":[{list}]}}"#))]
        }
        kind => vec![reply(format!(r#"{{"type":"error","code":"INVALID_PAYLOAD","message":"{kind}"}}"#))],
    }
}

fn pushed(message: &str) -> String {
    format!(r#"{{"type":"message",{message}}}"#)
}
