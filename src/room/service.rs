//! The description of a service.

use super::{DescriptorNeeds, ListenerSpec, LoopSpec, ServiceName, Start};
use crate::config::{Services, Settings};

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
    /// Connections that its listeners may hold in addition to `http.connections_max`.
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

impl ServiceSpec {
    /// What `services` together need descriptors for.
    #[must_use]
    pub fn descriptor_needs(services: &[&Self], settings: &Settings) -> DescriptorNeeds {
        DescriptorNeeds {
            dialling: services.iter().filter(|service| service.dials_relays).count(),
            sockets: services.iter().map(|service| (service.sockets_max)(settings)).sum(),
        }
    }
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
