//! Accepts connections and serves each in a task.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::connections::{ConnectionLimits, ConnectionPermit, LimitReached};
use super::guard::Peer;
use super::metrics::HttpMetrics;
use super::socket::Socket;
use crate::lifecycle::{BoxError, Lifecycle, Panicked, guarded};

/// Header fields of a request; a request with more is answered with 431.
const HEADERS_MAX: usize = 100;

/// Largest head of a request, in bytes; a larger head is answered with 431.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Largest read and write buffer of one connection, in bytes.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Pause after a failed `accept`, for example without free descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Time limits of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// Time until the head of a request is complete.
    pub(super) header: Duration,
    /// Time that a client may leave sent data unread.
    pub(super) write: Duration,
}

/// The server of one listener.
pub(super) struct Server {
    name: &'static str,
    router: Router,
    limits: ConnectionLimits,
    timeouts: Timeouts,
    http1: http1::Builder,
    metrics: HttpMetrics,
    lifecycle: Lifecycle,
    open: TaskTracker,
    /// A field, with the end of its line, that refusals of connections have as well.
    refusal_field: &'static str,
}

impl Server {
    pub(super) fn new(
        name: &'static str,
        router: Router,
        limits: ConnectionLimits,
        timeouts: Timeouts,
        metrics: HttpMetrics,
        lifecycle: Lifecycle,
        refusal_field: &'static str,
    ) -> Arc<Self> {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(timeouts.header)
            .max_headers(HEADERS_MAX)
            .max_header_size(HEAD_BYTES_MAX)
            .max_buf_size(BUFFER_BYTES_MAX);
        let open = TaskTracker::new();
        Arc::new(Self { name, router, limits, timeouts, http1, metrics, lifecycle, open, refusal_field })
    }

    /// Accepts connections until the drain; returns when the last one is closed.
    pub(super) async fn run(self: Arc<Self>, tcp: TcpListener) {
        let drain = self.lifecycle.drain_token();
        while let Some(accepted) = drain.run_until_cancelled(tcp.accept()).await {
            match accepted {
                Ok((stream, peer)) => self.take(stream, peer),
                // The client disconnected before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.metrics.refused(self.name, "accept");
                    tracing::warn!(listener = self.name, "cannot accept connections, retrying: {error}");
                    drain.run_until_cancelled(sleep(ACCEPT_PAUSE)).await;
                }
            }
        }
        drop(tcp);
        self.open.close();
        self.open.wait().await;
    }

    fn take(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let connections = self.metrics.connections(self.name);
        let permit = match self.limits.admit(peer.ip(), &self.open, connections) {
            Ok(permit) => permit,
            Err(limit) => {
                self.metrics.refused(self.name, limit.reason());
                tracing::debug!(listener = self.name, peer = %peer, "a connection is refused: {}", limit.reason());
                refuse(&stream, limit, self.refusal_field);
                return;
            }
        };
        // Without this a second small frame waits up to 40 ms for the client's TCP to acknowledge the first
        // one.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(listener = self.name, error = %error, "cannot set TCP_NODELAY on a connection");
        }
        let this = Arc::clone(self);
        self.lifecycle.spawn(self.name, async move {
            let subject = peer.to_string();
            let served = guarded("http_connection", &subject, this.connection(stream, peer, permit)).await;
            this.closed(served);
            Ok::<(), BoxError>(())
        });
    }

    /// Serves one connection until it ends or is upgraded.
    async fn connection(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        permit: ConnectionPermit,
    ) -> hyper::Result<()> {
        let (name, metrics) = (self.name, self.metrics.clone());
        let stalled = Box::new(move || metrics.closed(name, "write_timeout"));
        let socket = Socket::new(stream, permit, self.timeouts.write, stalled);
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer.ip()));
            self.router.clone().oneshot(request)
        });
        let mut connection = pin!(self.http1.serve_connection(TokioIo::new(socket), service).with_upgrades());
        let drain = self.lifecycle.drain_token();
        tokio::select! {
            served = connection.as_mut() => served,
            () = drain.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    }

    /// Counts the reason for which the server closed a connection.
    fn closed(&self, served: Result<hyper::Result<()>, Panicked>) {
        let reason = match served {
            Ok(Ok(())) => return,
            Ok(Err(error)) if error.is_timeout() => "header_timeout",
            Ok(Err(error)) if error.is_parse_too_large() => "head_too_large",
            Ok(Err(error)) if error.is_parse() => "malformed",
            Ok(Err(error)) => {
                tracing::debug!(listener = self.name, "a connection broke: {error}");
                return;
            }
            Err(_) => "panic",
        };
        self.metrics.closed(self.name, reason);
    }
}

/// Sends a 503 response without waiting for the client, and closes the connection.
fn refuse(stream: &TcpStream, limit: LimitReached, field: &str) {
    let code = limit.reason();
    let body =
        format!(r#"{{"code":"{code}","message":"too many connections, try again later","retry_after_s":5}}"#);
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\nretry-after: 5\r\n{field}\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    if let Err(error) = stream.try_write(answer.as_bytes()) {
        tracing::debug!(error = %error, "cannot send a refusal");
    }
}
