//! The description of a service.

use std::time::Duration;

use super::{ListenerSpec, ServiceName, Start};
use crate::config::{Services, Settings};
use crate::lifecycle::Schedule;

/// One service: what `quipu run` calls by name.
#[derive(Debug)]
pub struct ServiceSpec {
    /// Its name.
    pub name: ServiceName,
    /// The section of its settings, such as `services.finder`.
    pub section: &'static str,
    /// When `quipu up` runs it.
    pub enabled: Enabled,
    /// Its listeners. A service without any is found in the ready file at the address of the ops listener.
    pub listeners: &'static [ListenerSpec],
    /// The connections that its settings allow at one of its listeners beyond `http.connections_max`.
    pub sockets_max: fn(&Settings) -> usize,
    /// Whether it connects to relays, in each network to at most `relays_at_once` at the same time. That many
    /// descriptors are kept for it.
    pub dials_relays: bool,
    /// Its loops. `health`, the console and the metrics of cycles show each by its name.
    pub loops: &'static [LoopSpec],
    /// Settings that are accepted but probably not meant. `quipu check-config` prints the warnings, a start
    /// logs them.
    pub warnings: fn(&Settings) -> Vec<String>,
    /// Changes the settings when `quipu run` runs this service and no other one.
    pub run_alone: fn(&mut Settings),
    /// Registers its metrics and starts it. Everything that can fail for good fails here, not in a cycle.
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

/// One loop of a service.
#[derive(Debug)]
pub struct LoopSpec {
    /// Its name, which [`Service::name`](crate::lifecycle::Service::name) returns.
    pub name: &'static str,
    /// The pause after a cycle that found no work.
    pub pause: fn(&Settings) -> Duration,
    /// Whether one cycle may last for hours.
    pub has_long_cycles: bool,
}

impl LoopSpec {
    /// The schedule with these settings.
    #[must_use]
    pub fn schedule(&self, settings: &Settings) -> Schedule {
        let schedule = Schedule::every((self.pause)(settings));
        if self.has_long_cycles { schedule.with_long_cycles() } else { schedule }
    }
}

/// For services whose listeners have the connections of `http.connections_max` alone.
#[must_use]
pub fn no_sockets(_: &Settings) -> usize {
    0
}

/// For services without warnings.
#[must_use]
pub fn no_warnings(_: &Settings) -> Vec<String> {
    Vec::new()
}

/// For services that keep their settings when they run alone.
pub fn same_alone(_: &mut Settings) {}
