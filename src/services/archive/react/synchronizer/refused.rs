//! Limits and records of invalid events: when they end a session, and how often they are recorded.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::error::SyncError;
use crate::base::nostr_event::Refusals;
use crate::store::ingest::PageOutcome;

/// Invalid events that every session is allowed, so that a relay with a few broken events is still read
/// completely.
const INVALID_MIN: u64 = 1_000;

/// Invalid events per valid event above which a session ends.
const INVALID_PER_VALID: u64 = 10;

/// Shortest time between two journal entries about one relay.
const RECORD_EVERY: Duration = Duration::from_mins(1);

/// Valid and invalid events of one session.
#[derive(Debug, Default)]
pub(super) struct Balance {
    valid: u64,
    invalid: u64,
}

impl Balance {
    pub(super) fn add(&mut self, outcome: &PageOutcome) {
        self.valid += u64::from(outcome.stored) + u64::from(outcome.known);
        self.invalid += outcome.refused.invalid();
    }

    /// # Errors
    /// [`SyncError::MostlyRefused`] when the invalid events outnumber the valid ones by far.
    pub(super) fn check(&self) -> Result<(), SyncError> {
        let &Self { valid, invalid } = self;
        if invalid > INVALID_MIN && invalid / INVALID_PER_VALID > valid {
            return Err(SyncError::MostlyRefused { invalid, valid });
        }
        Ok(())
    }
}

/// Refusals not recorded yet, by relay. Each relay gets at most one journal entry a minute, however fast it
/// sends. The counts of the last minute are lost when the process ends; they are statistics and nothing
/// depends on them.
#[derive(Debug, Default)]
pub(super) struct Unrecorded(HashMap<i32, Sum>);

#[derive(Debug, Default)]
struct Sum {
    refused: Refusals,
    recorded: Option<Instant>,
}

impl Unrecorded {
    /// Adds refusals of a relay. Returns the sum if an entry is due now.
    pub(super) fn add(&mut self, relay: i32, refused: &Refusals, now: Instant) -> Option<Refusals> {
        if refused.is_empty() && !self.0.contains_key(&relay) {
            return None;
        }
        let sum = self.0.entry(relay).or_default();
        sum.refused.merge(refused);
        let is_due = sum.recorded.is_none_or(|recorded| now.duration_since(recorded) >= RECORD_EVERY);
        if sum.refused.is_empty() || !is_due {
            return None;
        }
        sum.recorded = Some(now);
        Some(std::mem::take(&mut sum.refused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::nostr_event::Refusal;

    fn refused(reason: Refusal, times: usize) -> Refusals {
        let mut refused = Refusals::default();
        refused.add_times(reason, times);
        refused
    }

    fn page(stored: u32, refused: Refusals) -> PageOutcome {
        PageOutcome { stored, refused, ..PageOutcome::default() }
    }

    #[test]
    fn a_session_ends_when_invalid_events_outnumber_valid_ones_by_far_and_not_before() {
        for (valid, invalid, goes_on) in [
            (0, 1_000, true),
            (0, 1_011, false),
            (200, 2_000, true),
            (200, 2_011, false),
            (5_000, 40_000, true),
        ] {
            let mut balance = Balance::default();
            balance.add(&page(valid, refused(Refusal::Malformed, invalid)));
            assert_eq!(balance.check().is_ok(), goes_on, "{valid} valid, {invalid} invalid");
        }
        // A relay that ignores the filter sends valid events, which do not count as invalid.
        let mut balance = Balance::default();
        balance.add(&page(0, refused(Refusal::Foreign, 1_000_000)));
        assert!(balance.check().is_ok());
    }

    #[test]
    fn a_relay_gets_one_entry_a_minute_with_the_sum_of_the_time_between() {
        let mut unrecorded = Unrecorded::default();
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let one = refused(Refusal::BadId, 1);
        assert_eq!(unrecorded.add(1, &Refusals::default(), at(0)), None);
        assert_eq!(unrecorded.add(1, &one, at(0)), Some(one.clone()));
        for second in 1..60 {
            assert_eq!(unrecorded.add(1, &one, at(second)), None);
        }
        assert_eq!(unrecorded.add(2, &one, at(59)), Some(one.clone()), "another relay");
        assert_eq!(unrecorded.add(1, &Refusals::default(), at(60)), Some(refused(Refusal::BadId, 59)));
        assert_eq!(unrecorded.add(1, &Refusals::default(), at(200)), None);
    }
}
