//! Listeners and what surrounds every router. A listener is bound first and handed over, so its port is
//! known (0 works), and an occupied one is refused before anything has begun.

use std::future::IntoFuture as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::serve::{ListenerExt as _, TapIo};
use tokio::net::{TcpListener, TcpStream};
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;

use crate::lifecycle::Lifecycle;

/// Why nothing can listen there.
#[derive(Debug, thiserror::Error)]
#[error("{address} cannot be listened on; `{setting}`, or --port-base of `quipu up`, takes another one")]
pub struct BindError {
    /// The setting that names the address.
    pub setting: &'static str,
    /// The address that was asked for.
    pub address: SocketAddr,
    #[source]
    source: io::Error,
}

/// Binds the address that `setting` names.
///
/// # Errors
/// When it is taken, not of this machine, or not permitted.
pub async fn bind(setting: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError { setting, address, source })
}

/// Adds a span for each request (method and path, never the query: it may hold a token) and the longest
/// time until an answer begins, after which it is 503. A stream that has begun is not cut.
pub fn with_edge_layers(router: Router, request_timeout: Duration) -> Router {
    let trace = TraceLayer::new_for_http()
        .make_span_with(|request: &Request| {
            tracing::info_span!("request", http.method = %request.method(), http.path = request.uri().path())
        })
        // `Failure::Internal` has logged the reason; a second line would add nothing.
        .on_failure(());
    let timeout = TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, request_timeout);
    router.layer(timeout).layer(trace)
}

/// Serves `router` as the task `name` until the drain, then finishes the requests under way. An answer
/// that streams without end must watch the drain itself, or the grace time ends it.
pub fn serve(lifecycle: &Lifecycle, name: &str, listener: TcpListener, router: Router) {
    let drain = lifecycle.drain_token().cancelled_owned();
    lifecycle.spawn(name, axum::serve(prompt(listener), router).with_graceful_shutdown(drain).into_future());
}

/// As [`serve`], for routes that ask who is at the other end ([`ConnectInfo`](axum::extract::ConnectInfo)).
pub fn serve_with_addresses(lifecycle: &Lifecycle, name: &str, listener: TcpListener, router: Router) {
    let drain = lifecycle.drain_token().cancelled_owned();
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    lifecycle.spawn(name, axum::serve(prompt(listener), service).with_graceful_shutdown(drain).into_future());
}

/// What is written leaves at once: a second small frame would else wait up to 40 ms for the client's TCP to confirm the first.
fn prompt(listener: TcpListener) -> TapIo<TcpListener, fn(&mut TcpStream)> {
    listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(error = %error, "a connection keeps its delay");
        }
    })
}
