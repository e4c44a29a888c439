//! The events of a farm, signed once and shared by its relays.

use std::sync::Arc;

use nostr_sdk::{Event, EventBuilder, JsonUtil as _, Keys, SecretKey, Timestamp};
use quipu::sample::SampleGenerator;
use rand::SeedableRng as _;
use rand::seq::index::sample;
use rand_chacha::ChaCha8Rng;

use super::Character;

/// The second in which [`Character::HiddenCap`] has more events than it sends.
pub(crate) const FLOODED_SECOND: u64 = 1_703_000_000;
/// Number of its events in that second.
pub(crate) const FLOOD: u64 = 600;
/// Number of special events of a character that has some.
const SPECIAL: u64 = 40;
/// Content length of the large event of [`Character::LargeEvent`], which exceeds the limit on messages.
const LARGE: usize = 5_000_000;
/// Times in 2100 and in 2001.
const AHEAD: u64 = 4_102_444_800;
const BEHIND: u64 = 1_000_000_000;

/// Seed and number of the shared events.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) seed: u64,
    pub(crate) events: u64,
}

/// An event, its JSON text, and whether it may be archived.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) event: Event,
    pub(crate) json: String,
    pub(crate) is_sound: bool,
}

impl Stored {
    pub(super) fn sound(event: Event) -> Arc<Self> {
        let json = event.as_json();
        Arc::new(Self { event, json, is_sound: true })
    }

    /// The event with the signature of another one.
    fn forged(mut event: Event, other: &Event) -> Arc<Self> {
        event.sig = other.sig;
        let json = event.as_json();
        Arc::new(Self { event, json, is_sound: false })
    }
}

/// All events of a farm.
pub(crate) struct Corpus {
    seed: u64,
    shared: Vec<Arc<Stored>>,
    flood: Vec<Arc<Stored>>,
    ahead: Vec<Arc<Stored>>,
    behind: Vec<Arc<Stored>>,
    forged: Vec<Arc<Stored>>,
    foreign: Vec<Arc<Stored>>,
    large: Vec<Arc<Stored>>,
}

impl Corpus {
    /// Generates and signs the events. The same extent yields the same events.
    pub(crate) fn new(extent: Extent) -> Self {
        let Extent { seed, events } = extent;
        let in_span = |offset: u64, from: u64, length: u64, count: u64| {
            SampleGenerator::new(seed.wrapping_add(offset), 20, from..from + length, count).map(Stored::sound)
        };
        let genuine: Vec<Event> =
            SampleGenerator::new(seed.wrapping_add(4), 20, BEHIND..BEHIND + 3_600, SPECIAL).collect();
        let others = genuine.iter().cycle().skip(1);
        let shared: Vec<_> = SampleGenerator::paced(seed, events).map(Stored::sound).collect();
        let middle = shared.get(shared.len() / 2).map(|stored| stored.event.created_at);
        Self {
            seed,
            large: middle.map(large).into_iter().collect(),
            shared,
            flood: in_span(1, FLOODED_SECOND, 1, FLOOD).collect(),
            ahead: in_span(2, AHEAD, 3_600, SPECIAL).collect(),
            behind: in_span(3, BEHIND, 3_600, SPECIAL).collect(),
            forged: genuine
                .iter()
                .zip(others)
                .map(|(event, other)| Stored::forged(event.clone(), other))
                .collect(),
            foreign: in_span(5, AHEAD + 86_400, 3_600, SPECIAL).collect(),
        }
    }

    /// The events of one relay: its share of the shared events, and the special events of its character.
    pub(super) fn deal(&self, number: usize, character: Character, wanted: usize) -> Vec<Arc<Stored>> {
        let own = match character {
            Character::HiddenCap => self.flood.as_slice(),
            Character::Ahead => &self.ahead,
            Character::Behind => &self.behind,
            Character::BadSignatures => &self.forged,
            Character::LargeEvent => &self.large,
            _ => &[],
        };
        let number = u64::try_from(number).expect("64 bits");
        let mut dice = ChaCha8Rng::seed_from_u64(self.seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let shared = sample(&mut dice, self.shared.len(), wanted.min(self.shared.len()));
        shared.iter().map(|place| &self.shared[place]).chain(own).map(Arc::clone).collect()
    }

    /// Events that match no request.
    pub(super) fn foreign(&self) -> Vec<Arc<Stored>> {
        self.foreign.clone()
    }

    /// Events that a relay claims to hold and does not hold.
    pub(super) fn claimed(&self, character: Character) -> Vec<Arc<Stored>> {
        if character == Character::Overclaims { self.shared.clone() } else { Vec::new() }
    }

    /// Bytes of all shared events, as JSON.
    pub(crate) fn bytes(&self) -> usize {
        self.shared.iter().map(|stored| stored.json.len()).sum()
    }
}

fn large(at: Timestamp) -> Arc<Stored> {
    // A fixed key, so that a farm's events are known before it runs.
    let keys = Keys::new(SecretKey::from_slice(&[1; 32]).expect("a number below the curve's order"));
    let event = EventBuilder::text_note("x".repeat(LARGE)).custom_created_at(at);
    Stored::sound(event.sign_with_keys(&keys).expect("a key of ours"))
}
