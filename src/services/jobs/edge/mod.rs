//! The HTTP interface of jobs: the requests of BlobForge under both of its spellings, and what it lacked.

mod access;
mod audit;
mod credentials;
pub mod dry_run;
mod files;
mod jobs;
mod limits;
mod login;
mod manage;
mod many;
mod pages;
mod refusal;
mod schedules;
mod shapes;
mod stats;
mod stream;
mod submit;
mod users;
mod v1;
mod values;
mod work;
mod work_body;
mod workers;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use moka::future::Cache;
use tokio::sync::{Semaphore, watch};

use super::append::{
    Beats, CredentialJournal, JobJournal, JobNumbers, Queue, ScheduleJournal, UserJournal, WorkerJournal,
};
use super::decide::LeaseKey;
use super::metrics::JobMetrics;
use crate::base::Clock;
use crate::config::Jobs;
use crate::http::{Access, Routes};
use crate::lifecycle::{HealthRegistry, Lifecycle};
use crate::store::append::Writer;
use crate::store::{Pools, Shards};

pub use access::{draw_token, hash};
pub use files::{MULTIPART_TIME, Storage};
pub use login::Login;

use access::Credential;

/// How long a process believes a credential that it has checked. A revoked one is accepted for so long.
const CREDENTIAL_REMEMBERED: Duration = Duration::from_secs(5);

/// Credentials remembered at the same time.
const CREDENTIALS_MAX: u64 = 10_000;

/// Registrations between two removals of workers that did not register for a minute.
const REGISTRATIONS_CLEANUP: u64 = 256;

/// How long a process keeps using the key of lease tokens. After the table was emptied, processes can use
/// different keys for this long.
const KEY_REMEMBERED: Duration = Duration::from_secs(10);

/// Parts that the handlers need.
#[derive(Debug)]
pub struct JobsParts {
    /// PostgreSQL pools. Reads use the session pool, because they must see the latest commits.
    pub pools: Pools,
    /// Writers of jobs.
    pub jobs: Shards<JobJournal>,
    /// Writer of workers.
    pub workers: Writer<WorkerJournal>,
    /// Writer of credentials.
    pub credentials: Writer<CredentialJournal>,
    /// Writer of people who log in.
    pub users: Writer<UserJournal>,
    /// Login of people; `None` if it is off.
    pub login: Option<Login>,
    /// Writer of schedules.
    pub schedules: Writer<ScheduleJournal>,
    /// Numbers for new jobs.
    pub numbers: JobNumbers,
    /// The queue as this process sees it.
    pub queue: Queue,
    /// Heartbeats of workers.
    pub beats: Beats,
    /// Sources and outputs; `None` without a place for them.
    pub storage: Option<Storage>,
    /// Era and newest snapshot, for streams.
    pub newest: watch::Receiver<Option<(i32, Arc<str>)>>,
    /// Streams run on it and end when it drains.
    pub lifecycle: Lifecycle,
    /// Health of the process.
    pub health: HealthRegistry,
    /// The clock, for ages on pages.
    pub clock: Arc<dyn Clock>,
    /// Metrics of jobs.
    pub metrics: JobMetrics,
    /// Effective settings.
    pub settings: Jobs,
    /// Time until a response must begin, seconds: a long poll ends before.
    pub request_timeout_s: u32,
}

/// State that all routes share. Clones share it.
#[derive(Clone)]
pub struct JobsState(Arc<Inner>);

struct Inner {
    parts: JobsParts,
    address: SocketAddr,
    credentials: Cache<[u8; 32], Option<Credential>>,
    lease_key: Cache<(), LeaseKey>,
    streams: Arc<Semaphore>,
    registrations: DefaultKeyedRateLimiter<String>,
    registrations_counted: AtomicU64,
}

impl JobsState {
    /// The state of the listener at `address`.
    #[must_use]
    pub fn new(parts: JobsParts, address: SocketAddr) -> Self {
        let streams = Arc::new(Semaphore::new(parts.settings.streams_max.get().min(Semaphore::MAX_PERMITS)));
        let remembered = |lifetime| Cache::builder().time_to_live(lifetime);
        Self(Arc::new(Inner {
            parts,
            address,
            credentials: remembered(CREDENTIAL_REMEMBERED).max_capacity(CREDENTIALS_MAX).build(),
            lease_key: Cache::builder().max_capacity(1).time_to_live(KEY_REMEMBERED).build(),
            streams,
            registrations: RateLimiter::keyed(Quota::per_minute(limits::REGISTRATIONS_PER_MINUTE)),
            registrations_counted: AtomicU64::new(0),
        }))
    }

    /// Whether this worker may register or unregister once more.
    fn admits_registration(&self, worker: &str) -> bool {
        let counted = self.0.registrations_counted.fetch_add(1, Ordering::Relaxed);
        if counted.is_multiple_of(REGISTRATIONS_CLEANUP) {
            self.0.registrations.retain_recent();
        }
        self.0.registrations.check_key(&worker.to_owned()).is_ok()
    }

