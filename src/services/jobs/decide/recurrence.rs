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

/// The newest time at which the schedule was due, up to `now` and after `since`, at which it came into force.
/// Times in UTC. Of several times that were missed, only the newest is made up for, and only within a day.
///
/// # Errors
/// When the expression is not one.
pub fn last_due(
    expression: &str,
    since: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, CronError> {
    let cron = parse(expression)?;
    // An expression that matches no time of the last years gives an error.
    let Ok(due) = cron.find_previous_occurrence(&now, true) else { return Ok(None) };
    Ok((due > since && now - due <= MISSED_MAX).then_some(due))
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
        let due = |since: &str, now: &str| last_due("0 * * * *", at(since), at(now)).unwrap();
        let hour = Some(at("2025-06-01T12:00:00Z"));
        assert_eq!(due("2025-05-01T00:00:00Z", "2025-06-01T12:00:00Z"), hour);
        assert_eq!(due("2025-05-01T00:00:00Z", "2025-06-01T12:59:59Z"), hour);
        // It came into force after the last full hour.
        assert_eq!(due("2025-06-01T12:00:00Z", "2025-06-01T12:59:59Z"), None);
        let yearly = last_due("0 0 1 1 *", at("2020-01-01T00:00:00Z"), at("2025-06-01T00:00:00Z"));
        assert_eq!(yearly, Ok(None), "missed by more than a day");
    }

    #[test]
    fn seconds_are_a_sixth_field() {
        let due = last_due("*/10 * * * * *", at("2025-06-01T00:00:00Z"), at("2025-06-01T12:00:09Z")).unwrap();
        assert_eq!(due, Some(at("2025-06-01T12:00:00Z")));
    }

    #[test]
    fn an_expression_that_is_none_is_refused() {
        for wrong in ["", "* * * *", "61 * * * *", "every day", &"* ".repeat(100)] {
            assert!(check_cron(wrong).is_err(), "{wrong}");
        }
        assert_eq!(check_cron("30 4 * * 1"), Ok(()));
    }
}
