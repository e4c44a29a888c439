//! The service `jobs`: one listener, and the loops behind it.

mod external;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::append::{
    Beats, CredentialJournal, FileJournal, JobJournal, JobNumbers, Queue, ScheduleJournal, UserJournal,
    WorkerJournal, begin_webhooks,
};
use super::edge::{JobsParts, JobsState, MULTIPART_TIME, Storage, routes};
use super::metrics::{JobMetrics, METRICS};
use super::project;
use super::react::{
    Deliveries, DeliveryParts, Dependencies, Expiry, FileChecks, FileChecksParts, Follower, FollowerParts,
    Schedules, SnapshotReader, Upkeep, UpkeepParts, Webhooks, WebhooksParts,
};
use crate::config::Jobs;
use crate::http::Listener;
use crate::lifecycle::{BoxError, Service};
use crate::room::{
    Enabled, ListenerSpec, LoopSpec, Parts, Port, Ports, Room, ServiceName, ServiceSpec, counted, no_sockets,
    same_in_sample,
};
use crate::store::Shards;

pub use external::{External, Secrets, WebhookReceivers, open_objects};

/// The port of BlobForge, whose place `quipu run jobs` takes: its clients know it.
const ALONE: u16 = 8080;

/// Pause between two looks of the loops that hints do not wake, or not in every case.
const LOOK: Duration = Duration::from_secs(1);

/// Finds jobs that others made ready, and records heartbeats.
const FOLLOWER: LoopSpec = LoopSpec { name: "jobs", pause: |_| LOOK, has_long_cycles: false };

/// Finds expired leases. The pause is short: an expired job is claimed again within two seconds.
const EXPIRY: LoopSpec =
    LoopSpec { name: "jobs expiry", pause: |_| Duration::from_millis(500), has_long_cycles: false };

/// Releases jobs whose dependencies are completed.
const DEPENDENCIES: LoopSpec =
    LoopSpec { name: "jobs dependencies", pause: |_| LOOK, has_long_cycles: false };

/// Checks sources in the bucket, which are read once, and sweeps the folder.
const FILES: LoopSpec =
    LoopSpec { name: "jobs files", pause: |_| Duration::from_secs(5), has_long_cycles: true };

/// Submits recurring jobs.
const SCHEDULES: LoopSpec = LoopSpec { name: "jobs schedules", pause: |_| LOOK, has_long_cycles: false };

/// Submits webhooks.
const WEBHOOKS: LoopSpec = LoopSpec { name: "jobs webhooks", pause: |_| LOOK, has_long_cycles: false };

/// Reads the newest snapshot for streams.
const STREAM: LoopSpec = LoopSpec { name: "jobs stream", pause: |_| LOOK, has_long_cycles: false };

/// Makes partitions, empties working tables and marks workers that were not heard of.
const UPKEEP: LoopSpec =
    LoopSpec { name: "jobs upkeep", pause: |_| Duration::from_secs(5), has_long_cycles: false };

const LISTENER: ListenerSpec = ListenerSpec {
    port: Port::Jobs,
    setting: "services.jobs.address",
    address: |settings| settings.services.jobs.address.unwrap_or(Ports::DEFAULT.local(Port::Jobs)),
    move_to: |settings, port| settings.services.jobs.address.get_or_insert(local(port)).set_port(port),
    url: Some("http://{}/jobs"),
};

