//! What a room hands over to the composition root, as data: its services with their settings, listeners, loops
//! and metrics, its page of the console, its journals and projections.
//!
//! A room describes itself in its `service.rs`; `app/registry.rs` lists the rooms. `quipu up`, `quipu run`,
//! `quipu check-config`, `quipu rebuild`, `quipu verify`, the projector, the console's navigation, the help of
//! the command line and the layout of ports iterate over that list. No field of a description has a default,
//! so a new room cannot forget one.

mod database;
mod descriptors;
mod loops;
mod name;
mod parts;
mod ports;
mod service;
mod space;
mod starting;

pub use descriptors::DescriptorNeeds;
pub use loops::LoopSpec;
pub use name::ServiceName;
pub use parts::Parts;
pub use ports::{ListenerSpec, Port, Ports};
pub use service::{Enabled, ServiceSpec, no_sockets, no_warnings, same_alone};
pub use starting::{Launch, Start, Starting, counted, done, uncounted};

use crate::base::RelayUrl;
use crate::config::Settings;
use crate::store::projection::Projection;
use crate::store::verify::Check;
use crate::telemetry::Metric;

/// One room.
#[derive(Debug)]
pub struct Room {
    /// The name of its folder in `src/services/`, or `upkeep`: the services that serve all rooms.
    pub name: &'static str,
    /// Its services.
    pub services: &'static [ServiceSpec],
    /// Its page of the console, if it has one.
    pub page: Option<Page>,
    /// The journals it owns. Each journal of the registry of tables belongs to exactly one room.
    pub journals: &'static [&'static str],
    /// Its projections, for `quipu rebuild`, `quipu verify` and the projector.
    pub projections: &'static [Projection],
    /// What `quipu verify` checks beyond its projections.
    pub checks: &'static [Check],
    /// The metrics that it exports, for `docs/metrics.md`.
    pub metrics: &'static [&'static [Metric]],
    /// Changes the settings for `quipu up --sample`, so that the room contacts the sample relay and nothing
    /// else.
    pub use_sample: fn(&mut Settings, &RelayUrl),
}

/// A page of the console. The console links to the pages of all rooms, in the order of the rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Its path at the console's listener, such as `/`.
    pub path: &'static str,
    /// Its name in the console's navigation.
    pub title: &'static str,
}

/// For rooms that contact nothing outside the instance.
pub fn same_in_sample(_: &mut Settings, _: &RelayUrl) {}
