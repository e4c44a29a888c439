//! The service `blossom`: one listener, and the loops that keep blobs in enough copies.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::append::{BlobJournal, Changes};
use super::decide::authorization::host_of;
use super::edge::{BlossomParts, BlossomState, cors_rules, routes};
use super::metrics::{BlobMetrics, METRICS};
use super::project;
use super::react::{Guardian, Prove, ReactParts, References, Repair, Upkeep, Verify};
use super::upstream::{UpstreamKeys, Upstreams};
use crate::http::Listener;
use crate::lifecycle::{BoxError, Service};
use crate::net::Egress;
use crate::room::{
    Enabled, ListenerSpec, LoopSpec, Page, Parts, Port, Ports, Room, ServiceName, ServiceSpec, counted,
    no_sockets,
};
use crate::store::append::Writer;

/// The port of Blossom Espelhator, whose place `quipu run blossom` takes.
const ALONE: u16 = 8080;

/// Reads new copies back. The pause is short: a blob is redirected to only when it was read back.
const VERIFY: LoopSpec =
    LoopSpec { name: "blossom verify", pause: |_| Duration::from_secs(1), has_long_cycles: false };

/// Proves old copies again.
const PROVE: LoopSpec =
    LoopSpec { name: "blossom prove", pause: |_| Duration::from_secs(1), has_long_cycles: true };

/// Copies what has too few copies.
const REPAIR: LoopSpec =
    LoopSpec { name: "blossom repair", pause: |_| Duration::from_secs(1), has_long_cycles: true };

/// Searches events of followed keys for blobs.
const REFERENCES: LoopSpec =
    LoopSpec { name: "blossom references", pause: |_| Duration::from_secs(5), has_long_cycles: true };

/// Fetches what they refer to.
const GUARDIAN: LoopSpec =
    LoopSpec { name: "blossom guardian", pause: |_| Duration::from_secs(5), has_long_cycles: true };

/// Asks upstreams that rest whether they work again, and sweeps folders.
const UPKEEP: LoopSpec =
    LoopSpec { name: "blossom upkeep", pause: |_| Duration::from_secs(5), has_long_cycles: false };

const LISTENER: ListenerSpec = ListenerSpec {
    port: Port::Blossom,
    setting: "services.blossom.address",
    address: |settings| settings.services.blossom.address.unwrap_or(Ports::DEFAULT.local(Port::Blossom)),
    move_to: |settings, port| settings.services.blossom.address.get_or_insert(local(port)).set_port(port),
    url: Some("http://{}/"),
};

/// The description of the room.
pub const ROOM: Room = Room {
    name: "blossom",
    services: &[ServiceSpec {
        name: ServiceName::Blossom,
        section: "services.blossom",
        enabled: Enabled::If { setting: "services.blossom.enabled", rule: |s| s.blossom.enabled },
        listeners: &[LISTENER],
        sockets_max: no_sockets,
        dials_relays: false,
        loops: &[VERIFY, PROVE, REPAIR, REFERENCES, GUARDIAN, UPKEEP],
        warnings: |settings| settings.services.blossom.warnings(),
        run_alone: |settings| {
            settings.services.blossom.address.get_or_insert(local(ALONE));
        },
        start: |registry| {
            counted(registry, BlobMetrics::register, |starting, metrics| {
                Box::pin(async move {
                    let keys = UpstreamKeys {
                        signer: starting.configuration.blossom_key.clone(),
                        objects: starting.configuration.blob_keys.clone(),
                    };
                    let (parts, outside) = (starting.parts, starting.outside);
                    start(parts, &keys, outside, metrics, &mut starting.addresses).await.map(drop)
                })
            })
        },
    }],
    page: Some(Page { path: "/blobs", title: "Blobs" }),
    journals: &["blob_follows", "blob_log", "blob_reports", "blob_wanted", "blobs"],
    projections: project::PROJECTIONS,
    checks: project::CHECKS,
    metrics: &[METRICS],
    // The built-in store alone.
    use_sample: |settings, _| {
        let blossom = &mut settings.services.blossom;
        blossom.upstreams.clear();
        blossom.replicas_min = std::num::NonZeroU32::MIN;
        blossom.replicas_target = None;
    },
};

const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// What a started room gives to callers in the same process.
#[derive(Debug, Clone)]
pub struct Started {
    /// Writer of the journals of blobs.
    pub journal: Writer<BlobJournal>,
    /// The upstreams.
    pub upstreams: Arc<Upstreams>,
}

/// Starts the room, and adds the address of its listener to `addresses`. `metrics` are registered.
///
/// # Errors
/// When an upstream cannot be opened, or the address cannot be listened on.
pub async fn start(
    parts: &Parts,
    keys: &UpstreamKeys,
    outside: &Egress,
    metrics: BlobMetrics,
    addresses: &mut BTreeMap<String, String>,
) -> Result<Started, BoxError> {
    let settings = parts.settings.services.blossom.clone();
    let upstreams = Upstreams::open(&settings, keys, outside, &parts.clock, &metrics)?;
    let upstreams = Arc::new(upstreams);
    let changes = Changes::new(parts.hints.clone());
    let journal = parts.writer(BlobJournal { changes: changes.clone() });
    let address = (LISTENER.address)(&parts.settings);
    let host = settings.public_url.as_deref().map(host_of);
    let listener = Listener::bind(LISTENER.name(), LISTENER.setting, address).await?;
    let listener = listener.with_host(host).with_cors(cors_rules()).with_reason_field();
    addresses.insert(LISTENER.name().to_owned(), listener.address().to_string());
    let state = BlossomState::new(
        BlossomParts {
            pools: parts.pools.clone(),
            journal: journal.clone(),
            upstreams: Arc::clone(&upstreams),
            changes: changes.clone(),
            lifecycle: parts.lifecycle.clone(),
            clock: Arc::clone(&parts.clock),
            metrics: metrics.clone(),
            hosts: parts.settings.http.hosts.clone(),
            settings: settings.clone(),
        },
        listener.address(),
    );
    let react = Arc::new(ReactParts {
        pools: parts.pools.clone(),
        leases: parts.leases.clone(),
        journal: journal.clone(),
        upstreams: Arc::clone(&upstreams),
        clock: Arc::clone(&parts.clock),
        settings,
        metrics,
    });
    run_woken(parts, &VERIFY, Verify::new(Arc::clone(&react)));
    parts.run(&PROVE, Prove::new(Arc::clone(&react)));
    run_woken(parts, &REPAIR, Repair::new(Arc::clone(&react)));
    run_woken(parts, &REFERENCES, References::new(Arc::clone(&react)));
    parts.run(&GUARDIAN, Guardian::new(react));
    parts.run(&UPKEEP, Upkeep::new(Arc::clone(&upstreams), Arc::clone(&parts.clock)));
    let stop = parts.lifecycle.drain_token();
    parts.lifecycle.spawn("blobs of other processes", async move {
        changes.listen(stop).await;
        Ok::<(), BoxError>(())
    });
    parts.edge.serve(&parts.lifecycle, listener, routes(state));
    Ok(Started { journal, upstreams })
}

/// Runs `service` as the loop that `spec` describes, and at once after a hint.
fn run_woken(parts: &Parts, spec: &LoopSpec, service: impl Service) {
    let schedule = spec.schedule(&parts.settings).woken_by(parts.hints.subscribe());
    parts.lifecycle.run_service(service, schedule, parts.health.clone());
}