/// The description of the room.
pub const ROOM: Room = Room {
    name: "jobs",
    services: &[ServiceSpec {
        name: ServiceName::Jobs,
        section: "services.jobs",
        enabled: Enabled::If { setting: "services.jobs.enabled", rule: |s| s.jobs.enabled },
        listeners: &[LISTENER],
        sockets_max: no_sockets,
        dials_relays: false,
        loops: &[FOLLOWER, EXPIRY, DEPENDENCIES, FILES, SCHEDULES, WEBHOOKS, STREAM, UPKEEP],
        warnings: |settings| settings.services.jobs.warnings(),
        run_alone: |settings| {
            settings.services.jobs.address.get_or_insert(local(ALONE));
        },
        start: |registry| {
            counted(registry, JobMetrics::register, |starting, metrics| {
                Box::pin(async move {
                    let secrets = Secrets {
                        object_keys: starting.configuration.object_keys.as_ref(),
                        oidc: starting.configuration.oidc_secret.as_ref(),
                        webhooks: starting.configuration.webhook_keys.as_ref(),
                    };
                    let settings = &starting.parts.settings.services.jobs;
                    let external = External::open(settings, &secrets, starting.outside)?;
                    start(starting.parts, external, metrics, &mut starting.addresses).await.map(drop)
                })
            })
        },
    }],
    page: None,
    journals: &[
        "job_credentials",
        "job_files",
        "job_log",
        "job_schedules",
        "job_user_log",
        "job_worker_log",
        "jobs",
    ],
    projections: project::PROJECTIONS,
    checks: project::CHECKS,
    metrics: &[METRICS],
    use_sample: same_in_sample,
};

const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// What a started room gives to callers in the same process.
#[derive(Debug, Clone)]
pub struct Started {
    /// Writers of jobs.
    pub jobs: Shards<JobJournal>,
    /// Numbers for new jobs.
    pub numbers: JobNumbers,
    /// The queue as this process sees it.
    pub queue: Queue,
}

/// Starts the room, and adds the address of its listener to `addresses`. `metrics` are registered. Returns after the partitions of the coming jobs exist.
///
/// # Errors
/// When the database does not answer, the folder cannot be written, or the address cannot be listened on.
pub async fn start(
    parts: &Parts,
    external: External,
    metrics: JobMetrics,
    addresses: &mut BTreeMap<String, String>,
) -> Result<Started, BoxError> {
    let settings = parts.settings.services.jobs.clone();
    let queue = Queue::new(i64::from(settings.aging_s.get()) * 1_000_000);
    let numbers = JobNumbers::new(parts.pools.clone());
    let jobs = parts.shards(&JobJournal {
        queue: queue.clone(),
        hints: parts.hints.clone(),
        metrics: metrics.clone(),
        running_max: limits(&settings),
        numbers: numbers.clone(),
    });
    let workers = parts.writer(WorkerJournal);
    let beats = Beats::default();
    let upkeep = Upkeep::new(UpkeepParts {
        pools: parts.pools.clone(),
        leases: parts.leases.clone(),
        workers: workers.clone(),
        worker_timeout_s: settings.worker_timeout_s.get(),
        has_limits: !settings.limits.is_empty(),
    });
    upkeep.run().await?;
    if external.webhooks.is_some() {
        begin_webhooks(&parts.pools, false).await?;
    }
    let (newest, newest_seen) = watch::channel(None);
    let storage = external.objects.map(|objects| {
        let reserve_mb = parts.settings.database.reserve_mb;
        Storage::new(objects, settings.files.clone(), reserve_mb, parts.writer(FileJournal))
    });
    let checks = storage.as_ref().map(|storage| {
        FileChecks::new(FileChecksParts {
            pools: parts.pools.clone(),
            leases: parts.leases.clone(),
            objects: storage.objects().clone(),
            settings: storage.settings().clone(),
            journal: storage.journal().clone(),
            clock: Arc::clone(&parts.clock),
            multipart_time: MULTIPART_TIME,
        })
    });
    if let Some(checks) = &checks {
        checks.sweep().await?;
    }

    let address = (LISTENER.address)(&parts.settings);
    let listener = Listener::bind(LISTENER.name(), LISTENER.setting, address).await?.with_error_field();
    addresses.insert(LISTENER.name().to_owned(), listener.address().to_string());
    let state = JobsState::new(
        JobsParts {
            pools: parts.pools.clone(),
            jobs: jobs.clone(),
            workers,
            credentials: parts.writer(CredentialJournal),
            users: parts.writer(UserJournal),
            login: external.login,
            schedules: parts.writer(ScheduleJournal),
            numbers: numbers.clone(),
            queue: queue.clone(),
            beats: beats.clone(),
            storage,
            newest: newest_seen,
            lifecycle: parts.lifecycle.clone(),
            health: parts.health.clone(),
            clock: Arc::clone(&parts.clock),
            metrics: metrics.clone(),
            settings,
            request_timeout_s: parts.settings.http.request_timeout_s.get(),
        },
        listener.address(),
    );

    let follower = Follower::new(FollowerParts {
        pools: parts.pools.clone(),
        queue: queue.clone(),
        jobs: jobs.clone(),
        beats,
    });
    parts.run(&FOLLOWER, follower);
    parts.run(&EXPIRY, Expiry::new(parts.pools.clone(), jobs.clone()));
    let dependencies = Dependencies::new(parts.pools.clone(), parts.leases.clone(), jobs.clone());
    run_woken(parts, &DEPENDENCIES, dependencies);
    let schedules = Schedules::new(parts.pools.clone(), parts.leases.clone(), jobs.clone(), numbers.clone());
    parts.run(&SCHEDULES, schedules);
    // The receiver in the state of the routes belongs to no stream.
    run_woken(parts, &STREAM, SnapshotReader::new(parts.pools.clone(), newest, 1));
    parts.run(&UPKEEP, upkeep);
    if let Some(checks) = checks {
        parts.run(&FILES, checks);
    }
    let (heard, hints, stop) = (queue.clone(), parts.hints.clone(), parts.lifecycle.drain_token());
    parts.lifecycle.spawn("jobs of other processes", async move {
        Follower::listen(heard, hints, stop).await;
        Ok::<(), BoxError>(())
    });
    parts.edge.serve(&parts.lifecycle, listener, routes(state));
    let started = Started { jobs, numbers, queue };
    if let Some(webhooks) = external.webhooks {
        run_webhooks(parts, webhooks, &started, metrics);
    }
    Ok(started)
}

