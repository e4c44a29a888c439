//! Requests from many connections that are kept open, for a fixed time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use tokio::task::JoinSet;

use super::client::Client;
use super::support::run::Run;

/// Connections.
pub(crate) const CONNECTIONS: usize = 64;

/// What is asked, and what has to come.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// In turn.
    pub(crate) paths: Arc<[String]>,
    pub(crate) status: StatusCode,
    /// Bytes of the body; `None`: not looked at.
    pub(crate) length: Option<usize>,
}

impl Asked {
    /// GET of one path.
    pub(crate) fn get(path: &str, status: StatusCode, length: Option<usize>) -> Self {
        Self { method: Method::GET, paths: Arc::new([path.to_owned()]), status, length }
    }

    /// The same with HEAD.
    pub(crate) fn head(self) -> Self {
        Self { method: Method::HEAD, length: Some(0), ..self }
    }
}

/// Asks from [`CONNECTIONS`] connections for this long. Every answer has to be as expected.
pub(crate) async fn run(to: SocketAddr, asked: &Asked, length: Duration) -> Run {
    let mut tasks = JoinSet::new();
    let (began, ends) = (Instant::now(), Instant::now() + length);
    for number in 0..CONNECTIONS {
        let asked = asked.clone();
        tasks.spawn(async move {
            let mut client = Client::connect(to).await;
            let (mut latencies, mut turn) = (Vec::new(), number);
            while Instant::now() < ends {
                let path = &asked.paths[turn % asked.paths.len()];
                turn += CONNECTIONS + 1;
                let sent = Instant::now();
                let (status, bytes) = client.ask(asked.method.clone(), path).await;
                latencies.push(sent.elapsed());
                assert_eq!(status, asked.status, "{} {path}", asked.method);
                assert!(asked.length.is_none_or(|length| length == bytes), "{path}: {bytes} bytes");
            }
            latencies
        });
    }
    let latencies = tasks.join_all().await.concat();
    Run::of(latencies, began.elapsed(), 0)
}
