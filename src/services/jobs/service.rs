//! The service `jobs`: one listener, and the loops behind it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::sync::watch;

use super::append::{
    Beats, CredentialJournal, JobJournal, JobNumbers, Queue, ScheduleJournal, WorkerJournal,
};
use super::edge::{JobsParts, JobsState, routes};
use super::metrics::JobMetrics;
use super::project;
use super::react::{
    Dependencies, Expiry, Follower, FollowerParts, Schedules, SnapshotReader, Upkeep, UpkeepParts,
};
use crate::config::Jobs;
use crate::http::Listener;
use crate::lifecycle::{BoxError, Schedule};
use crate::room::{
    Enabled, ListenerSpec, Parts, Port, Ports, Room, ServiceName, ServiceSpec, same_in_sample,
};
use crate::store::append::Writer;

/// The port of BlobForge, whose place `quipu run jobs` takes: its clients know it.
const ALONE: u16 = 8080;

/// Pause between two searches for expired leases: a job is claimed again within two seconds.
const EXPIRY: Duration = Duration::from_millis(500);

/// Pause between two looks of the loops that hints do not wake, or not in every case.
const LOOK: Duration = Duration::from_secs(1);

/// Pause between two rounds of upkeep.
const UPKEEP: Duration = Duration::from_secs(5);

const LISTENER: ListenerSpec = ListenerSpec {
    port: Port::Jobs,
    setting: "services.jobs.address",
    move_to: |settings, port| {
        let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        settings.services.jobs.address.get_or_insert(local).set_port(port);
    },
    url: Some("http://{}/api/jobs"),
};

/// The description of the room.
pub const ROOM: Room = Room {
    name: "jobs",
    services: &[ServiceSpec {
        name: ServiceName::Jobs,
        enabled: Enabled::If { setting: "services.jobs.enabled", rule: |s| s.jobs.enabled },
        listeners: &[LISTENER],
        warnings: |settings| settings.services.jobs.warnings(),
        run_alone: |settings| {
            let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), ALONE);
            settings.services.jobs.address.get_or_insert(local);
        },
        start: |starting| {
            Box::pin(async move { start(starting.parts, &mut starting.addresses).await.map(|_| ()) })
        },
    }],
    journals: &["job_credentials", "job_log", "job_schedules", "job_worker_log", "jobs"],
    projections: project::PROJECTIONS,
    checks: project::CHECKS,
    use_sample: same_in_sample,
};

/// What a started room gives to callers in the same process.
#[derive(Debug, Clone)]
pub struct Started {
    /// Writer of jobs.
    pub jobs: Writer<JobJournal>,
    /// Numbers for new jobs.
    pub numbers: JobNumbers,
    /// The queue as this process sees it.
    pub queue: Queue,
}

/// Starts the room, and adds the address of its listener to `addresses`. Returns after the partitions of the
/// coming jobs exist.
///
/// # Errors
/// When the database does not answer, or the address cannot be listened on.
pub async fn start(parts: &Parts, addresses: &mut BTreeMap<String, String>) -> Result<Started, BoxError> {
    let settings = parts.settings.services.jobs.clone();
    let metrics = JobMetrics::default();
    parts.metrics.register(|registry| metrics.register(registry));
    let queue = Queue::new(i64::from(settings.aging_s.get()) * 1_000_000);
    let jobs = parts.writer(JobJournal {
        queue: queue.clone(),
        hints: parts.hints.clone(),
        metrics: metrics.clone(),
        running_max: limits(&settings),
    });
    let workers = parts.writer(WorkerJournal);
    let numbers = JobNumbers::new(parts.pools.clone());
    let beats = Beats::default();
    let upkeep = Upkeep::new(UpkeepParts {
        pools: parts.pools.clone(),
        leases: parts.leases.clone(),
        workers: workers.clone(),
        worker_timeout_s: settings.worker_timeout_s.get(),
        has_limits: !settings.limits.is_empty(),
    });
    upkeep.run().await?;
    let (newest, newest_seen) = watch::channel(None);

    let address = settings.address.unwrap_or(Ports::DEFAULT.local(LISTENER.port));
    let listener = Listener::bind(LISTENER.name(), LISTENER.setting, address).await?.with_error_field();
    addresses.insert(LISTENER.name().to_owned(), listener.address().to_string());
    let state = JobsState::new(
        JobsParts {
            pools: parts.pools.clone(),
            jobs: jobs.clone(),
            workers,
            credentials: parts.writer(CredentialJournal),
            schedules: parts.writer(ScheduleJournal),
            numbers: numbers.clone(),
            queue: queue.clone(),
            beats: beats.clone(),
            newest: newest_seen,
            lifecycle: parts.lifecycle.clone(),
            health: parts.health.clone(),
            metrics,
            settings,
            request_timeout_s: parts.settings.http.request_timeout_s.get(),
        },
        listener.address(),
    );

    let (lifecycle, health) = (&parts.lifecycle, &parts.health);
    let woken = || parts.hints.subscribe();
    let follower = Follower::new(FollowerParts {
        pools: parts.pools.clone(),
        queue: queue.clone(),
        jobs: jobs.clone(),
        beats,
    });
    lifecycle.run_service(follower, Schedule::every(LOOK), health.clone());
    let expiry = Expiry::new(parts.pools.clone(), jobs.clone());
    lifecycle.run_service(expiry, Schedule::every(EXPIRY), health.clone());
    let dependencies = Dependencies::new(parts.pools.clone(), parts.leases.clone(), jobs.clone());
    lifecycle.run_service(dependencies, Schedule::every(LOOK).woken_by(woken()), health.clone());
    let schedules = Schedules::new(parts.pools.clone(), parts.leases.clone(), jobs.clone(), numbers.clone());
    lifecycle.run_service(schedules, Schedule::every(LOOK), health.clone());
    // The receiver in the state of the routes belongs to no stream.
    let reader = SnapshotReader::new(parts.pools.clone(), newest, 1);
    lifecycle.run_service(reader, Schedule::every(LOOK).woken_by(woken()), health.clone());
    lifecycle.run_service(upkeep, Schedule::every(UPKEEP), health.clone());
    let (heard, hints, stop) = (queue.clone(), parts.hints.clone(), lifecycle.drain_token());
    lifecycle.spawn("jobs of other processes", async move {
        Follower::listen(heard, hints, stop).await;
        Ok::<(), BoxError>(())
    });
    parts.edge.serve(lifecycle, listener, routes(state));
    Ok(Started { jobs, numbers, queue })
}

/// Most jobs that may run at the same time, by type.
fn limits(settings: &Jobs) -> BTreeMap<String, i32> {
    let limits = settings.limits.iter();
    limits
        .map(|limit| (limit.r#type.clone(), i32::try_from(limit.running_max.get()).unwrap_or(i32::MAX)))
        .collect()
}
