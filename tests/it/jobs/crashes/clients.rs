//! Clients that keep account of what they were told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;
use uuid::Uuid;

use crate::jobs::kit::{try_http, within_deadline};

/// Length of a lease, seconds: none ends during the test.
const LEASE_S: u32 = 3_600;

/// Longest wait of a claim, seconds.
const WAIT_S: u32 = 5;

/// Job, attempt, event and worker.
pub(super) type Entry = (i64, i64, String, String);

/// Job, attempt and token.
type Lease = (i64, i64, String);

/// What was answered with 2xx.
#[derive(Default)]
pub(super) struct Told {
    /// The job of each idempotency key.
    pub(super) submitted: BTreeMap<String, i64>,
    pub(super) entries: BTreeSet<Entry>,
}

/// What all clients share.
pub(super) struct Field {
    address: SocketAddr,
    /// False from right before a kill until the server listens again.
    pub(super) is_up: watch::Sender<bool>,
    /// Number of requests that were answered.
    pub(super) answers: watch::Sender<usize>,
    /// Number of requests that broke off.
    pub(super) broken: AtomicUsize,
    pub(super) is_over: AtomicBool,
    pub(super) told: Mutex<Told>,
}

impl Field {
    /// For a server that listens.
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            is_up: watch::Sender::new(true),
            answers: watch::Sender::new(0),
            broken: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            told: Mutex::default(),
        }
    }

    /// Waits until so many more requests are answered.
    pub(super) async fn until_answered(&self, more: usize) {
        let mut answers = self.answers.subscribe();
        let target = *answers.borrow() + more;
        within_deadline("answers", async { answers.wait_for(|answers| *answers >= target).await.map(drop) })
            .await
            .unwrap();
    }

    /// Sends a request until it is answered. Returns status, answer, and whether it was sent more than once.
    async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> (u16, Value, bool) {
        let mut is_up = self.is_up.subscribe();
        let mut is_repeated = false;
        loop {
            within_deadline("the server", async { is_up.wait_for(|is_up| *is_up).await.map(drop) })
                .await
                .unwrap();
            match try_http(self.address, method, path, headers, body).await {
                // It says that it is busy, and when to come again.
                Ok((503, _)) => sleep(Duration::from_millis(100)).await,
                Ok((status, answer)) => {
                    self.answers.send_modify(|answers| *answers += 1);
                    return (status, answer, is_repeated);
                }
                Err(_) => {
                    self.broken.fetch_add(1, Ordering::SeqCst);
                }
            }
            is_repeated = true;
        }
    }

    /// Sends a request that succeeds.
    pub(super) async fn ok(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, answer, _) = self.ask(method, path, &[], body).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    fn note(&self, job: i64, attempt: i64, event: &str, worker: &str) {
        let entry = (job, attempt, event.to_owned(), worker.to_owned());
        assert!(self.told.lock().unwrap().entries.insert(entry), "{event} twice: {job} {attempt}");
    }

    /// Claims at most `count` jobs.
    async fn claim(&self, worker: &str, count: usize) -> Vec<Lease> {
        let claim = json!({
            "worker_id": worker, "job_type": "pdf", "count": count, "claim_id": Uuid::now_v7(),
            "wait_s": WAIT_S, "lease_s": LEASE_S,
        });
        let answer = self.ok("POST", "/api/jobs/claim", Some(&claim)).await;
        let leased = answer["jobs"].as_array().unwrap().iter().map(|leased| {
            let (job, attempt) = (leased["job"]["id"].as_i64().unwrap(), leased["attempt"].as_i64().unwrap());
            self.note(job, attempt, "leased", worker);
            (job, attempt, leased["lease_token"].as_str().unwrap().to_owned())
        });
        leased.collect()
    }

    /// Reports on a lease. The report is accepted, however often it is sent: no other request ends the lease.
    async fn report(&self, worker: &str, lease: &Lease, verb: &str) -> Value {
        let (job, attempt, token) = lease;
        let body = json!({
            "worker_id": worker, "lease_token": token, "error": "broken", "result": result(worker, *attempt),
        });
        let answer = self.ok("POST", &format!("/api/jobs/{job}/{verb}"), Some(&body)).await;
        let event = match verb {
            "complete" => "completed",
            "fail" => "failed",
            _ => "released",
        };
        self.note(*job, *attempt, event, worker);
        answer
    }

    /// Completes the jobs that are left.
    pub(super) async fn finish(&self) {
        while self.ok("GET", "/api/stats", None).await["pending_jobs"] != 0 {
            let leases = self.claim("last", 100).await;
            assert!(!leases.is_empty(), "a pending job is not found");
            for lease in leases {
                self.report("last", &lease, "complete").await;
            }
        }
    }
}

/// The result of a job that was completed under this lease.
pub(super) fn result(worker: &str, attempt: i64) -> Value {
    json!({ "by": worker, "attempt": attempt })
}

/// A client that submits and works.
pub(super) struct Client {
    pub(super) field: Arc<Field>,
    pub(super) name: String,
    pub(super) rng: StdRng,
}

impl Client {
    /// Goes on until it is over.
    pub(super) async fn run(mut self) {
        let mut number = 0;
        while !self.field.is_over.load(Ordering::SeqCst) {
            self.submit(number).await;
            self.work().await;
            number += 1;
        }
    }

    /// Submits a job; some of them twice.
    async fn submit(&mut self, number: usize) {
        let key = format!("{}-{number}", self.name);
        let attempts = self.rng.random_range(1..=3);
        let mut body = json!({ "type": "pdf", "max_attempts": attempts, "metadata": { "key": key } });
        let mut headers = vec![("idempotency-key", key.as_str())];
        if self.rng.random() {
            body["idempotency_key"] = json!(key);
            headers.clear();
        }
        let send = || self.field.ask("POST", "/api/jobs", &headers, Some(&body));
        let (status, answer, is_repeated) = send().await;
        // An answer that was lost is the only reason for which the job may exist.
        assert!(status == 201 || status == 200 && is_repeated, "{status} {answer}");
        assert_eq!(answer["existing"], status == 200, "{answer}");
        let job = answer["job_id"].as_i64().unwrap();
        assert_eq!(self.field.told.lock().unwrap().submitted.insert(key.clone(), job), None);
        if self.rng.random_ratio(1, 8) {
            let (status, answer, _) = send().await;
            assert_eq!((status, &answer["job_id"], &answer["existing"]), (200, &json!(job), &json!(true)));
        }
    }

    /// Claims a job and reports on it. One that has failed is tried again at once, not after its pause.
    async fn work(&mut self) {
        for lease in self.field.claim(&self.name, 1).await {
            let verb = match self.rng.random_range(0..10) {
                0..6 => "complete",
                6..8 => "fail",
                _ => "release",
            };
            let answer = self.field.report(&self.name, &lease, verb).await;
            if answer["will_retry"] == true {
                let path = format!("/api/jobs/{}/retry", lease.0);
                let (status, answer, _) = self.field.ask("POST", &path, &[], Some(&json!({}))).await;
                // By a repeated request of this client or another one, others may have it already.
                assert!(status == 200 || status == 409, "{status} {answer}");
            }
        }
    }
}
