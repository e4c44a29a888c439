//! The loops of a service.

use std::time::Duration;

use crate::config::Settings;
use crate::lifecycle::Schedule;

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
