//! The service `messages`: two listeners with the same routes, a loop that removes expired messages, and a
//! loop that follows the messages that other processes accept.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::append::{MessageJournal, SHARDS, Shards, Subscribers, TokenJournal, challenge_key};
use super::edge::{MessagesParts, MessagesState, routes};
use super::metrics::MessageMetrics;
use super::react::{Follower, Sweeper, SweeperParts};
use super::read::DatabaseClock;
use crate::config::Messages;
use crate::http::Listener;
use crate::lifecycle::{BoxError, Schedule};
use crate::room::{
    Enabled, ListenerSpec, Parts, Port, Ports, Room, ServiceName, ServiceSpec, same_in_sample,
};

/// Pause between two queries for messages whose hint was lost.
const LOOK: Duration = Duration::from_secs(3);

/// The ports of aethos-relay, whose place `quipu run messages` takes: its clients know them.
const ALONE: [u16; 2] = [8080, 8081];

/// Where clients connect.
const SOCKETS: ListenerSpec = ListenerSpec {
    port: Port::Messages,
    setting: "services.messages.ws_address",
    move_to: |settings, port| move_to(&mut settings.services.messages.ws_address, port),
    url: Some("ws://{}/ws"),
};

/// Health and metrics, as aethos-relay has them.
const HTTP: ListenerSpec = ListenerSpec {
    port: Port::MessagesHttp,
    setting: "services.messages.http_address",
    move_to: |settings, port| move_to(&mut settings.services.messages.http_address, port),
    url: None,
};

/// The description of the room.
pub const ROOM: Room = Room {
    name: "messages",
    services: &[ServiceSpec {
        name: ServiceName::Messages,
        enabled: Enabled::If { setting: "services.messages.enabled", rule: |s| s.messages.enabled },
        listeners: &[SOCKETS, HTTP],
        warnings: |settings| settings.services.messages.warnings(),
        run_alone: |settings| {
            let messages = &mut settings.services.messages;
            messages.ws_address.get_or_insert(local(ALONE[0]));
            messages.http_address.get_or_insert(local(ALONE[1]));
        },
        start: |starting| Box::pin(start(starting.parts, &mut starting.addresses)),
    }],
    journals: &["message_log", "message_payloads", "message_tokens"],
    projections: &[],
    checks: &[],
    use_sample: same_in_sample,
};

const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

fn move_to(address: &mut Option<SocketAddr>, port: u16) {
    address.get_or_insert(local(port)).set_port(port);
}

/// Starts the room, and adds the addresses of its listeners to `addresses`. Returns after the partitions of
/// the coming hours exist, so that the first message finds its own.
///
/// # Errors
/// When the database does not answer, or an address cannot be listened on.
pub async fn start(parts: &Parts, addresses: &mut BTreeMap<String, String>) -> Result<(), BoxError> {
    let settings = parts.settings.services.messages.clone();
    let message_metrics = MessageMetrics::default();
    parts.metrics.register(|registry| message_metrics.register(registry));
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
    let state = MessagesState::new(MessagesParts {
        pools: parts.pools.clone(),
        messages: Shards::new([(); SHARDS].map(|()| parts.writer(journal.clone()))),
        tokens: parts.writer(TokenJournal),
        subscribers: subscribers.clone(),
        database_clock,
        clock: Arc::clone(&parts.clock),
        lifecycle: parts.lifecycle.clone(),
        message_metrics,
        metrics: parts.metrics.clone(),
        settings: settings.clone(),
    });
    let pause = Duration::from_secs(settings.sweep_interval_s.get().into());
    parts.lifecycle.run_service(sweeper, Schedule::every(pause), parts.health.clone());
    let follower = Follower::new(parts.pools.clone(), subscribers);
    parts.lifecycle.run_service(follower.clone(), Schedule::every(LOOK), parts.health.clone());
    let (hints, stop) = (parts.hints.clone(), parts.lifecycle.drain_token());
    parts.lifecycle.spawn("messages of other processes", async move {
        follower.listen(hints, stop).await;
        Ok::<(), BoxError>(())
    });
    for (spec, address) in [(SOCKETS, settings.ws_address), (HTTP, settings.http_address)] {
        let address = address.unwrap_or(Ports::DEFAULT.local(spec.port));
        let listener = Listener::bind(spec.name(), spec.setting, address)
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
