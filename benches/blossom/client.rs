//! A client with little overhead: one connection that is kept open, one request at a time.

use std::net::SocketAddr;

use axum::body::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// An open connection.
pub(crate) struct Client {
    requests: SendRequest<Full<Bytes>>,
    host: String,
    /// Moves the bytes; ends with this client.
    _connection: JoinSet<()>,
}

impl Client {
    pub(crate) async fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.expect("the server listens");
        stream.set_nodelay(true).expect("a TCP socket");
        let (requests, connection) =
            http1::handshake(TokioIo::new(stream)).await.expect("the server speaks HTTP");
        let mut task = JoinSet::new();
        task.spawn(async move {
            let _ = connection.await;
        });
        Self { requests, host: to.to_string(), _connection: task }
    }

    /// Sends a request without a body. Returns the status, and the length of the body that came.
    pub(crate) async fn ask(&mut self, method: Method, path: &str) -> (StatusCode, usize) {
        let request = Request::builder().method(method).uri(path).header(HOST, &self.host);
        self.send(request.body(Full::default()).expect("a valid request")).await
    }

    /// Uploads a blob.
    pub(crate) async fn upload(&mut self, content: Vec<u8>, token: &str, sha256: &str) {
        let request = Request::put("/upload")
            .header(HOST, &self.host)
            .header(AUTHORIZATION, token)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header("x-sha-256", sha256);
        let (status, _) =
            self.send(request.body(Full::new(Bytes::from(content))).expect("a valid request")).await;
        assert!(status.is_success(), "an upload is answered with {status}");
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> (StatusCode, usize) {
        self.requests.ready().await.expect("the connection is open");
        let mut answer = self.requests.send_request(request).await.expect("the server answers");
        let mut length = 0;
        while let Some(frame) = answer.frame().await {
            length += frame.expect("a whole answer").data_ref().map_or(0, Bytes::len);
        }
        (answer.status(), length)
    }
}
