//! The service in the test's process, and clients of it. Every wait has a deadline.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use quipu::app::Parts;
use quipu::app::registry::{projections, verify_tables};
use quipu::config::{self, Settings};
use quipu::lifecycle::Lifecycle;
use quipu::net::Egress;
use quipu::services::jobs::append::{CredentialAnswer, CredentialJournal, JobAnswer, Submitted};
use quipu::services::jobs::command::{
    Change, Claim, CredentialCommand, Fence, FencedLease, JobChange, JobCommand, NewCredential, Submission,
};
use quipu::services::jobs::decide::{Refusal, Settled, unique_key};
use quipu::services::jobs::event::ClaimedJob;
use quipu::services::jobs::metrics::JobMetrics;
use quipu::services::jobs::{self, External, Secrets, Started};
use quipu::store::DatabaseUrls;
use quipu::telemetry::Metrics;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

use crate::support::database::TestDatabase;

/// Longest wait before a test fails.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// Waits for a future, at most for [`DEADLINE`].
pub(super) async fn within_deadline<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("timed out waiting for: {what}"))
}

/// The result of a query for one number.
pub(super) async fn number(database: &TestDatabase, sql: &str) -> i64 {
    database.owner().await.query_one(sql, &[]).await.unwrap().get(0)
}

/// Counts the entries so far in `job_totals`, as the projector does.
pub(super) async fn project(database: &TestDatabase) {
    let take = "SELECT quipu_take_tick(system_identifier) FROM pg_control_system()";
    database.owner().await.query_one(take, &[]).await.unwrap();
    let totals = projections().find(|known| known.name == "job_totals").unwrap();
    let pools = database.pools();
    while totals.catch_up(&pools.write).await.unwrap() {}
}

/// What `quipu verify` finds in this database.
pub(super) async fn problems(database: &TestDatabase) -> Vec<String> {
    let findings = verify_tables(database.urls().owner().unwrap()).await.unwrap();
    findings.into_iter().flat_map(|finding| finding.problems).collect()
}

/// The service as one process runs it. Dropping it drains it.
pub(super) struct Room {
    pub(super) parts: Parts,
    pub(super) address: SocketAddr,
    pub(super) started: Started,
}

impl Room {
    /// Starts the service on a test's database.
    pub(super) async fn on(database: &TestDatabase) -> Self {
        Self::with(database, |_| {}).await
    }

    /// Starts it with changed settings.
    pub(super) async fn with(database: &TestDatabase, change: impl FnOnce(&mut config::Jobs)) -> Self {
        Self::through(&database.urls(), change).await
    }

    /// Starts it with the given URLs, which may lead through a proxy.
    pub(super) async fn through(urls: &DatabaseUrls, change: impl FnOnce(&mut config::Jobs)) -> Self {
        Self::open(Self::parts(urls, change)).await
    }

    /// The parts of the service before it starts.
    pub(super) fn parts(urls: &DatabaseUrls, change: impl FnOnce(&mut config::Jobs)) -> Parts {
        let mut settings = Settings::default();
        settings.services.jobs.address = Some(([127, 0, 0, 1], 0).into());
        change(&mut settings.services.jobs);
        Parts::open(urls, settings, Lifecycle::new(Duration::from_secs(5)), Metrics::new("test")).unwrap()
    }

    /// Starts the service from its parts.
    pub(super) async fn open(parts: Parts) -> Self {
        let external = Self::external(&parts, &Secrets::default());
        Self::open_with(parts, external).await
    }

    /// Its storage and its login.
    pub(super) fn external(parts: &Parts, secrets: &Secrets<'_>) -> External {
        let outside = Egress::new(&parts.settings.networks).unwrap();
        External::open(&parts.settings.services.jobs, secrets, &outside).unwrap()
    }

    /// Starts the service with its storage and its login.
    pub(super) async fn open_with(parts: Parts, external: External) -> Self {
        let mut addresses = BTreeMap::new();
        let started = jobs::start(&parts, external, JobMetrics::default(), &mut addresses).await.unwrap();
        let address = addresses["jobs"].parse().unwrap();
        Self { parts, address, started }
    }

