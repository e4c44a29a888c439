//! What a blob needs, which blob comes first, when a failed copy is tried again, and how fast copies are proven.

use std::cmp::{Ordering, Reverse};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::base::Sha256;
use crate::services::blossom::event::{Replica, ReplicaState, UnderReplicated};

/// An upstream as repair sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its name, as rows have it.
    pub name: String,
    /// A lower one comes first.
    pub priority: i32,
    /// Whether requests are sent to it now.
    pub is_available: bool,
}

/// What is to be done for one blob.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Where it is copied from, the best first: copies that were read back, then those that were only accepted. Every byte is
    /// checked on the way.
    pub holders: Vec<String>,
    /// Where it is copied to: as many as are missing, and others in case these fail.
    pub takers: Vec<String>,
    /// How many copies are missing.
    pub missing: usize,
    /// Whether there may soon be one to copy from: it waits to be read back, or its upstream is out of order.
    pub is_pending: bool,
}

/// Plans copies of a blob, so that `target` of `places` hold it. Copies elsewhere do not count: no request is sent
/// there.
#[must_use]
pub fn plan(replicas: &[Replica], places: &[Place], target: usize) -> Plan {
    let state =
        |place: &Place| replicas.iter().find(|replica| replica.upstream == place.name).map(|r| r.state);
    let holds = |place: &Place| matches!(state(place), Some(ReplicaState::Readable | ReplicaState::Accepted));
    let is_readable = |place: &Place| state(place) == Some(ReplicaState::Readable);
    let held = places.iter().filter(|place| holds(place)).count();
    let mut holders: Vec<&Place> = places.iter().filter(|place| holds(place) && place.is_available).collect();
    holders.sort_by_key(|place| (state(place) != Some(ReplicaState::Readable), place.priority));
    let mut takers: Vec<&Place> = places.iter().filter(|place| !holds(place) && place.is_available).collect();
    // One that failed comes last: another may be as good.
    takers.sort_by_key(|place| (state(place) == Some(ReplicaState::Failed), place.priority));
    let names = |places: Vec<&Place>| places.into_iter().map(|place| place.name.clone()).collect();
    Plan {
        holders: names(holders),
        takers: names(takers),
        missing: target.min(places.len()).saturating_sub(held),
        is_pending: places.iter().any(|place| {
            state(place) == Some(ReplicaState::Accepted) || is_readable(place) && !place.is_available
        }),
    }
}

/// The order of repair: the rarest first, among equals the most referenced.
#[must_use]
pub fn order(a: &UnderReplicated, b: &UnderReplicated) -> Ordering {
    let key = |blob: &UnderReplicated| {
        let copies = blob.replicas.iter().filter(|r| r.state == ReplicaState::Readable).count();
        // A blob without any copy cannot be repaired now, and must not stand before those that can.
        let rarity = if copies == 0 { usize::MAX } else { copies };
        (rarity, Reverse(blob.references), Reverse(blob.owners), blob.facts.sha256)
    };
    key(a).cmp(&key(b))
}

/// Pause before the next attempt, after so many failures in a row: 10 s, doubled with each, up to 6 hours.
#[must_use]
pub fn pause_after(failures: u32) -> Duration {
    const LONGEST: Duration = Duration::from_hours(6);
    let doubled = Duration::from_secs(10).checked_mul(1 << failures.saturating_sub(1).min(20));
    doubled.map_or(LONGEST, |pause| pause.min(LONGEST))
}

/// How long an upstream may take until a blob that it accepted is readable.
pub const READABLE_WITHIN: TimeDelta = TimeDelta::minutes(1);

/// What follows from a new copy that cannot be read yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// It is asked for again after this time.
    Again(Duration),
    /// It counts as lost.
    Over,
}

/// Judges a copy that was accepted at `since` and is absent at `now`: asked for again at ever longer intervals, for
/// [`READABLE_WITHIN`].
#[must_use]
pub fn patience(since: DateTime<Utc>, now: DateTime<Utc>) -> Patience {
    let age = now - since;
    if age >= READABLE_WITHIN {
        return Patience::Over;
    }
    // A third of the age, so that some fourteen questions fit into the minute.
    let age = age.to_std().unwrap_or_default();
    Patience::Again((age / 3).clamp(Duration::from_secs(1), Duration::from_secs(15)))
}