/// Runs the loop that submits webhooks, and a worker for each receiver.
fn run_webhooks(parts: &Parts, webhooks: WebhookReceivers, room: &Started, metrics: JobMetrics) {
    let WebhookReceivers { receivers, keys, caller } = webhooks;
    let submitting = Webhooks::new(WebhooksParts {
        pools: parts.pools.clone(),
        leases: parts.leases.clone(),
        jobs: room.jobs.clone(),
        numbers: room.numbers.clone(),
        receivers: receivers.clone(),
    });
    run_woken(parts, &WEBHOOKS, submitting);
    let shared = Arc::new(DeliveryParts {
        pools: parts.pools.clone(),
        queue: room.queue.clone(),
        jobs: room.jobs.clone(),
        caller,
        keys,
        clock: Arc::clone(&parts.clock),
        metrics,
    });
    for receiver in receivers {
        let name = format!("webhooks for {}", receiver.name);
        let worker = Deliveries::new(Arc::clone(&shared), receiver);
        let drain = parts.lifecycle.drain_token();
        parts.lifecycle.spawn(name, async move {
            worker.run(drain).await;
            Ok::<(), BoxError>(())
        });
    }
}

/// Runs `service` as the loop that `spec` describes, and at once after a hint.
fn run_woken(parts: &Parts, spec: &LoopSpec, service: impl Service) {
    let schedule = spec.schedule(&parts.settings).woken_by(parts.hints.subscribe());
    parts.lifecycle.run_service(service, schedule, parts.health.clone());
}

/// Most jobs that may run at the same time, by type.
fn limits(settings: &Jobs) -> BTreeMap<String, i32> {
    let limits = settings.limits.iter();
    limits
        .map(|limit| (limit.r#type.clone(), i32::try_from(limit.running_max.get()).unwrap_or(i32::MAX)))
        .collect()
}
