//! A bad worker.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use quipu::base::{Clock as _, SystemClock};
use rand::Rng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::{Builder, Uuid};

use super::{Field, JOBS, LEASE, TIMEOUT};
use crate::jobs::kit::{http, open};

/// What a worker does with a job.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Complete,
    /// Sends it to both processes at once.
    CompleteTwice,
    /// Does not wait for the answer, and sends it again to the other process.
    LoseTheAnswer,
    FailTwice,
    ReleaseTwice,
    /// Sends heartbeats until the first lease would be over, then completes.
    Work,
    Vanish,
    Stall,
    /// Believes its own clock about the end of the lease.
    TrustTheClock,
    /// Tries what is not allowed, then completes.
    Attack,
}

fn draw(rng: &mut StdRng) -> Deed {
    match rng.random_range(0..20) {
        0..4 => Deed::Complete,
        4..7 => Deed::CompleteTwice,
        7..9 => Deed::LoseTheAnswer,
        9 => Deed::FailTwice,
        10 => Deed::ReleaseTwice,
        11..13 => Deed::Work,
        13 => Deed::Vanish,
        14..16 => Deed::Stall,
        16 => Deed::TrustTheClock,
        _ => Deed::Attack,
    }
}

/// A lease as a worker got it.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    pub(super) job: i64,
    pub(super) attempt: i32,
    pub(super) worker: String,
    token: String,
    expires_at: DateTime<Utc>,
}

/// A worker and what it knows.
pub(super) struct Worker {
    pub(super) field: Arc<Field>,
    pub(super) id: String,
    pub(super) secret: String,
    pub(super) skew: TimeDelta,
    /// Whether answers to its claims get lost. Then it may hold jobs that it does not know of.
    pub(super) loses_claims: bool,
    /// Jobs that it has had.
    pub(super) had: BTreeSet<i64>,
    pub(super) rng: StdRng,
}

impl Worker {
    fn now(&self) -> DateTime<Utc> {
        SystemClock.now() + self.skew
    }

    /// Sends a request to a process, again while the service is busy.
    async fn ask(&self, process: usize, path: &str, body: &Value) -> (u16, Value) {
        self.ask_as(process, path, body, &self.id, &self.secret).await
    }