/// How many copies to prove now, so that all of `copies` are proven within `days`, if the last ones were chosen
/// `elapsed` ago. `owed` holds the fraction that is left over.
#[must_use]
pub fn due_proofs(copies: u64, days: u32, elapsed: Duration, owed: &mut f64) -> usize {
    const PAGE_MAX: f64 = 500.0;
    // Both are far below the 52 bits in which a float is exact.
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let per_second = copies as f64 / (f64::from(days.max(1)) * 86_400.0);
    *owed = (*owed + per_second * elapsed.as_secs_f64()).min(PAGE_MAX);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and PAGE_MAX")]
    let due = owed.floor() as usize;
    *owed -= owed.floor();
    due
}

/// Whether this copy is proven by all of its bytes instead of its size. `chance` is below 100.
#[must_use]
pub fn is_hashed(percent: u32, chance: u32) -> bool {
    chance < percent
}

/// What the last checks of copies at one upstream say about the others: one that has lost its disk is noticed by the
/// first copy that is missing, not after weeks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Suspicion {
    /// Where the sweep through all copies at this upstream goes on; `None` without suspicion.
    next: Option<Sha256>,
    checked: u32,
    lost: u32,
    /// Checks in a row that found the copy.
    found_in_row: u32,
}

impl Suspicion {
    /// Copies that are found in a row until the suspicion ends: if one in ten were lost, so long a row would come once
    /// in 37,000 times.
    const ROW: u32 = 100;

    /// Suspects the upstream, because a copy there is lost. A sweep that runs goes on.
    pub fn arouse(&mut self) {
        if self.next.is_none() {
            *self = Self { next: Some(Sha256::MIN), ..Self::default() };
        }
    }

    /// Where the sweep goes on.
    #[must_use]
    pub fn next(&self) -> Option<Sha256> {
        self.next
    }

    /// Notes a check of the sweep.
    pub fn note(&mut self, is_lost: bool) {
        self.checked = self.checked.saturating_add(1);
        if is_lost {
            self.lost = self.lost.saturating_add(1);
            self.found_in_row = 0;
        } else {
            self.found_in_row += 1;
        }
    }

    /// Moves the sweep behind `last`; it ends after the last copy (`None`), or when enough were found in a row.
    pub fn advance(&mut self, last: Option<Sha256>) {
        self.next = last.filter(|_| self.found_in_row < Self::ROW);
    }