    /// The parts that the state was created from.
    #[must_use]
    pub fn parts(&self) -> &JobsParts {
        &self.0.parts
    }
}

impl fmt::Debug for JobsState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobsState").field("parts", &self.0.parts).finish_non_exhaustive()
    }
}

/// The routes. Where the README of BlobForge and its code name different paths, both are served; the paths of its
/// rewrite are in `v1`.
pub fn routes(state: JobsState) -> Routes {
    use Access::{Admin, Anyone, Proof, Token};
    let upload = Duration::from_secs(state.parts().settings.files.upload_timeout_s.get().into());
    Routes::new()
        .get("/health", Anyone, stats::health)
        .get("/api/health", Anyone, stats::health)
        .get("/login", Anyone, login::login)
        .get("/auth/login", Anyone, login::login)
        .get("/auth/callback", Anyone, login::callback)
        .post("/logout", Anyone, login::logout)
        .post("/auth/logout", Anyone, login::logout)
        .get("/api/auth/info", Anyone, stats::auth_info)
        .get("/api/stats", Token, stats::stats)
        .post("/api/jobs", Token, submit::submit)
        .get("/api/jobs", Token, jobs::list)
        .get("/api/jobs/{id}", Token, jobs::job)
        .get("/api/jobs/{id}/history", Token, jobs::history)
        .post("/api/jobs/claim", Token, work::claim)
        .post("/api/jobs/cancel-all", Token, many::cancel_all)
        .post("/api/jobs/retry-all", Token, many::retry_all)
        .post("/api/jobs/{id}/heartbeat", Token, work::heartbeat)
        .post("/api/jobs/{id}/complete", Token, work::complete)
        .post("/api/jobs/{id}/fail", Token, work::fail)
        .post("/api/jobs/{id}/release", Token, work::release)
        .post("/api/jobs/{id}/retry", Token, manage::retry)
        .post("/api/jobs/{id}/cancel", Token, manage::cancel)
        .post("/api/jobs/{id}/priority", Token, manage::priority)
        .patch("/api/jobs/{id}/priority", Token, manage::priority)
        .post("/api/jobs/{id}/upload-url", Token, files::output_url)
        .get("/api/files/{job_id}/{type}/url", Token, files::download_url)
        .post("/api/files/upload-url", Token, files::upload_url)
        .post("/api/files/multipart", Token, files::begin)
        .post("/api/files/multipart/parts", Token, files::parts)
        .post("/api/files/multipart/complete", Token, files::complete)
        .post("/api/files/multipart/abort", Token, files::abort)
        .within("/api/files/multipart/complete", upload)
        .get("/objects/{*key}", Proof, files::get)
        .put("/objects/{*key}", Proof, files::put)
        .within("/objects/{*key}", upload)
        .post("/api/workers/register", Token, workers::register)
        .post("/api/workers/{id}/heartbeat", Token, workers::heartbeat)
        .post("/api/workers/{id}/unregister", Token, workers::unregister)
        .get("/api/workers", Token, workers::list)
        .post("/api/workers/{id}/drain", Token, workers::drain)
        .post("/api/workers/{id}/suspend", Token, workers::suspend)
        .post("/api/workers/{id}/resume", Token, workers::resume)
        .delete("/api/workers/{id}", Token, workers::remove)
        .get("/api/schedules", Token, schedules::list)
        .post("/api/schedules", Token, schedules::set)
        .delete("/api/schedules/{name}", Token, schedules::remove)
        .get("/api/tokens", Admin, credentials::tokens)
        .post("/api/tokens", Admin, credentials::create_token)
        .delete("/api/tokens/{id}", Admin, credentials::delete_token)
        .get("/api/admin/tokens", Admin, credentials::tokens)
        .post("/api/admin/tokens", Admin, credentials::create_token)
        .delete("/api/admin/tokens/{id}", Admin, credentials::delete_token)
        .post("/api/admin/workers", Admin, credentials::create_worker)
        .post("/api/admin/workers/{id}/regenerate", Admin, credentials::regenerate_secret)
        .post("/api/admin/workers/{id}/enable", Admin, workers::enable)
        .post("/api/admin/workers/{id}/disable", Admin, workers::disable)
        .get("/api/users", Admin, users::users)
        .get("/api/admin/users", Admin, users::users)
        .get("/api/admin/sessions", Admin, users::sessions)
        .delete("/api/admin/sessions/{id}", Admin, users::revoke_session)
        .get("/api/admin/audit", Admin, audit::audit)
        .get("/events", Token, stream::events)
        .merge(v1::routes())
        .merge(pages::routes(upload))
        .with_state(state)
}
