//! Blossom servers on loopback, in the process of the bench: they take what they get as fast as they can.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::content::sha256;

/// What becomes of bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// They are kept and can be read.
    Bodies,
    /// Only the length of the newest one is, and every blob is said to have it: for bodies larger than the memory.
    Lengths,
}

/// A running server. Dropping it stops it.
pub(crate) struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

struct Shared {
    keeping: Keeping,
    bodies: Mutex<HashMap<String, Bytes>>,
    length: AtomicU64,
}

impl Upstream {
    /// Starts three of them.
    pub(crate) async fn three(keeping: Keeping) -> [Self; 3] {
        [Self::start(keeping).await, Self::start(keeping).await, Self::start(keeping).await]
    }

    async fn start(keeping: Keeping) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared { keeping, bodies: Mutex::default(), length: AtomicU64::new(0) });
        let app = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let mut task = JoinSet::new();
        task.spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        Self { address, shared, _task: task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many blobs it has.
    pub(crate) fn count(&self) -> usize {
        self.shared.bodies().len()
    }

    /// Loses all blobs.
    pub(crate) fn wipe(&self) {
        self.shared.bodies().clear();
    }
}

impl Shared {
    fn bodies(&self) -> MutexGuard<'_, HashMap<String, Bytes>> {
        self.bodies.lock().expect("no holder panics")
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let hash: String = request.uri().path().trim_start_matches('/').chars().take(64).collect();
    match *request.method() {
        Method::PUT => put(&shared, request.into_body()).await,
        Method::GET | Method::HEAD if shared.keeping == Keeping::Bodies => {
            let body = shared.bodies().get(&hash).cloned();
            body.map_or_else(|| StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response)
        }
        Method::HEAD => ([(CONTENT_LENGTH, shared.length.load(Ordering::Relaxed))], ()).into_response(),
        Method::DELETE => {
            shared.bodies().remove(&hash);
            StatusCode::OK.into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn put(shared: &Shared, body: Body) -> Response {
    let mut pieces = body.into_data_stream();
    let (mut kept, mut length) = (Vec::new(), 0_u64);
    while let Some(piece) = pieces.next().await {
        let Ok(piece) = piece else { return StatusCode::BAD_REQUEST.into_response() };
        length += piece.len() as u64;
        if shared.keeping == Keeping::Bodies {
            kept.extend_from_slice(&piece);
        }
    }
    if shared.keeping == Keeping::Lengths {
        shared.length.store(length, Ordering::Relaxed);
        return StatusCode::OK.into_response();
    }
    let hash = sha256(&kept);
    let descriptor = format!(
        r#"{{"url":"http://127.0.0.1/{hash}","sha256":"{hash}","size":{length},"type":"application/octet-stream","uploaded":0}}"#
    );
    shared.bodies().insert(hash, Bytes::from(kept));
    (StatusCode::CREATED, [(CONTENT_TYPE, "application/json")], descriptor).into_response()
}
