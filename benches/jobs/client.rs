//! A client with little overhead: one connection that is kept open, one request at a time.

use std::net::SocketAddr;

use axum::body::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// An open connection.
pub(crate) struct Client {
    requests: SendRequest<Full<Bytes>>,
    host: String,
    /// Moves the bytes; ends with this client.
    _connection: JoinSet<()>,
}

/// A leased job.
#[derive(Debug)]
pub(crate) struct Held {
    job: i64,
    lease_token: String,
}

/// The members of an answer to a claim that a worker needs.
#[derive(Deserialize)]
struct ClaimAnswer {
    job: Option<JobAnswer>,
    lease_token: Option<String>,
}

#[derive(Deserialize)]
struct JobAnswer {
    id: i64,
}

impl Client {
    pub(crate) async fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.expect("the room listens");
        stream.set_nodelay(true).expect("a TCP socket");
        let (requests, connection) =
            http1::handshake(TokioIo::new(stream)).await.expect("the room speaks HTTP");
        let mut task = JoinSet::new();
        task.spawn(async move {
            let _ = connection.await;
        });
        Self { requests, host: to.to_string(), _connection: task }
    }

    /// Submits an empty job.
    pub(crate) async fn submit(&mut self, job_type: &str) {
        let body = format!(r#"{{"type":"{job_type}","unique":false}}"#);
        let (status, said) = self.post("/api/jobs", body).await;
        assert_eq!(status, StatusCode::CREATED, "{said:?}");
    }

    /// Claims one job and waits up to `wait_s` seconds for it. `Ok(None)` if there is none, `Err` if the claim
    /// is refused.
    pub(crate) async fn claim(
        &mut self,
        worker: &str,
        job_type: &str,
        wait_s: u32,
    ) -> Result<Option<Held>, StatusCode> {
        let body = format!(r#"{{"worker_id":"{worker}","job_type":"{job_type}","wait_s":{wait_s}}}"#);
        let (status, said) = self.post("/api/jobs/claim", body).await;
        if status != StatusCode::OK {
            return Err(status);
        }
        let answer: ClaimAnswer = serde_json::from_slice(&said).expect("valid JSON");
        let held = answer.job.zip(answer.lease_token);
        Ok(held.map(|(job, lease_token)| Held { job: job.id, lease_token }))
    }

    /// Completes a job.
    pub(crate) async fn complete(&mut self, worker: &str, held: &Held) {
        let Held { job, lease_token } = held;
        let body = format!(r#"{{"worker_id":"{worker}","lease_token":"{lease_token}"}}"#);
        let (status, said) = self.post(&format!("/api/jobs/{job}/complete"), body).await;
        assert_eq!(status, StatusCode::OK, "{said:?}");
    }

    async fn post(&mut self, path: &str, body: String) -> (StatusCode, Bytes) {
        let request = Request::post(path)
            .header(HOST, &self.host)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .expect("a valid request");
        self.requests.ready().await.expect("the connection is open");
        let answer = self.requests.send_request(request).await.expect("the room answers");
        let status = answer.status();
        (status, answer.into_body().collect().await.expect("a whole answer").to_bytes())
    }
}