    /// Copies checked and lost since the suspicion began.
    #[must_use]
    pub fn counts(&self) -> (u32, u32) {
        (self.checked, self.lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::blossom::event::BlobFacts;

    fn replica(upstream: &str, state: ReplicaState) -> Replica {
        Replica { upstream: upstream.to_owned(), state, since: DateTime::UNIX_EPOCH, why: None }
    }

    fn place(name: &str, priority: i32) -> Place {
        Place { name: name.to_owned(), priority, is_available: true }
    }

    #[test]
    fn what_is_missing_is_copied_from_readable_copies_to_places_without_one() {
        let places = [place("a", 3), place("b", 2), place("c", 1), place("d", 0), place("e", 9)];
        let replicas = [
            replica("a", ReplicaState::Readable),
            replica("b", ReplicaState::Accepted),
            replica("c", ReplicaState::Lost),
            replica("d", ReplicaState::Failed),
            replica("elsewhere", ReplicaState::Readable),
        ];
        let planned = plan(&replicas, &places, 3);
        assert_eq!(
            (planned.missing, planned.holders, planned.takers),
            (1, vec!["a".into(), "b".into()], vec!["c".into(), "e".into(), "d".into()])
        );
        assert_eq!(plan(&replicas, &places, 99).missing, 3, "no more than there are places");
        assert_eq!(plan(&replicas, &places, 1).missing, 0);
        assert_eq!(
            plan(&[], &places, 2),
            Plan {
                holders: vec![],
                takers: ["d", "c", "b", "a", "e"].map(String::from).to_vec(),
                missing: 2,
                is_pending: false
            }
        );
    }

    #[test]
    fn an_upstream_that_is_out_of_order_is_neither_asked_nor_given_up() {
        let mut places = [place("a", 1), place("b", 2)];
        places[0].is_available = false;
        let planned = plan(&[replica("a", ReplicaState::Readable)], &places, 2);
        assert_eq!(planned, Plan { holders: vec![], takers: vec!["b".into()], missing: 1, is_pending: true });
    }

    #[test]
    fn the_rarest_comes_first_then_the_most_referenced() {
        let blob = |first: u8, copies: usize, references: u64, owners: u64| UnderReplicated {
            facts: BlobFacts { sha256: Sha256::from_bytes([first; 32]), size: 1, media_type: String::new() },
            replicas: (0..copies).map(|i| replica(&i.to_string(), ReplicaState::Readable)).collect(),
            owners,
            references,
        };
        let mut blobs = [
            blob(1, 0, 9, 9),
            blob(2, 2, 9, 9),
            blob(3, 1, 0, 1),
            blob(4, 1, 0, 2),
            blob(5, 1, 7, 1),
            blob(0, 1, 0, 1),
        ];
        blobs.sort_by(order);
        assert_eq!(blobs.map(|blob| blob.facts.sha256.as_bytes()[0]), [5, 4, 0, 3, 2, 1]);
    }

    #[test]
    fn a_failed_copy_is_tried_again_ever_later() {
        let pauses = [1, 2, 3, 11, 12, 13, u32::MAX].map(|failures| pause_after(failures).as_secs());
        assert_eq!(pauses, [10, 20, 40, 10_240, 20_480, 21_600, 21_600]);
        assert_eq!(pause_after(0), Duration::from_secs(10));
    }

    #[test]
    fn a_copy_that_was_accepted_is_asked_for_during_a_minute() {
        let since = DateTime::UNIX_EPOCH;
        let (mut at, mut asked) = (since, 0);
        while let Patience::Again(pause) = patience(since, at) {
            assert!(pause >= Duration::from_secs(1) && asked < 20);
            at += TimeDelta::from_std(pause).unwrap();
            asked += 1;
        }
        assert!((8..=16).contains(&asked) && at - since < TimeDelta::seconds(80), "{asked} until {at}");
        assert_eq!(patience(since, since - TimeDelta::seconds(5)), Patience::Again(Duration::from_secs(1)));
    }

    #[test]
    fn proofs_are_spread_over_the_days() {
        let mut owed = 0.0;
        let day: usize = (0..86_400).map(|_| due_proofs(30_000, 30, Duration::from_secs(1), &mut owed)).sum();
        assert!((999..=1_000).contains(&day), "{day}");
        let mut owed = 0.0;
        assert_eq!(due_proofs(u64::MAX, 1, Duration::from_hours(9), &mut owed), 500);
        assert_eq!(due_proofs(0, 0, Duration::from_hours(9), &mut owed), 0);
        assert!(is_hashed(5, 4) && !is_hashed(5, 5) && !is_hashed(0, 0) && is_hashed(100, 99));
    }

    #[test]
    fn a_wiped_upstream_is_swept_and_a_single_loss_ends_soon() {
        let hash = |n: u8| Sha256::from_bytes([n; 32]);
        let mut wiped = Suspicion::default();
        assert_eq!(wiped.next(), None);
        wiped.arouse();
        assert_eq!(wiped.next(), Some(Sha256::MIN));
        for n in 0..250 {
            wiped.note(true);
            wiped.advance(Some(hash(n)));
            wiped.arouse();
            assert_eq!(wiped.next(), Some(hash(n)), "it goes on, and does not begin anew");
        }
        wiped.advance(None);
        assert_eq!((wiped.next(), wiped.counts()), (None, (250, 250)));
        let mut single = Suspicion::default();
        single.arouse();
        for n in 0..=Suspicion::ROW {
            if single.next().is_none() {
                return assert_eq!(n, Suspicion::ROW);
            }
            single.note(false);
            single.advance(Some(hash(1)));
        }
        panic!("the sweep did not end");
    }
}
