//! How a service starts, and what it is started with.

use std::collections::BTreeMap;
use std::fmt;
use std::future::ready;

use futures_util::future::BoxFuture;
use prometheus_client::registry::Registry;

use super::{Page, Parts};
use crate::config::Configuration;
use crate::lifecycle::{BoxError, Wake};
use crate::net::Egress;
use crate::store::projection::Projection;

/// Registers the metrics of a service, and returns the function that starts the service with them. A service
/// registers metrics nowhere else, so this first step alone yields the names of all of them.
pub type Start = fn(&mut Registry) -> Launch;

/// Starts a service: makes its loops and hands them to [`Parts::lifecycle`].
pub type Launch = Box<dyn for<'a> FnOnce(&'a mut Starting<'_>) -> BoxFuture<'a, Result<(), BoxError>> + Send>;

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
    /// The console's pages of all rooms.
    pub pages: &'a [Page],
    /// The addresses of everything that was started before, as `host:port` by the names of the ready file. A
    /// service adds those of its listeners.
    pub addresses: BTreeMap<String, String>,
}

impl fmt::Debug for Starting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Starting").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// For a service that counts with metrics `M`, which `register` registers.
pub fn counted<M: Default + Send + 'static>(
    registry: &mut Registry,
    register: fn(&M, &mut Registry),
    start: for<'a> fn(&'a mut Starting<'_>, M) -> BoxFuture<'a, Result<(), BoxError>>,
) -> Launch {
    let metrics = M::default();
    register(&metrics, registry);
    Box::new(move |starting| start(starting, metrics))
}

/// For a service without metrics of its own.
#[must_use]
pub fn uncounted(start: for<'a> fn(&'a mut Starting<'_>) -> BoxFuture<'a, Result<(), BoxError>>) -> Launch {
    Box::new(move |starting| start(starting))
}

/// For services that start without waiting for anything.
#[must_use]
pub fn done<'a>(started: Result<(), BoxError>) -> BoxFuture<'a, Result<(), BoxError>> {
    Box::pin(ready(started))
}
