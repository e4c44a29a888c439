//! Selects the events that a relay sends for a request: all matching ones up to its limit, unless its
//! character truncates differently.

use std::sync::Arc;

use nostr_sdk::Filter;
use nostr_sdk::filter::MatchEventOptions;
use rand::seq::IndexedRandom as _;

use super::Character;
use super::corpus::Stored;
use super::relay::Relay;

/// The events to send, in order.
pub(super) fn choose(relay: &Relay, filters: &[Filter]) -> Vec<Arc<Stored>> {
    if relay.character() == Character::Foreign {
        return relay.foreign().to_vec();
    }
    relay.with_held(|held| match filters {
        [filter] => choose_for(relay.character(), held, filter),
        several => {
            let mut all: Vec<_> =
                several.iter().flat_map(|filter| choose_for(relay.character(), held, filter)).collect();
            all.sort_by(|a, b| a.event.cmp(&b.event));
            all.dedup_by_key(|stored| stored.event.id);
            all
        }
    })
}

fn choose_for(character: Character, held: &[Arc<Stored>], filter: &Filter) -> Vec<Arc<Stored>> {
    let until = filter.until.map_or(u64::MAX, |until| until.as_secs());
    let since = filter.since.map_or(0, |since| since.as_secs());
    let first = held.partition_point(|stored| stored.event.created_at.as_secs() > until);
    let end = held.partition_point(|stored| stored.event.created_at.as_secs() >= since).max(first);
    let fitting = held[first..end].iter().filter(|stored| fits(filter, stored));
    let limit = filter.limit.unwrap_or(usize::MAX).min(character.limit());
    match character {
        Character::OldestFirst => {
            let all: Vec<_> = fitting.cloned().collect();
            all[all.len() - limit.min(all.len())..].to_vec()
        }
        Character::RandomPick => {
            let all: Vec<_> = fitting.cloned().collect();
            let mut some: Vec<_> = all.choose_multiple(&mut rand::rng(), limit).cloned().collect();
            some.sort_by(|a, b| a.event.cmp(&b.event));
            some
        }
        _ => fitting.take(limit).cloned().collect(),
    }
}

/// All matching events regardless of limits, as NIP-77 requires. [`Character::Overclaims`] adds events that
/// it does not hold.
pub(super) fn all(relay: &Relay, filter: &Filter) -> Vec<Arc<Stored>> {
    if relay.character() == Character::Overclaims {
        return relay.claimed().iter().filter(|stored| fits(filter, stored)).cloned().collect();
    }
    relay.with_held(|held| held.iter().filter(|stored| fits(filter, stored)).cloned().collect())
}

/// True if a published event matches a subscription.
pub(super) fn fits(filter: &Filter, stored: &Stored) -> bool {
    filter.match_event(&stored.event, MatchEventOptions::new())
}
