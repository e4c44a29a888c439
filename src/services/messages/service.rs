//! The service `messages`: two listeners with the same routes, a loop that removes expired messages, and a
//! loop that follows the messages that other processes accept.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::append::{MessageJournal, Subscribers, TokenJournal, challenge_key};
use super::edge::{MessagesParts, MessagesState, routes};
use super::metrics::{METRICS, MessageMetrics};
use super::react::{Follower, Sweeper, SweeperParts};
use super::read::DatabaseClock;
use crate::config::Messages;
use crate::http::Listener;
use crate::lifecycle::BoxError;
use crate::room::{
    Enabled, ListenerSpec, LoopSpec, Parts, Port, Ports, Room, ServiceName, ServiceSpec, counted,
    same_in_sample,
};

/// The ports of aethos-relay, whose place `quipu run messages` takes: its clients know them.
const ALONE: [u16; 2] = [8080, 8081];

/// Where clients connect.
const SOCKETS: ListenerSpec = ListenerSpec {
    port: Port::Messages,
    setting: "services.messages.ws_address",
    address: |settings| or_local(settings.services.messages.ws_address, Port::Messages),
    move_to: |settings, port| move_to(&mut settings.services.messages.ws_address, port),
    url: Some("ws://{}/ws"),
};

/// Health and metrics, as aethos-relay has them.
const HTTP: ListenerSpec = ListenerSpec {
    port: Port::MessagesHttp,
    setting: "services.messages.http_address",
    address: |settings| or_local(settings.services.messages.http_address, Port::MessagesHttp),
    move_to: |settings, port| move_to(&mut settings.services.messages.http_address, port),
    url: None,
};

/// Removes expired messages and makes the partitions of the coming hours.
const SWEEPER: LoopSpec = LoopSpec {
    name: "messages",
    pause: |settings| Duration::from_secs(settings.services.messages.sweep_interval_s.get().into()),
    has_long_cycles: false,
};

/// Reads messages of other processes whose hint was lost.
const FOLLOWER: LoopSpec =
    LoopSpec { name: "messages follower", pause: |_| Duration::from_secs(3), has_long_cycles: false };

/// The description of the room.
pub const ROOM: Room = Room {
    name: "messages",
    services: &[ServiceSpec {
        name: ServiceName::Messages,
        section: "services.messages",
        enabled: Enabled::If { setting: "services.messages.enabled", rule: |s| s.messages.enabled },
        listeners: &[SOCKETS, HTTP],
        sockets_max: |settings| settings.services.messages.connections_max.get(),
        dials_relays: false,
        loops: &[SWEEPER, FOLLOWER],
        warnings: |settings| settings.services.messages.warnings(),
        run_alone: |settings| {
            let messages = &mut settings.services.messages;
            messages.ws_address.get_or_insert(local(ALONE[0]));
            messages.http_address.get_or_insert(local(ALONE[1]));
        },
        start: |registry| {
            counted(registry, MessageMetrics::register, |starting, metrics| {
                Box::pin(start(starting.parts, metrics, &mut starting.addresses))
            })
        },
    }],
    page: None,
    journals: &["message_log", "message_payloads", "message_tokens"],
    projections: &[],
    checks: &[],
    metrics: &[METRICS],
    use_sample: same_in_sample,
};

const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

fn or_local(address: Option<SocketAddr>, port: Port) -> SocketAddr {
    address.unwrap_or(Ports::DEFAULT.local(port))
}

fn move_to(address: &mut Option<SocketAddr>, port: u16) {
    address.get_or_insert(local(port)).set_port(port);
}

/// Starts the room, and adds the addresses of its listeners to `addresses`. `message_metrics` are registered.
/// Returns after the partitions of the coming hours exist, so that the first message finds its own.
///
/// # Errors
/// When the database does not answer, or an address cannot be listened on.
pub async fn start(
    parts: &Parts,
    message_metrics: MessageMetrics,
    addresses: &mut BTreeMap<String, String>,
) -> Result<(), BoxError> {
    let settings = parts.settings.services.messages.clone();
    let subscribers = Subscribers::new(challenge_key(&parts.pools, rand::random()).await?);
    let database_clock = DatabaseClock::measured(&parts.pools.session).await?;
    let sweeper = Sweeper::new(SweeperParts {
        pools: parts.pools.clone(),
        database_clock: database_clock.clone(),
        clock: Arc::clone(&parts.clock),
        metrics: message_metrics.clone(),
        settings: settings.clone(),
    });
    sweeper.sweep().await?;
    message_metrics.swept(parts.clock.now().timestamp(), true);
    let journal = MessageJournal {
        subscribers: subscribers.clone(),
        hints: parts.hints.clone(),
        metrics: message_metrics.clone(),
    };
    let shown = message_metrics.alone();
    let state = MessagesState::new(MessagesParts {
        pools: parts.pools.clone(),
        messages: parts.shards(&journal),
        tokens: parts.writer(TokenJournal),
        subscribers: subscribers.clone(),
        database_clock,
        clock: Arc::clone(&parts.clock),
        lifecycle: parts.lifecycle.clone(),
        message_metrics,
        metrics: shown,
        settings: settings.clone(),
    });
    parts.run(&SWEEPER, sweeper);
    let follower = Follower::new(parts.pools.clone(), subscribers);
    parts.run(&FOLLOWER, follower.clone());
    let (hints, stop) = (parts.hints.clone(), parts.lifecycle.drain_token());
    parts.lifecycle.spawn("messages of other processes", async move {
        follower.listen(hints, stop).await;
        Ok::<(), BoxError>(())
    });
    for spec in [SOCKETS, HTTP] {
        let listener = Listener::bind(spec.name(), spec.setting, (spec.address)(&parts.settings))
            .await?
            .with_host(relay_host(&settings))
            .with_sockets(settings.connections_max.get(), settings.connections_per_address_max.get());
        addresses.insert(spec.name().to_owned(), listener.address().to_string());
        let routes = routes(&state, listener.address());
        parts.edge.serve(&parts.lifecycle, listener, routes);
    }
    Ok(())
}

/// The host of `relay_id`, if that is the URL under which clients reach this relay.
fn relay_host(settings: &Messages) -> Option<String> {
    url::Url::parse(&settings.relay_id).ok()?.host_str().map(str::to_owned)
}
