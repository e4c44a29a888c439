//! The list of rooms, and everything that is derived from it. A new room is one line in [`ROOMS`].

use super::upkeep;
use crate::base::Secret;
use crate::config::{Services, Settings};
use crate::room::{ListenerSpec, Page, Room, ServiceName, ServiceSpec};
use crate::services::{archive, blossom, console, jobs, messages, observer};
use crate::store::Error;
use crate::store::projection::Projection;
use crate::store::verify::{self, Finding};
use crate::telemetry::Metric;

/// Every room, and the services that serve all rooms.
pub const ROOMS: &[Room] =
    &[upkeep::ROOM, archive::ROOM, observer::ROOM, messages::ROOM, jobs::ROOM, blossom::ROOM, console::ROOM];

/// The description of one service.
#[must_use]
pub fn service(name: ServiceName) -> &'static ServiceSpec {
    let mut all = ROOMS.iter().flat_map(|room| room.services);
    all.find(|service| service.name == name).expect("a test finds every name in exactly one room")
}

/// Every service, in the order in which `quipu up` starts them.
pub fn services() -> impl Iterator<Item = &'static ServiceSpec> {
    ServiceName::ALL.into_iter().map(service)
}

/// The services that `quipu up` runs with these settings, in the order in which they start.
#[must_use]
pub fn enabled(settings: &Services) -> Vec<ServiceName> {
    services().filter(|service| service.enabled.holds(settings)).map(|service| service.name).collect()
}

/// Every listener of every service.
pub fn listeners() -> impl Iterator<Item = &'static ListenerSpec> {
    services().flat_map(|service| service.listeners)
}

/// The pages of the console, in the order of its navigation.
pub fn pages() -> impl Iterator<Item = Page> {
    ROOMS.iter().filter_map(|room| room.page)
}

/// Warnings about settings that are accepted but probably not meant.
#[must_use]
pub fn warnings(settings: &Settings) -> Vec<String> {
    services().flat_map(|service| (service.warnings)(settings)).collect()
}

/// The projections of all rooms.
pub fn projections() -> impl Iterator<Item = &'static Projection> {
    ROOMS.iter().flat_map(|room| room.projections)
}

/// The metrics of all rooms.
pub fn metrics() -> impl Iterator<Item = &'static Metric> {
    ROOMS.iter().flat_map(|room| room.metrics).copied().flatten()
}

/// Verifies the catalog, and the checks and projections of all rooms. `owner` is the owner's URL.
pub async fn verify_tables(owner: &Secret) -> Result<Vec<Finding>, Error> {
    verify::tables(owner, ROOMS.iter().flat_map(|room| room.checks), projections()).await
}
