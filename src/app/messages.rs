//! The room of messages: two listeners with the same routes, a sweeper, and a follower of other processes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::{Parts, Ports};
use crate::config::Messages;
use crate::http::Listener;
use crate::lifecycle::{BoxError, Pace};
use crate::services::messages::append::{Exchange, MessageJournal};
use crate::services::messages::edge::{MessagesParts, MessagesState, routes};
use crate::services::messages::metrics::MessageMetrics;
use crate::services::messages::react::{Follower, Sweeper, SweeperParts};
use crate::services::messages::read::DatabaseClock;

/// How often the database is looked at for what hints did not tell.
const LOOK: Duration = Duration::from_secs(3);

/// Starts everything; returns after the hours of payloads are there, so that the first message finds its own.
///
/// # Errors
/// When the database does not answer, or an address cannot be listened on.
pub async fn start_messages(parts: &Parts, addresses: &mut BTreeMap<String, String>) -> Result<()> {
    let settings = parts.settings.services.messages.clone();
    for warning in settings.warnings() {
        tracing::warn!("{warning}");
    }
    let counted = MessageMetrics::default();
    parts.metrics.register(|registry| counted.register(registry));
    let exchange = Exchange::default();
    let database_clock = DatabaseClock::measured(&parts.doors.session).await?;
    let sweeper = Sweeper::new(SweeperParts {
        doors: parts.doors.clone(),
        database_clock: database_clock.clone(),
        clock: Arc::clone(&parts.clock),
        metrics: counted.clone(),
        settings: settings.clone(),
    });
    sweeper.sweep().await?;
    counted.swept(parts.clock.now().timestamp(), true);
    let journal =
        MessageJournal { exchange: exchange.clone(), hints: parts.hints.clone(), metrics: counted.clone() };
    let state = MessagesState::new(MessagesParts {
        doors: parts.doors.clone(),
        messages: parts.message_lanes(&journal),
        tokens: parts.token_writer(),
        exchange: exchange.clone(),
        database_clock,
        clock: Arc::clone(&parts.clock),
        lifecycle: parts.lifecycle.clone(),
        counted,
        metrics: parts.metrics.clone(),
        settings: settings.clone(),
    });
    let pause = Duration::from_secs(settings.sweep_interval_s.get().into());
    parts.lifecycle.run_service(sweeper, Pace::every(pause), parts.health.clone());
    let follower = Follower::new(parts.doors.clone(), exchange);
    parts.lifecycle.run_service(follower.clone(), Pace::every(LOOK), parts.health.clone());
    let (hints, stop) = (parts.hints.clone(), parts.lifecycle.drain_token());
    parts.lifecycle.spawn("messages of other processes", async move {
        follower.listen(hints, stop).await;
        Ok::<(), BoxError>(())
    });
    let local = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    for (name, setting, address, port) in [
        ("messages", "services.messages.ws_address", settings.ws_address, Ports::DEFAULT.messages()),
        (
            "messages-http",
            "services.messages.http_address",
            settings.http_address,
            Ports::DEFAULT.messages_http(),
        ),
    ] {
        let listener = Listener::bind(name, setting, address.unwrap_or(local(port)))
            .await?
            .with_host(relay_host(&settings))
            .with_sockets(settings.connections_max.get(), settings.connections_per_address_max.get());
        addresses.insert(name.to_owned(), listener.address().to_string());
        let routes = routes(&state, listener.address());
        parts.edge.serve(&parts.lifecycle, listener, routes);
    }
    Ok(())
}

/// The host of `relay_id`, where that is the URL under which clients reach this relay.
fn relay_host(settings: &Messages) -> Option<String> {
    url::Url::parse(&settings.relay_id).ok()?.host_str().map(str::to_owned)
}
