//! How a relay behaves.

/// The usual cap on the network.
const LIMIT: usize = 500;

/// A relay's character. Where nothing else is said it is honest: newest first, at most 500 events an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Character {
    /// As the specification has it; announces its limit.
    Honest,
    /// Thinks before it answers, and between events.
    Slow,
    /// Answers hold at most so many, which it does not announce.
    Limit(usize),
    /// Shows the oldest of what fits, where others show the newest.
    OldestFirst,
    /// Shows a random choice of what fits.
    RandomPick,
    /// Announces 5,000, shows 50, and has 600 in one second.
    HiddenCap,
    /// Says EOSE first and shows the events then.
    EarlyEose,
    /// Says EOSE and shows nothing to the first question of a connection, and to every other one after it.
    EmptyEose,
    /// Cuts the connection in the middle of an answer.
    Drops,
    /// Shows nothing before NIP-42.
    Auth,
    /// Some of its events were signed by nobody.
    BadSignatures,
    /// Shows events that nobody asked for.
    Foreign,
    /// Has a frame of 20 MB among its answers.
    LargeFrames,
    /// One of its events has 5 MB, in the middle of its history.
    LargeEvent,
    /// Begins a message that never ends.
    EndlessFrames,
    /// Its NIP-11 document is at its own address, it says, for ever.
    RedirectLoop,
    /// Its NIP-11 document is at a private address, it says.
    RedirectPrivate,
    /// Its NIP-11 document is its neighbour's.
    RedirectRelay,
    /// Its NIP-11 document has 30 MB.
    LargeDocument,
    /// Its clock and some of its events are 75 years ahead.
    Ahead,
    /// Its clock and some of its events are decades behind.
    Behind,
    /// Its NIP-11 document has values out of every range, of wrong types and twice.
    HostileDocument,
    /// Accepts connections and says nothing.
    Silent,
    /// Also speaks NIP-77.
    Negentropy,
    /// Sends an answer in time, but only one event of it every so many seconds.
    Drips(u64),
    /// Announces by NIP-77 so many events that it does not have.
    Announces(usize),
    /// Answers each comparison (NIP-77) with the bare version byte, which says that both sides hold the same.
    Agrees,
    /// Claims by NIP-77 to hold all events of the farm, and holds its share of them.
    Overclaims,
    /// Answers a question with `["EVENT",…,{}]` without end.
    Floods,
}

/// Every character once.
pub(crate) const ALL: [Character; 31] = {
    use Character as C;
    [
        C::Honest,
        C::Slow,
        C::Limit(10),
        C::Limit(100),
        C::Limit(500),
        C::OldestFirst,
        C::RandomPick,
        C::HiddenCap,
        C::EarlyEose,
        C::EmptyEose,
        C::Drops,
        C::Auth,
        C::BadSignatures,
        C::Foreign,
        C::LargeFrames,
        C::LargeEvent,
        C::EndlessFrames,
        C::RedirectLoop,
        C::RedirectPrivate,
        C::RedirectRelay,
        C::LargeDocument,
        C::Ahead,
        C::Behind,
        C::Silent,
        C::Negentropy,
        C::Drips(20),
        C::Announces(1_000_000),
        C::Agrees,
        C::Overclaims,
        C::HostileDocument,
        C::Floods,
    ]
};

impl Character {
    /// All of them among honest ones: of 40 relays in a row each character has one, and the rest is honest.
    pub(crate) fn mixed(number: usize) -> Self {
        ALL.get(number % 40).copied().unwrap_or(Self::Honest)
    }

    /// Honest ones alone.
    pub(crate) fn honest(_number: usize) -> Self {
        Self::Honest
    }

    /// Honest ones that speak NIP-77.
    pub(crate) fn negentropy(_number: usize) -> Self {
        Self::Negentropy
    }

    /// Whether it speaks NIP-77, truthfully or not.
    pub(super) fn compares(self) -> bool {
        matches!(self, Self::Negentropy | Self::Announces(_) | Self::Agrees | Self::Overclaims)
    }

    /// Most events of one answer.
    pub(super) fn limit(self) -> usize {
        match self {
            Self::Limit(limit) => limit,
            Self::OldestFirst | Self::RandomPick => 100,
            Self::HiddenCap => 50,
            _ => LIMIT,
        }
    }

    /// What its NIP-11 document says of that, if it says anything.
    pub(super) fn announced_limit(self) -> Option<usize> {
        match self {
            Self::Limit(_) => None,
            Self::HiddenCap => Some(5_000),
            other => Some(other.limit()),
        }
    }

    /// Whether everything it holds comes out by paging, authenticated where that is asked for.
    pub(crate) fn shows_all(self) -> bool {
        !matches!(
            self,
            Self::OldestFirst
                | Self::RandomPick
                | Self::HiddenCap
                | Self::EarlyEose
                | Self::EmptyEose
                | Self::Drops
                | Self::Foreign
                | Self::LargeFrames
                | Self::LargeEvent
                | Self::EndlessFrames
                | Self::Silent
                | Self::Drips(_)
                | Self::Floods
        )
    }
}
