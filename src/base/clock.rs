//! Time as a value that is passed in. Only [`SystemClock`] reads the machine's clock.

use std::fmt::Debug;

use chrono::{DateTime, Utc};

/// Tells the time. A test brings its own.
pub trait Clock: Debug + Send + Sync {
    /// The time now, in UTC.
    fn now(&self) -> DateTime<Utc>;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}
