//! What the console has seen since it started: the past of the figures whose trend is a rule.

use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};

/// Samples that are kept: one every five minutes for a day and an hour.
const SAMPLES_MAX: usize = 300;

/// The figures at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Sample {
    pub(in super::super) at: DateTime<Utc>,
    /// Known gaps.
    pub(in super::super) gaps: i64,
    /// Networks, with the age in seconds of the oldest open second of their median relay.
    pub(in super::super) medians: Vec<(String, f64)>,
}

/// Samples, oldest first.
#[derive(Debug, Default)]
pub(in super::super) struct History(VecDeque<Sample>);

impl History {
    /// Adds a sample, and forgets the oldest beyond [`SAMPLES_MAX`].
    pub(in super::super) fn add(&mut self, sample: Sample) {
        if self.0.len() == SAMPLES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// The newest sample that is at least `span` old; `None` while there is none.
    pub(super) fn before(&self, now: DateTime<Utc>, span: TimeDelta) -> Option<&Sample> {
        self.0.iter().rev().find(|sample| now - sample.at >= span)
    }

    /// When the oldest sample was taken.
    pub(in super::super) fn began_at(&self) -> Option<DateTime<Utc>> {
        self.0.front().map(|sample| sample.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(minute: i64) -> Sample {
        let at = DateTime::UNIX_EPOCH + TimeDelta::minutes(minute);
        Sample { at, gaps: minute, medians: Vec::new() }
    }

    #[test]
    fn the_past_is_the_newest_sample_that_is_old_enough() {
        let mut history = History::default();
        let now = sample(90).at;
        assert_eq!(history.before(now, TimeDelta::hours(1)), None);
        for minute in [0, 25, 30, 35, 90] {
            history.add(sample(minute));
        }
        assert_eq!(history.before(now, TimeDelta::hours(1)), Some(&sample(30)));
        assert_eq!(history.before(now, TimeDelta::hours(2)), None);
        assert_eq!(history.began_at(), Some(sample(0).at));
    }

    #[test]
    fn it_is_bounded_and_covers_more_than_a_day() {
        let mut history = History::default();
        for place in 0..1_000 {
            history.add(sample(place * 5));
        }
        assert_eq!(history.0.len(), SAMPLES_MAX);
        let now = sample(999 * 5).at;
        assert!(history.before(now, TimeDelta::hours(24)).is_some());
    }
}
