//! What a room hands over to the composition root, as data: its services, their listeners, its journals and
//! projections.
//!
//! A room describes itself in its `service.rs`; `app/registry.rs` lists the rooms. `quipu up`, `quipu run`,
//! `quipu check-config`, `quipu rebuild`, `quipu verify`, the projector, the help of the command line and the
//! layout of ports iterate over that list. No field of a description has a default, so a new room cannot
//! forget one.

mod descriptors;
mod name;
mod parts;
mod ports;
mod space;

use std::collections::BTreeMap;
use std::fmt;
use std::future::ready;

use futures_util::future::BoxFuture;

pub use name::ServiceName;
pub use parts::Parts;
pub use ports::{ListenerSpec, Port, Ports};

use crate::base::RelayUrl;
use crate::config::{Configuration, Services, Settings};
use crate::lifecycle::{BoxError, Wake};
use crate::net::Egress;
use crate::store::projection::Projection;
use crate::store::verify::Check;
use crate::telemetry::Metric;

/// One room.
#[derive(Debug)]
pub struct Room {
    /// The name of its folder in `src/services/`.
    pub name: &'static str,
    /// Its services.
    pub services: &'static [ServiceSpec],
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

/// One service: what `quipu run` calls by name.
#[derive(Debug)]
pub struct ServiceSpec {
    /// Its name.
    pub name: ServiceName,
    /// When `quipu up` runs it.
    pub enabled: Enabled,
    /// Its listeners. A service without any is found in the ready file at the address of the ops listener.
    pub listeners: &'static [ListenerSpec],
    /// Settings that are accepted but probably not meant. `quipu check-config` prints the warnings, a start
    /// logs them.
    pub warnings: fn(&Settings) -> Vec<String>,
    /// Changes the settings when `quipu run` runs this service and no other one.
    pub run_alone: fn(&mut Settings),
    /// Starts it. Everything that can fail for good fails here, not in a cycle.
    pub start: Start,
}

/// When `quipu up` runs a service. `quipu run` runs it in any case.
#[derive(Debug)]
pub enum Enabled {
    /// In every instance.
    Always,
    /// If the settings say so.
    If {
        /// The key that decides, such as `services.finder.enabled`.
        setting: &'static str,
        /// Reads it.
        rule: fn(&Services) -> bool,
    },
}

impl Enabled {
    /// Whether `quipu up` runs the service with these settings.
    #[must_use]
    pub fn holds(&self, services: &Services) -> bool {
        match self {
            Self::Always => true,
            Self::If { rule, .. } => rule(services),
        }
    }
}

/// A function that starts a service: it makes its loops and hands them to [`Parts::lifecycle`].
pub type Start = for<'a> fn(&'a mut Starting<'_>) -> BoxFuture<'a, Result<(), BoxError>>;

/// What a service is started with.
pub struct Starting<'a> {
    /// The parts that all services of the process share.
    pub parts: &'a Parts,
    /// The configuration; its settings are those of `parts`.
    pub configuration: &'a Configuration,
    /// The way to other machines, one for all services of the process.
    pub outside: &'a Egress,
    /// Woken after each tick that this process takes.
    pub ticked: &'a Wake,
    /// The projections of all rooms.
    pub projections: &'a [&'static Projection],
    /// The addresses of everything that was started before, as `host:port` by the names of the ready file. A
    /// service adds those of its listeners.
    pub addresses: BTreeMap<String, String>,
}

impl fmt::Debug for Starting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Starting").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// For services that start without waiting for anything.
#[must_use]
pub fn done<'a>(started: Result<(), BoxError>) -> BoxFuture<'a, Result<(), BoxError>> {
    Box::pin(ready(started))
}

/// For services without warnings.
#[must_use]
pub fn no_warnings(_: &Settings) -> Vec<String> {
    Vec::new()
}

/// For services that keep their settings when they run alone.
pub fn same_alone(_: &mut Settings) {}

/// For rooms that contact nothing outside the instance.
pub fn same_in_sample(_: &mut Settings, _: &RelayUrl) {}