    /// Sends a request without a body.
    pub(super) async fn get(&self, path: &str) -> (u16, Value) {
        http(self.address, "GET", path, &[], None).await
    }

    /// Sends a request with a body.
    pub(super) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        http(self.address, "POST", path, &[], Some(body)).await
    }

    /// Sends a request that succeeds.
    pub(super) async fn ok(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.post(path, body).await;
        assert!(status == 200 || status == 201, "{path}: {status} {answer}");
        answer
    }

    /// Submits a job through the library.
    pub(super) async fn submit(&self, job: Job<'_>) -> Submitted {
        let submission = self.submission(job).await;
        match self.started.jobs.append(JobCommand::Submit(Box::new(submission))).await.unwrap() {
            JobAnswer::Submitted(submitted) => submitted,
            other => panic!("{other:?}"),
        }
    }

    /// A submission with a number.
    pub(super) async fn submission(&self, job: Job<'_>) -> Submission {
        Submission {
            number: self.started.numbers.next().await.unwrap(),
            job_type: job.job_type.to_owned(),
            priority: job.priority,
            run_at_us: None,
            attempts_max: job.attempts_max,
            unique_key: unique_key(job.job_type, job.source_hash, None),
            source_hash: job.source_hash.map(str::to_owned),
            source_path: None,
            source_size: None,
            tags: None,
            metadata: None,
            depends_on: Vec::new(),
            actor: "test".to_owned(),
        }
    }

    /// Claims jobs of type `pdf` through the library, without waiting.
    pub(super) async fn claim(&self, worker: &str, count: usize, lease_s: i32) -> Vec<ClaimedJob> {
        self.claim_again(&claim_of(worker, count, lease_s)).await
    }

    /// Sends a claim that may have been sent before.
    pub(super) async fn claim_again(&self, claim: &Claim) -> Vec<ClaimedJob> {
        match self.started.jobs.append(JobCommand::Claim(claim.clone())).await.unwrap() {
            JobAnswer::Claimed(jobs) => jobs,
            other => panic!("{other:?}"),
        }
    }

    /// Changes a job through the library.
    pub(super) async fn change(&self, job: i64, change: Change) -> Result<Settled, Refusal> {
        let change = JobChange::new(job, change, "test");
        match self.started.jobs.append(JobCommand::Change(Box::new(change))).await.unwrap() {
            JobAnswer::Settled(settled) => Ok(settled),
            JobAnswer::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    /// Completes a job with the lease that a worker got.
    pub(super) async fn complete(&self, job: &ClaimedJob, worker: &str) -> Result<Settled, Refusal> {
        self.change(job.facts.job, Change::Complete { fence: fence(job, worker), result: None }).await
    }

    /// Creates an API token.
    pub(super) async fn token(&self, name: &str, is_admin: bool, scopes: &[&str]) -> String {
        let token = format!("bf_{name}");
        let writer = self.parts.writer(CredentialJournal);
        let create = CredentialCommand::Create(Box::new(NewCredential {
            sha256: jobs::edge::hash(&token),
            name: name.to_owned(),
            worker: None,
            is_admin,
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            lifetime_s: None,
            actor: "test".to_owned(),
        }));
        let created = writer.append(create).await.unwrap();
        assert!(matches!(created, CredentialAnswer::Created { .. }), "{created:?}");
        token
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.parts.lifecycle.drain();
    }
}

/// A job to submit.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_field_names, reason = "the fields are named as those of `Submission`")]
pub(super) struct Job<'a> {
    pub(super) job_type: &'a str,
    pub(super) priority: i16,
    pub(super) attempts_max: i32,
    pub(super) source_hash: Option<&'a str>,
}

/// A job of type `pdf` that may be submitted any number of times.
pub(super) const PDF: Job<'static> = Job { job_type: "pdf", priority: 3, attempts_max: 3, source_hash: None };

