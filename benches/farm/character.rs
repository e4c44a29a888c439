//! Behaviours of the farm's relays.

/// Usual limit of events per answer on the Nostr network.
const LIMIT: usize = 500;

/// Behaviour of a relay. Unless stated otherwise it is honest: newest events first, at most 500 per answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Character {
    /// Follows the specification and announces its limit.
    Honest,
    /// Pauses before each answer and between events.
    Slow,
    /// Sends at most this many events per answer, and does not announce it.
    Limit(usize),
    /// Sends the oldest matching events, where others send the newest.
    OldestFirst,
    /// Sends a random choice of the matching events.
    RandomPick,
    /// Announces a limit of 5,000, sends 50, and has 600 events in one second.
    HiddenCap,
    /// Sends EOSE before the events.
    EarlyEose,
    /// Answers the first request of a connection, and every second one after it, with EOSE and no events.
    EmptyEose,
    /// Closes the connection in the middle of an answer.
    Drops,
    /// Requires authentication (NIP-42).
    Auth,
    /// Some of its events have invalid signatures.
    BadSignatures,
    /// Sends events that do not match the request.
    Foreign,
    /// Sends a frame of 20 MB among its answers.
    LargeFrames,
    /// Has one event of 5 MB in the middle of its history.
    LargeEvent,
    /// Starts a message that never ends.
    EndlessFrames,
    /// Its NIP-11 document redirects to itself.
    RedirectLoop,
    /// Its NIP-11 document redirects to a private address.
    RedirectPrivate,
    /// Its NIP-11 document redirects to that of another relay.
    RedirectRelay,
    /// Its NIP-11 document has 30 MB.
    LargeDocument,
    /// Its clock and some of its events are 75 years ahead.
    Ahead,
    /// Its clock and some of its events are decades behind.
    Behind,
    /// Its NIP-11 document has values out of range, of wrong types, and duplicate fields.
    HostileDocument,
    /// Accepts connections and sends nothing.
    Silent,
    /// Also speaks NIP-77.
    Negentropy,
    /// Answers in time, but sends one event every so many seconds.
    Drips(u64),
    /// Announces by NIP-77 this many events that it does not have.
    Announces(usize),
    /// Answers each comparison (NIP-77) with the bare version byte, which says that both sides hold the same.
    Agrees,
    /// Claims by NIP-77 to hold all events of the farm, and holds only its share.
    Overclaims,
    /// Answers a request with endless `["EVENT",…,{}]` messages.
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
    /// A mix: of 40 consecutive relays each character has one, and the rest is honest.
    pub(crate) fn mixed(number: usize) -> Self {
        ALL.get(number % 40).copied().unwrap_or(Self::Honest)
    }

    /// Honest relays only.
    pub(crate) fn honest(_number: usize) -> Self {
        Self::Honest
    }

    /// Honest relays with NIP-77.
    pub(crate) fn negentropy(_number: usize) -> Self {
        Self::Negentropy
    }

    /// True if it answers NIP-77 messages, truthfully or not.
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

    /// The limit that its NIP-11 document announces, if any.
    pub(super) fn announced_limit(self) -> Option<usize> {
        match self {
            Self::Limit(_) => None,
            Self::HiddenCap => Some(5_000),
            other => Some(other.limit()),
        }
    }

    /// True if paging, with authentication where required, yields every event it holds.
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
