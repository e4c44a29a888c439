//! Section `services.jobs`.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problems::{Problems, Section};
use super::{JobFiles, JobLogin, JobWebhook};
use crate::base::{JOB_ATTEMPTS_MAX, JOB_LEASE_S_MAX, JOB_LEASE_S_MIN};

/// Most jobs of a limited type that may run: each has a place in a table.
const RUNNING_MAX: u32 = 1_000;

/// Section `services.jobs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Jobs {
    /// Whether `quipu up` runs it.
    pub enabled: bool,
    /// Address of the listener. Without a value `127.0.0.1:4707`, or `127.0.0.1:8080` if `quipu run jobs`
    /// runs nothing else. The variable `BLOBFORGE_PORT` sets the port on 127.0.0.1.
    #[schemars(extend("format" = "address:port"))]
    pub address: Option<SocketAddr>,
    /// Whether requests without a token are served, apart from those that need an administrator. Without a
    /// value: only at loopback addresses, only requests that no proxy has forwarded and no web page of another
    /// site has caused, and not if people log in (`oidc.issuer`).
    pub compat_unauthenticated: Option<bool>,
    /// Length of a lease for which the worker asks for no other. A worker that sends no heartbeat for so long
    /// loses its job. A lease is renewed when half of it is over.
    #[schemars(range(min = JOB_LEASE_S_MIN, max = JOB_LEASE_S_MAX))]
    pub lease_s: NonZeroU32,
    /// Interval between two heartbeats, as told to workers.
    pub heartbeat_interval_s: NonZeroU32,
    /// Time after which a worker that was not heard of counts as offline. The variable
    /// `BLOBFORGE_WORKER_TIMEOUT` sets it too.
    pub worker_timeout_s: NonZeroU32,
    /// Attempts that may fail before a job is dead, unless its submitter asks for another number. The variable
    /// `BLOBFORGE_MAX_ATTEMPTS` sets it too.
    #[schemars(range(max = JOB_ATTEMPTS_MAX))]
    pub attempts_max: NonZeroU32,
    /// Time by which a job may become ready later than one of the next lower priority and still be claimed
    /// first. A job of priority 5 is therefore claimed before every job of priority 1 that became ready more than four
    /// times `aging_s` later.
    pub aging_s: NonZeroU32,
    /// Types of which only so many jobs may run at the same time, such as `[{type: "pdf", running_max: 4}]`.
    /// All processes need the same list.
    pub limits: Vec<TypeLimit>,
    /// Receivers of webhooks, such as `[{name: "billing", url: "https://billing.example.com/quipu"}]`. The keys by
    /// which webhooks are signed are a secret and come only from the environment: `QUIPU_JOBS_WEBHOOK_SECRET`. All
    /// processes need the same list. `name`: part of the type of its jobs, `quipu.webhook.NAME`. `types`, `statuses`
    /// (`completed`, `dead`, `cancelled`): the jobs it is told of; without them all. `attempts_max`: 1 to 100,
    /// else 20.
    pub webhooks: Vec<JobWebhook>,
    /// Streams of events at the same time; a further request gets 503.
    pub streams_max: NonZeroUsize,
    /// Sources and outputs of jobs. The keys of the bucket are secrets and come only from the environment:
    /// `BLOBFORGE_S3_ACCESS_KEY` and `BLOBFORGE_S3_SECRET_KEY`.
    pub files: JobFiles,
    /// Login of people by `OpenID` Connect. The client's secret is not a setting: it comes only from the
    /// environment, `BLOBFORGE_OIDC_CLIENT_SECRET`.
    pub oidc: JobLogin,
}

/// A type of which only so many jobs may run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TypeLimit {
    /// Type.
    pub r#type: String,
    /// Most jobs that may run at the same time.
    pub running_max: NonZeroU32,
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            enabled: true,
            address: None,
            compat_unauthenticated: None,
            lease_s: nonzero!(NonZeroU32, 900),
            heartbeat_interval_s: nonzero!(NonZeroU32, 60),
            worker_timeout_s: nonzero!(NonZeroU32, 180),
            attempts_max: nonzero!(NonZeroU32, 3),
            aging_s: nonzero!(NonZeroU32, 3_600),
            limits: Vec::new(),
            webhooks: Vec::new(),
            streams_max: nonzero!(NonZeroUsize, 64),
            files: JobFiles::default(),
            oidc: JobLogin::default(),
        }
    }
}

impl Jobs {
    /// Whether a request without a token is served. Without a setting only at a loopback listener, only if no
    /// proxy has forwarded it, and only if people do not log in: a proxy on this machine that encrypts for
    /// browsers does not always say that it is one.
    #[must_use]
    pub fn serves_unauthenticated(&self, listener: SocketAddr, is_loopback_direct: bool) -> bool {
        let is_local = listener.ip().to_canonical().is_loopback() && is_loopback_direct && !self.oidc.is_on();
        self.compat_unauthenticated.unwrap_or(is_local)
    }

    /// Settings that are valid but probably a mistake.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let is_beyond = self.address.is_some_and(|address| !address.ip().to_canonical().is_loopback());
        if self.enabled && is_beyond && self.compat_unauthenticated == Some(true) {
            warnings.push(
                "services.jobs.compat_unauthenticated: everyone who reaches the listener may submit, claim and cancel jobs"
                    .to_owned(),
            );
        }
        if self.heartbeat_interval_s.get() * 2 > self.lease_s.get() {
            warnings.push(format!(
                "services.jobs.heartbeat_interval_s: a lease of {} s is renewed when half of it is over: a worker that sends a \
                 heartbeat every {} s may lose its job",
                self.lease_s, self.heartbeat_interval_s
            ));
        }
        warnings
    }
}

impl Section for Jobs {
    fn problems(&self, problems: &mut Problems<'_>) {
        let mut check = |is_good: bool, key: &str, reason: String| {
            if !is_good {
                problems.refuse(key, reason);
            }
        };
        let lease_s = self.lease_s.get();
        check(
            (i64::from(JOB_LEASE_S_MIN)..=i64::from(JOB_LEASE_S_MAX)).contains(&i64::from(lease_s)),
            "lease_s",
            format!("{lease_s}: from {JOB_LEASE_S_MIN} to {JOB_LEASE_S_MAX}"),
        );
        let attempts = self.attempts_max.get();
        check(
            i64::from(attempts) <= i64::from(JOB_ATTEMPTS_MAX),
            "attempts_max",
            format!("{attempts}: at most {JOB_ATTEMPTS_MAX}"),
        );
        for (key, reason) in self.files.refused().into_iter().chain(self.oidc.refused()) {
            check(false, key, reason);
        }
        for reason in super::job_webhooks::refused(&self.webhooks) {
            check(false, "webhooks", reason);
        }
        for limit in &self.limits {
            let most = limit.running_max.get();
            check(
                most <= RUNNING_MAX,
                "limits",
                format!("{}: running_max {most}: at most {RUNNING_MAX}", limit.r#type),
            );
            let others = self.limits.iter().filter(|other| other.r#type == limit.r#type).count();
            check(others == 1, "limits", format!("{}: more than one limit", limit.r#type));
        }
    }
}