    async fn ask_as(&self, process: usize, path: &str, body: &Value, id: &str, secret: &str) -> (u16, Value) {
        let date = self.now().to_rfc2822();
        let headers = [("x-worker-id", id), ("x-worker-secret", secret), ("date", &date)];
        let began = Instant::now();
        loop {
            let address = self.field.rooms[process % 2].address;
            let (status, mut answer) = http(address, "POST", path, &headers, Some(body)).await;
            if status != 503 {
                // Each request has an id of its own.
                answer.as_object_mut().map(|members| members.remove("request_id"));
                return (status, answer);
            }
            assert!(began.elapsed() < TIMEOUT, "{path}: {answer:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Sends a request and closes the connection without reading the answer.
    async fn send(&self, process: usize, path: &str, body: &Value) {
        let headers = [("x-worker-id", self.id.as_str()), ("x-worker-secret", &self.secret)];
        drop(open(self.field.rooms[process % 2].address, "POST", path, &headers, Some(body)).await);
    }

    /// Claims a job at one process; after a lost answer at the other one.
    async fn claim(&mut self) -> Option<Lease> {
        let process = self.rng.random_range(0..2);
        let millis = u64::try_from(self.now().timestamp_millis()).unwrap();
        let claim_id: Uuid = Builder::from_unix_timestamp_millis(millis, &self.rng.random()).into_uuid();
        let now = self.now();
        let claim = json!({
            "worker_id": self.id, "job_type": "pdf", "wait_s": 1, "claim_id": claim_id, "started_at": now, "now": now,
        });
        if self.loses_claims && self.rng.random_ratio(1, 5) {
            self.send(process + 1, "/api/jobs/claim", &claim).await;
        }
        let (status, answer) = self.ask(process, "/api/jobs/claim", &claim).await;
        assert_eq!(status, 200, "{answer}");
        let job = answer["job"]["id"].as_i64()?;
        let token = answer["lease_token"].as_str().unwrap().to_owned();
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        assert_eq!(bytes[..8], job.to_be_bytes());
        let lease = Lease {
            job,
            attempt: i32::from_be_bytes(bytes[8..12].try_into().unwrap()),
            worker: self.id.clone(),
            token,
            expires_at: answer["lease_expires_at"].as_str().unwrap().parse().unwrap(),
        };
        self.had.insert(job);
        self.field.leases.lock().unwrap().push(lease.clone());
        Some(lease)
    }

    fn body(&self, lease: &Lease) -> Value {
        json!({
            "worker_id": self.id, "lease_token": lease.token, "error": "broken", "result": { "by": self.id },
            "completed_at": self.now(),
        })
    }

    /// Sends an answer about a lease, and remembers an accepted completion.
    async fn answer(&self, process: usize, lease: &Lease, verb: &str) -> (u16, Value) {
        let told = self.ask(process, &path(lease, verb), &self.body(lease)).await;
        assert!(told.0 == 200 || told.0 == 409, "{verb} {lease:?}: {told:?}");
        if verb == "complete" && told.0 == 200 {
            let mut completed = self.field.completed.lock().unwrap();
            completed.entry(lease.job).or_default().insert((self.id.clone(), lease.attempt));
        }
        told
    }

    async fn twice(&self, process: usize, lease: &Lease, verb: &str) {
        let first = self.answer(process, lease, verb).await;
        let again = self.answer(process + 1, lease, verb).await;
        assert_eq!(first, again, "{verb} {lease:?}");
    }

    async fn deal(&mut self, lease: &Lease) {
        let process = self.rng.random_range(0..2);
        match draw(&mut self.rng) {
            Deed::Complete => drop(self.answer(process, lease, "complete").await),
            Deed::CompleteTwice => {
                let (one, other) = tokio::join!(
                    self.answer(process, lease, "complete"),
                    self.answer(process + 1, lease, "complete"),
                );
                assert_eq!(one, other, "{lease:?}");
            }
            Deed::LoseTheAnswer => {
                self.send(process, &path(lease, "complete"), &self.body(lease)).await;
                drop(self.answer(process + 1, lease, "complete").await);
            }
            Deed::FailTwice => self.twice(process, lease, "fail").await,
            Deed::ReleaseTwice => self.twice(process, lease, "release").await,
            Deed::Work => {
                for part in 0..3 {
                    sleep(LEASE * 2 / 5).await;
                    if self.answer(process + part, lease, "heartbeat").await.0 == 409 {
                        return;
                    }
                }
                drop(self.answer(process, lease, "complete").await);
            }
            Deed::Vanish => {}
            Deed::Stall => {
                sleep(LEASE.mul_f64(self.rng.random_range(1.0..3.0))).await;
                self.twice(process, lease, "complete").await;
            }
            Deed::TrustTheClock if self.now() > lease.expires_at => {}
            Deed::TrustTheClock => {
                sleep(LEASE * 3 / 2).await;
                drop(self.answer(process, lease, "heartbeat").await);
                drop(self.answer(process, lease, "complete").await);
            }
            Deed::Attack => {
                self.attack(process, lease).await;
                drop(self.answer(process, lease, "complete").await);
            }
        }
    }

    /// Everything that belongs to another worker is refused, whatever state its job is in.
    async fn attack(&mut self, process: usize, own: &Lease) {
        let foreign: Vec<Lease> = {
            let leases = self.field.leases.lock().unwrap();
            leases.iter().filter(|lease| !self.had.contains(&lease.job)).cloned().collect()
        };
        if foreign.is_empty() {
            return;
        }
        let foreign = &foreign[self.rng.random_range(0..foreign.len())];
        let (_, secret) = self.field.secrets.iter().find(|(id, _)| *id == foreign.worker).unwrap();
        let verb = ["complete", "fail", "release", "heartbeat"][self.rng.random_range(0..4)];
        let with = |worker: &str, token: &str| json!({ "worker_id": worker, "lease_token": token, "error": "stolen", "result": "stolen" });
        let theirs = path(foreign, verb);
        // Its token with the own id, and with none.
        for id in [self.id.as_str(), ""] {
            let told = self.ask(process, &theirs, &with(id, &foreign.token)).await;
            assert_eq!((told.0, &told.1["code"]), (409, &json!("other_worker")), "{foreign:?}: {told:?}");
        }
        // Its id with the own secret; the own id with its secret.
        let told = self.ask(process, &theirs, &with(&foreign.worker, &foreign.token)).await;
        assert_eq!(told.0, 403, "{told:?}");
        let told = self.ask_as(process, &theirs, &with(&self.id, &foreign.token), &self.id, secret).await;
        assert_eq!(told.0, 401, "{told:?}");
        // The own token for its job, and its token for the own job.
        for (lease, token) in [(foreign, &own.token), (own, &foreign.token)] {
            let told = self.ask(process, &path(lease, verb), &with(&self.id, token)).await;
            assert_eq!((told.0, &told.1["field"]), (400, &json!("lease_token")), "{told:?}");
        }
        // A token that was altered.
        let mut forged = foreign.token.clone().into_bytes();
        let place = self.rng.random_range(0..forged.len());
        forged[place] = if forged[place] == b'A' { b'B' } else { b'A' };
        let forged = String::from_utf8(forged).unwrap();
        let told = self.ask(process, &theirs, &with(&self.id, &forged)).await;
        assert_eq!(told.0, 400, "{told:?}");
        // No token, as old clients do.
        if self.loses_claims {
            return;
        }
        let told = self.ask(process, &theirs, &json!({ "worker_id": self.id, "error": "stolen" })).await;
        assert_eq!(told.0, 409, "{told:?}");
    }

    /// Works until all jobs are done.
    pub(super) async fn run(mut self) {
        let began = Instant::now();
        while !self.field.is_over.load(Ordering::SeqCst) {
            assert!(began.elapsed() < TIMEOUT, "the jobs are not done");
            if let Some(lease) = self.claim().await {
                self.deal(&lease).await;
            }
            if self.field.completed.lock().unwrap().len() == JOBS {
                self.field.is_over.store(true, Ordering::SeqCst);
            }
        }
    }
}

fn path(lease: &Lease, verb: &str) -> String {
    format!("/api/jobs/{}/{verb}", lease.job)
}
