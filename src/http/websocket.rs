//! WebSocket upgrades. A message's length is bounded before it is buffered, and the bound can be raised later: a client that has
//! not proven who it is may hold little memory.

mod bound;

use std::net::IpAddr;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

pub use bound::{Bounded, MessageTooLong};
pub use tokio_tungstenite::tungstenite::protocol::CloseFrame;
pub use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
pub use tokio_tungstenite::tungstenite::{Error as SocketError, Message as SocketMessage};

use super::{Failure, Rejection};
use crate::lifecycle::{BoxError, Lifecycle, guarded};

/// A server's WebSocket. `get_mut().set_limit(bytes)` changes how long a message may be.
pub type ServerSocket = WebSocketStream<Bounded<TokioIo<Upgraded>>>;

/// A request that becomes a WebSocket (RFC 6455, 4.2).
#[derive(Debug)]
pub struct SocketUpgrade {
    answer: Response,
    upgrading: OnUpgrade,
}

impl<S: Send + Sync> FromRequestParts<S> for SocketUpgrade {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let expected = |why: String| {
            Rejection::new(StatusCode::UPGRADE_REQUIRED, format!("a WebSocket handshake is expected: {why}"))
                .field("upgrade")
        };
        let mut request = Request::new(());
        request.method_mut().clone_from(&parts.method);
        *request.version_mut() = parts.version;
        request.headers_mut().clone_from(&parts.headers);
        let answer =
            create_response_with_body(&request, Body::empty).map_err(|error| expected(error.to_string()))?;
        let upgrading = parts.extensions.remove::<OnUpgrade>();
        let upgrading = upgrading.ok_or_else(|| expected("this connection cannot be upgraded".to_owned()))?;
        Ok(Self { answer, upgrading })
    }
}

impl SocketUpgrade {
    /// Runs `session` on the socket once the client has the answer, which is returned. `buffer` bytes are kept for reading, and a
    /// message may have up to `limit` bytes until the session changes that. A session that panics ends alone; `client` is its
    /// address, for the log.
    pub fn serve<F>(
        self,
        lifecycle: &Lifecycle,
        client: IpAddr,
        buffer: usize,
        limit: usize,
        session: impl FnOnce(ServerSocket) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Self { answer, upgrading } = self;
        let subject = client.to_string();
        // On the heap: each layer around it would otherwise hold its size, some of them twice, for every connection.
        let serve = Box::pin(async move {
            let upgraded = match upgrading.await {
                Ok(upgraded) => upgraded,
                Err(error) => {
                    tracing::debug!(error = %error, "a client left during its handshake");
                    return;
                }
            };
            // `Bounded` is the one bound on messages.
            let config = WebSocketConfig::default()
                .read_buffer_size(buffer)
                .write_buffer_size(0)
                .max_message_size(None)
                .max_frame_size(None);
            let bounded = Bounded::new(TokioIo::new(upgraded), limit);
            let socket = WebSocketStream::from_raw_socket(bounded, Role::Server, Some(config)).await;
            session(socket).await;
        });
        lifecycle.spawn("a WebSocket session", async move {
            // Logged and counted there.
            let _ = guarded("websocket_session", &subject, serve).await;
            Ok::<(), BoxError>(())
        });
        answer
    }
}
