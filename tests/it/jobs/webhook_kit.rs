//! Receivers of webhooks, and rooms that send to them.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicI64, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, Mac as _};
use quipu::base::{Clock, SystemClock, WebhookKeys};
use quipu::config::JobWebhook;
use quipu::services::jobs::Secrets;
use quipu::services::jobs::command::Change;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::kit::{PDF, Room, fence, number};
use crate::support::database::TestDatabase;
use crate::support::proxy::eventually;

/// The key of the tests.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A status for a receiver that reads requests and never answers.
pub(super) const SILENT: u16 = 0;

/// A request that a receiver got.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) id: String,
    pub(super) timestamp: i64,
    signature: String,
    content_type: String,
    text: String,
}

impl Delivery {
    fn of(headers: &HeaderMap, body: &Bytes) -> Self {
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        Self {
            id: header("webhook-id"),
            timestamp: header("webhook-timestamp").parse().unwrap(),
            signature: header("webhook-signature"),
            content_type: header("content-type"),
            text: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    /// The body. The signature over it has to be right, and it says what the specification recommends.
    pub(super) fn verified(&self) -> Value {
        let key = STANDARD.decode(SECRET.strip_prefix("whsec_").unwrap()).unwrap();
        let mut hmac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        hmac.update(format!("{}.{}.{}", self.id, self.timestamp, self.text).as_bytes());
        let signature = self.signature.strip_prefix("v1,").unwrap();
        hmac.verify_slice(&STANDARD.decode(signature).unwrap()).unwrap();
        assert!(!self.id.contains('.') && self.content_type == "application/json", "{self:?}");
        let now = quipu::base::Clock::now(&quipu::base::SystemClock).timestamp();
        assert!((now - 60..=now).contains(&self.timestamp), "{self:?}");
        let body: Value = serde_json::from_str(&self.text).unwrap();
        assert_eq!(body["timestamp"], body["data"]["ended_at"], "{body}");
        body
    }
}

#[derive(Clone)]
struct Shared {
    status: Arc<AtomicU16>,
    got: Arc<Mutex<Vec<Delivery>>>,
}

/// A listener that answers each request with one status.
pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    shared: Shared,
    _server: JoinSet<()>,
}

impl Receiver {
    /// Starts one at any free port.
    pub(super) async fn start(status: u16) -> Self {
        Self::at(([127, 0, 0, 1], 0).into(), status).await
    }

    pub(super) async fn at(address: SocketAddr, status: u16) -> Self {
        let shared = Shared { status: Arc::new(AtomicU16::new(status)), got: Arc::default() };
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(answer).with_state(shared.clone());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, shared, _server: server }
    }

    /// Answers with another status from now on.
    pub(super) fn answer_with(&self, status: u16) {
        self.shared.status.store(status, Ordering::SeqCst);
    }

    /// The requests so far.
    pub(super) fn got(&self) -> Vec<Delivery> {
        self.shared.got.lock().unwrap().clone()
    }

    /// Waits for so many requests.
    pub(super) async fn got_at_least(&self, count: usize) -> Vec<Delivery> {
        eventually("the requests", async || self.got().len() >= count).await;
        self.got()
    }

    /// The setting that names it.
    pub(super) fn named(&self, name: &str) -> JobWebhook {
        named(name, self.address)
    }
}

async fn answer(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    shared.got.lock().unwrap().push(Delivery::of(&headers, &body));
    let status = shared.status.load(Ordering::SeqCst);
    if status == SILENT {
        std::future::pending::<()>().await;
    }
    // Whatever follows a redirect comes back here and is counted.
    (StatusCode::from_u16(status).unwrap(), [(LOCATION, "/elsewhere")], "noted")
}

/// The setting for a receiver of all ends of all jobs.
pub(super) fn named(name: &str, address: SocketAddr) -> JobWebhook {
    JobWebhook {
        name: name.to_owned(),
        url: format!("http://{address}/hooks?token=t"),
        types: Vec::new(),
        statuses: Vec::new(),
        attempts_max: NonZeroU32::new(20).unwrap(),
    }
}

/// A room with these receivers.
pub(super) async fn room(database: &TestDatabase, webhooks: &[JobWebhook]) -> Room {
    room_at(database, webhooks, Arc::new(SystemClock)).await
}

/// The same with a clock of the test.
pub(super) async fn room_at(database: &TestDatabase, webhooks: &[JobWebhook], clock: Arc<dyn Clock>) -> Room {
    let mut parts = Room::parts(&database.urls(), |settings| settings.webhooks = webhooks.to_vec());
    parts.clock = clock;
    let keys = WebhookKeys::parse(SECRET).unwrap();
    let external = Room::external(&parts, &Secrets { webhooks: Some(&keys), ..Secrets::default() });
    Room::open_with(parts, external).await
}

/// A clock that is late by so many seconds.
#[derive(Debug)]
pub(super) struct LateClock(pub(super) AtomicI64);

impl Clock for LateClock {
    fn now(&self) -> DateTime<Utc> {
        SystemClock.now() - TimeDelta::seconds(self.0.load(Ordering::SeqCst))
    }
}

/// A job of type `pdf` that was completed.
pub(super) async fn completed(room: &Room) -> i64 {
    room.submit(PDF).await;
    let claimed = room.claim("w", 1, 60).await.remove(0);
    let result = Some(json!({ "pages": 9 }));
    room.change(claimed.facts.job, Change::Complete { fence: fence(&claimed, "w"), result }).await.unwrap();
    claimed.facts.job
}

/// Waits until so many webhooks for a receiver have a status.
pub(super) async fn are(database: &TestDatabase, name: &str, status: &str, count: i64) {
    let counted = format!(
        "SELECT count(*) FROM job_states WHERE type = 'quipu.webhook.{name}' AND status = '{status}'"
    );
    eventually(&format!("{count} webhooks are {status}"), async || number(database, &counted).await == count)
        .await;
}

/// The number of the only webhook of a database.
pub(super) async fn only(database: &TestDatabase) -> i64 {
    number(database, "SELECT job FROM jobs WHERE type LIKE 'quipu.webhook.%'").await
}

/// Makes a failed webhook ready at once, as a person does.
pub(super) async fn retry(room: &Room, job: i64) {
    room.ok(&format!("/api/jobs/{job}/retry"), &json!({ "why": "the receiver is back" })).await;
}