/// A claim for jobs of type `pdf`.
pub(super) fn claim_of(worker: &str, count: usize, lease_s: i32) -> Claim {
    Claim {
        id: Uuid::now_v7(),
        worker: worker.to_owned(),
        types: vec!["pdf".to_owned()],
        count,
        lease_s,
        may_be_known: true,
        actor: format!("worker:{worker}"),
    }
}

/// The proof of a lease.
pub(super) fn fence(job: &ClaimedJob, worker: &str) -> Fence {
    let lease = FencedLease { attempt: job.attempt, claim: job.lease.claim };
    Fence { worker: Some(worker.to_owned()), lease: Some(lease) }
}

/// Sends one request on its own connection. A body that is not JSON is returned as a string.
pub(super) async fn http(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> (u16, Value) {
    let answer = within_deadline(path, async {
        let mut stream = open(address, method, path, headers, body).await;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    })
    .await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|_| body.into()))
}

/// As [`http`], to a server that may be killed: an error if it is away, or ends before its whole answer has arrived.
pub(super) async fn try_http(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> io::Result<(u16, Value)> {
    let answer = within_deadline(path, async {
        let mut answer = String::new();
        try_open(address, method, path, headers, body).await?.read_to_string(&mut answer).await?;
        io::Result::Ok(answer)
    })
    .await?;
    // A head or a body that was cut off acknowledges nothing.
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body)?))
}

/// Sends a request. The caller reads the response until the server closes the connection.
pub(super) async fn open(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> TcpStream {
    try_open(address, method, path, headers, body).await.unwrap()
}

/// As [`open`]; an error if the server is away.
async fn try_open(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> io::Result<TcpStream> {
    let body = body.map(Value::to_string).unwrap_or_default();
    // HTTP/1.0, so that the response is not chunked and ends with the connection.
    let mut request = format!("{method} {path} HTTP/1.0\r\ncontent-length: {}\r\n", body.len());
    if headers.iter().all(|(name, _)| *name != "host") {
        let _ = write!(request, "host: {address}\r\n");
    }
    for (name, value) in headers {
        let _ = write!(request, "{name}: {value}\r\n");
    }
    request += "\r\n";
    request += &body;
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}

/// The stream of events.
pub(super) struct Stream {
    lines: Lines<BufReader<TcpStream>>,
}

/// One event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Frame {
    pub(super) event: String,
    pub(super) id: Option<String>,
    pub(super) data: Value,
}

impl Stream {
    /// Opens `/events` with further headers; the status if it is refused.
    pub(super) async fn open(room: &Room, headers: &[(&str, &str)]) -> Result<Self, u16> {
        let stream = open(room.address, "GET", "/events", headers, None).await;
        let mut lines = BufReader::new(stream).lines();
        let mut line = async || within_deadline("a head", lines.next_line()).await.unwrap().unwrap();
        let status = line().await.split(' ').nth(1).unwrap().parse().unwrap();
        if status != 200 {
            return Err(status);
        }
        while !line().await.is_empty() {}
        Ok(Self { lines })
    }

    /// The next event. `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        let (mut event, mut id, mut data) = (None, None, None);
        loop {
            let line = within_deadline("an event", self.lines.next_line()).await.ok()??;
            if let Some(text) = line.strip_prefix("event: ") {
                event = Some(text.to_owned());
            } else if let Some(text) = line.strip_prefix("id: ") {
                id = Some(text.to_owned());
            } else if let Some(text) = line.strip_prefix("data: ") {
                data = Some(serde_json::from_str(text).unwrap_or_else(|_| text.into()));
            } else if line.is_empty()
                && let (Some(event), Some(data)) = (event.take(), data.take())
            {
                return Some(Frame { event, id, data });
            }
        }
    }

    /// The next event that is no `ping`.
    pub(super) async fn next_entry(&mut self) -> Frame {
        loop {
            let frame = self.next().await.expect("the stream goes on");
            if frame.event != "ping" {
                return frame;
            }
        }
    }
}
