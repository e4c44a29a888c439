//! The loop that accepts connections, and the life of one connection.

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

use super::connections::{Bounds, Full, Place};
use super::guard::Peer;
use super::metrics::HttpMetrics;
use super::socket::Socket;
use crate::lifecycle::{BoxError, Lifecycle, Panicked, guarded};

/// Most fields in the head of a request; more are answered with 431.
const HEADERS_MAX: usize = 100;

/// Largest head of a request, in bytes; a larger one is answered with 431.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Largest read and write buffer of one connection, in bytes.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Pause after the system has refused to accept, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Time limits of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Until a request's head is complete.
    pub(super) header: Duration,
    /// How long a client may take nothing of what it is sent.
    pub(super) write: Duration,
}

/// One listener's server.
pub(super) struct Server {
    name: &'static str,
    router: Router,
    bounds: Bounds,
    limits: Limits,
    http1: http1::Builder,
    counted: HttpMetrics,
    lifecycle: Lifecycle,
    open: TaskTracker,
}

impl Server {
    pub(super) fn new(
        name: &'static str,
        router: Router,
        bounds: Bounds,
        limits: Limits,
        counted: HttpMetrics,
        lifecycle: Lifecycle,
    ) -> Arc<Self> {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header)
            .max_headers(HEADERS_MAX)
            .max_header_size(HEAD_BYTES_MAX)
            .max_buf_size(BUFFER_BYTES_MAX);
        Arc::new(Self { name, router, bounds, limits, http1, counted, lifecycle, open: TaskTracker::new() })
    }

    /// Accepts until the drain; returns when the last connection is closed.
    pub(super) async fn run(self: Arc<Self>, tcp: TcpListener) {
        let drain = self.lifecycle.drain_token();
        while let Some(accepted) = drain.run_until_cancelled(tcp.accept()).await {
            match accepted {
                Ok((stream, peer)) => self.take(stream, peer),
                // The client has gone before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.counted.refused(self.name, "accept");
                    tracing::warn!(listener = self.name, error = %error, "no connection is accepted: {error}");
                    drain.run_until_cancelled(sleep(ACCEPT_PAUSE)).await;
                }
            }
        }
        drop(tcp);
        self.open.close();
        self.open.wait().await;
    }

    fn take(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let connections = self.counted.connections(self.name);
        let place = match self.bounds.admit(peer.ip(), &self.open, connections) {
            Ok(place) => place,
            Err(full) => {
                self.counted.refused(self.name, full.reason());
                tracing::debug!(listener = self.name, peer = %peer, "a connection is refused: {}", full.reason());
                refuse(&stream, full);
                return;
            }
        };
        // A second small frame would else wait up to 40 ms for the client's TCP to confirm the first.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(listener = self.name, error = %error, "a connection keeps its delay");
        }
        let this = Arc::clone(self);
        self.lifecycle.spawn(self.name, async move {
            let subject = peer.to_string();
            let served = guarded("http_connection", &subject, this.connection(stream, peer, place)).await;
            this.closed(served);
            Ok::<(), BoxError>(())
        });
    }

    /// Serves one connection to its end, or until it is upgraded.
    async fn connection(&self, stream: TcpStream, peer: SocketAddr, place: Place) -> hyper::Result<()> {
        let (name, counted) = (self.name, self.counted.clone());
        let stalled = Box::new(move || counted.closed(name, "write_timeout"));
        let socket = Socket::new(stream, place, self.limits.write, stalled);
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

    /// Counts why a connection was closed, if it was not its client that closed it.
    fn closed(&self, served: Result<hyper::Result<()>, Panicked>) {
        let reason = match served {
            Ok(Ok(())) => return,
            Ok(Err(error)) if error.is_timeout() => "header_timeout",
            Ok(Err(error)) if error.is_parse_too_large() => "head_too_large",
            Ok(Err(error)) if error.is_parse() => "malformed",
            Ok(Err(error)) => {
                tracing::debug!(listener = self.name, error = %error, "a connection broke: {error}");
                return;
            }
            Err(_) => "panic",
        };
        self.counted.closed(self.name, reason);
    }
}

/// Says why, as far as the socket takes it at once, and closes the connection.
fn refuse(stream: &TcpStream, full: Full) {
    let code = full.reason();
    let body =
        format!(r#"{{"code":"{code}","message":"too many connections, try again later","retry_after_s":5}}"#);
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\nretry-after: 5\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    if let Err(error) = stream.try_write(answer.as_bytes()) {
        tracing::debug!(error = %error, "a refusal was not sent");
    }
}
