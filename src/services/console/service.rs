//! The service `console`: one listener, and the loop behind its streams.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{ConsoleParts, ConsoleState, routes, trends, watcher};
use crate::config::Console;
use crate::http::Listener;
use crate::lifecycle::BoxError;
use crate::room::{
    Enabled, ListenerSpec, LoopSpec, Page, Port, Room, ServiceName, ServiceSpec, Starting, no_sockets,
    no_warnings, same_alone, same_in_sample, uncounted,
};

const LISTENER: ListenerSpec = ListenerSpec {
    port: Port::Console,
    setting: "http.console_address",
    address: |settings| settings.http.console_address,
    move_to: |settings, port| settings.http.console_address.set_port(port),
    // The summary's first line.
    url: None,
};

/// Polls for new ticks, because hints can be lost.
const WATCHER: LoopSpec =
    LoopSpec { name: "console", pause: |_| Duration::from_secs(1), has_long_cycles: false };

/// Samples what has a trend; the history covers a day of such samples.
const TRENDS: LoopSpec =
    LoopSpec { name: "trends", pause: |_| Duration::from_mins(5), has_long_cycles: false };

/// The description of the room.
pub const ROOM: Room = Room {
    name: "console",
    services: &[ServiceSpec {
        name: ServiceName::Console,
        section: "services.console",
        enabled: Enabled::If { setting: "services.console.enabled", rule: |s| s.console.enabled },
        listeners: &[LISTENER],
        sockets_max: no_sockets,
        dials_relays: false,
        loops: &[WATCHER, TRENDS],
        warnings: no_warnings,
        run_alone: same_alone,
        start: |_| uncounted(|starting| Box::pin(start(starting))),
    }],
    page: Some(Page { path: "/", title: "Overview" }),
    journals: &[],
    projections: &[],
    checks: &[],
    metrics: &[],
    use_sample: same_in_sample,
};

async fn start(starting: &mut Starting<'_>) -> Result<(), BoxError> {
    let parts = starting.parts;
    let address = (LISTENER.address)(&parts.settings);
    let listener = Listener::bind(LISTENER.name(), LISTENER.setting, address).await?;
    starting.addresses.insert(LISTENER.name().to_owned(), listener.address().to_string());
    let state = ConsoleState::new(ConsoleParts {
        pools: parts.pools.clone(),
        health: parts.health.clone(),
        lifecycle: parts.lifecycle.clone(),
        space: parts.space.clone(),
        clock: Arc::clone(&parts.clock),
        listeners: listeners(&starting.addresses),
        blob_target: parts.settings.services.blossom.wanted_copies(),
        pages: starting.pages.iter().map(|page| (page.path, page.title)).collect(),
        links: links(&parts.settings.services.console),
    });
    let (watcher, pace) = watcher(&state, WATCHER.schedule(&parts.settings), &parts.hints);
    parts.lifecycle.run_service(watcher, pace, parts.health.clone());
    parts.run(&TRENDS, trends(&state));
    parts.edge.serve(&parts.lifecycle, listener, routes(state));
    Ok(())
}

/// Each listener once. The ready file also names the services without a listener, at the address of `ops`.
fn listeners(addresses: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let ops = addresses.get("ops");
    let is_listener = |(name, address): &(&String, &String)| *name == "ops" || Some(*address) != ops;
    addresses.iter().filter(is_listener).map(|(name, address)| (name.clone(), address.clone())).collect()
}

/// The programs whose address is set.
fn links(settings: &Console) -> Vec<(&'static str, String)> {
    let all = [
        ("Grafana", &settings.grafana_url),
        ("Prometheus", &settings.prometheus_url),
        ("Alertmanager", &settings.alertmanager_url),
    ];
    all.into_iter().filter_map(|(title, url)| Some((title, url.clone()?))).collect()
}
