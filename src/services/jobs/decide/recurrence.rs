//! When the jobs of a schedule are due.

use std::str::FromStr as _;

use chrono::{DateTime, TimeDelta, Utc};
use croner::Cron;
use thiserror::Error;

/// Most schedules in force. All are looked at each second.
pub const SCHEDULES_MAX: i64 = 1_000;

/// Longest cron expression, bytes.
const CRON_BYTES_MAX: usize = 128;

/// How far back a missed time is looked for. A schedule that was last due longer ago is not made up for.
const MISSED_MAX: TimeDelta = TimeDelta::days(1);

/// Longest time since the last recorded look of which all times are made up for: looks are recorded every 20 s, and
/// another process takes over within 15 s from one that was killed. After a longer one, only the newest time is.
const INTERRUPTION_MAX: TimeDelta = TimeDelta::minutes(1);

/// Why a cron expression is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a cron expression of five or six fields, such as `30 4 * * 1`: {0}")]
pub struct CronError(String);

/// Checks a cron expression: five fields, or six with seconds first.
///
/// # Errors
/// Why it is refused.
pub fn check_cron(expression: &str) -> Result<(), CronError> {
    parse(expression).map(|_| ())
}

/// The times at which the schedule was due after `after` and up to `now`, the oldest first. `after` is the time up to
/// which its jobs were submitted, or at which it came into force. If that is more than a minute ago, only the newest
/// time, if it is less than a day ago. Times in UTC.
///
/// # Errors
/// When the expression is not one.
pub fn due_times(
    expression: &str,
    after: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Vec<DateTime<Utc>>, CronError> {
    let cron = parse(expression)?;
    let is_interrupted = now - after > INTERRUPTION_MAX;
    let mut times = Vec::new();
    // An expression that matches no time of the last years gives an error.
    let mut found = cron.find_previous_occurrence(&now, true);
    while let Ok(due) = found {
        if due <= after || now - due > MISSED_MAX {
            break;
        }
        times.push(due);
        if is_interrupted {
            break;
        }
        found = cron.find_previous_occurrence(&due, false);
    }
    times.reverse();
    Ok(times)
}

fn parse(expression: &str) -> Result<Cron, CronError> {
    if expression.len() > CRON_BYTES_MAX {
        return Err(CronError(format!("longer than {CRON_BYTES_MAX} bytes")));
    }
    Cron::from_str(expression).map_err(|error| CronError(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn the_newest_due_time_counts_and_older_missed_ones_do_not() {
        let due = |after: &str, now: &str| due_times("0 * * * *", at(after), at(now)).unwrap();
        let hour = [at("2025-06-01T12:00:00Z")];
        assert_eq!(due("2025-05-01T00:00:00Z", "2025-06-01T12:00:00Z"), hour);
        assert_eq!(due("2025-05-01T00:00:00Z", "2025-06-01T12:59:59Z"), hour);
        // It came into force after the last full hour.
        assert!(due("2025-06-01T12:00:00Z", "2025-06-01T12:59:59Z").is_empty());
        let yearly = due_times("0 0 1 1 *", at("2020-01-01T00:00:00Z"), at("2025-06-01T00:00:00Z"));
        assert_eq!(yearly, Ok(Vec::new()), "missed by more than a day");
    }

    #[test]
    fn no_time_is_left_out_between_two_looks() {
        let due = |after: &str, now: &str| due_times("* * * * * *", at(after), at(now)).unwrap();
        let [first, second, third] =
            ["2025-06-01T12:00:01Z", "2025-06-01T12:00:02Z", "2025-06-01T12:00:03Z"].map(at);
        assert_eq!(due("2025-06-01T12:00:00Z", "2025-06-01T12:00:03Z"), [first, second, third]);
        assert!(due("2025-06-01T12:00:03Z", "2025-06-01T12:00:03Z").is_empty());
        assert_eq!(due("2025-06-01T12:00:01.5Z", "2025-06-01T12:00:03Z"), [second, third]);
        assert_eq!(due("2025-06-01T11:59:03Z", "2025-06-01T12:00:03Z").len(), 60);
        assert_eq!(due("2025-06-01T11:59:02Z", "2025-06-01T12:00:03Z"), [third]);
    }

    #[test]
    fn seconds_are_a_sixth_field() {
        let due = due_times("*/10 * * * * *", at("2025-06-01T00:00:00Z"), at("2025-06-01T12:00:09Z"));
        assert_eq!(due, Ok(vec![at("2025-06-01T12:00:00Z")]));
    }

    #[test]
    fn an_expression_that_is_none_is_refused() {
        for wrong in ["", "* * * *", "61 * * * *", "every day", &"* ".repeat(100)] {
            assert!(check_cron(wrong).is_err(), "{wrong}");
        }
        assert_eq!(check_cron("30 4 * * 1"), Ok(()));
    }
}
