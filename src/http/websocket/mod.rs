//! WebSocket upgrades. The length of a message is limited before it is buffered, and the limit can be raised
//! later, so that a client without a proven identity can occupy little memory.

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

/// A WebSocket on the server side. `get_mut().set_limit(bytes)` changes the longest message.
pub type ServerSocket = WebSocketStream<Bounded<TokioIo<Upgraded>>>;

/// A request to upgrade to a WebSocket (RFC 6455, 4.2).
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
    /// Returns the upgrade response, and runs `session` on the socket once the client has received it.
    /// `buffer` is the size of the read buffer in bytes; a message may have `limit` bytes until the session
    /// changes that. A panic ends only its session. `client` is the client's address, for the log.
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
        // Boxed: each layer around the future would otherwise include its size, some of them twice, for every
        // connection.
        let serve = Box::pin(async move {
            let upgraded = match upgrading.await {
                Ok(upgraded) => upgraded,
                Err(error) => {
                    tracing::debug!(error = %error, "a client disconnected during the upgrade");
                    return;
                }
            };
            // `Bounded` alone limits messages.
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
            // `guarded` logs and counts a panic.
            let _ = guarded("websocket_session", &subject, serve).await;
            Ok::<(), BoxError>(())
        });
        answer
    }
}
