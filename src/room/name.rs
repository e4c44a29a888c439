//! The names of all services, in the order in which they start.

/// A service. The order of the variants is the order in which `quipu up` starts them; those with listeners
/// start after all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceName {
    /// Enters the seed relays.
    Initializer,
    /// Stores ticks for readers of the journals.
    Ticker,
    /// Keeps the projections that follow ticks.
    Projector,
    /// Finds relay URLs in events and lists.
    Finder,
    /// Tries candidates.
    Validator,
    /// Checks relays.
    Monitor,
    /// Archives what relays have.
    Synchronizer,
    /// The same, some relays before all others.
    PrioritySynchronizer,
    /// Erases what a key signed when it asks to vanish.
    Vanisher,
    /// Reads the state of the database for metrics.
    Observer,
    /// Stores and forwards messages.
    Messages,
    /// Queues jobs.
    Jobs,
    /// Stores blobs.
    Blossom,
    /// Serves the pages.
    Console,
}

impl ServiceName {
    /// All of them, in the order in which they start. A test compares this list with the descriptions of all
    /// rooms.
    pub const ALL: [Self; Self::Console as usize + 1] = [
        Self::Initializer,
        Self::Ticker,
        Self::Projector,
        Self::Finder,
        Self::Validator,
        Self::Monitor,
        Self::Synchronizer,
        Self::PrioritySynchronizer,
        Self::Vanisher,
        Self::Observer,
        Self::Messages,
        Self::Jobs,
        Self::Blossom,
        Self::Console,
    ];

    /// The name for `quipu run`, the health, the ready file and the start-up summary.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Initializer => "initializer",
            Self::Ticker => "ticker",
            Self::Projector => "projector",
            Self::Finder => "finder",
            Self::Validator => "validator",
            Self::Monitor => "monitor",
            Self::Synchronizer => "synchronizer",
            Self::PrioritySynchronizer => "priority-synchronizer",
            Self::Vanisher => "vanisher",
            Self::Observer => "observer",
            Self::Messages => "messages",
            Self::Jobs => "jobs",
            Self::Blossom => "blossom",
            Self::Console => "console",
        }
    }

    /// The service of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.as_str() == name)
    }

    /// The names of these services, separated by commas.
    #[must_use]
    pub fn list(names: &[Self]) -> String {
        names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
    }
}
