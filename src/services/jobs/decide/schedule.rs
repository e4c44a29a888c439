//! When the jobs of a schedule are due.

use std::str::FromStr as _;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use croner::Cron;
use thiserror::Error;

/// Most schedules in force. All are looked at each second.
pub const SCHEDULES_MAX: i64 = 1_000;

/// The time zone of a schedule that names none.
pub const UTC: &str = "UTC";

/// Longest cron expression, bytes.
const CRON_BYTES_MAX: usize = 128;

/// Longest name of a time zone, bytes. The longest one of the database has 32.
const ZONE_BYTES_MAX: usize = 64;

/// How far back a missed time is looked for. A schedule that was last due longer ago is not made up for.
const MISSED_MAX: TimeDelta = TimeDelta::days(1);

/// Longest time since the last recorded look of which all times are made up for: looks are recorded every 20 s, and
/// another process takes over within 15 s from one that was killed. After a longer one, only the newest time is.
const INTERRUPTION_MAX: TimeDelta = TimeDelta::minutes(1);

/// Why the times of a schedule are refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecurrenceError {
    /// The expression.
    #[error("not a cron expression of five or six fields, such as `30 4 * * 1`: {0}")]
    Cron(String),
    /// The time zone.
    #[error("not a time zone of the IANA database, such as `Europe/Berlin`: {0}")]
    Zone(String),
}

/// Checks a cron expression: five fields, or six with seconds first.
///
/// # Errors
/// Why it is refused.
pub fn check_cron(expression: &str) -> Result<(), RecurrenceError> {
    parse(expression).map(|_| ())
}

/// The time zone of this IANA name; UTC without one. Upper and lower case count.
///
/// # Errors
/// When there is no such time zone.
pub fn time_zone(name: Option<&str>) -> Result<Tz, RecurrenceError> {
    let name = name.unwrap_or(UTC);
    if name.len() > ZONE_BYTES_MAX {
        return Err(RecurrenceError::Zone(format!("longer than {ZONE_BYTES_MAX} bytes")));
    }
    name.parse().map_err(|_| RecurrenceError::Zone(format!("there is no {name:?}")))
}

/// The times at which the schedule was due after `after` and up to `now`, the oldest first. `after` is the time up to
/// which its jobs were submitted, or at which it came into force. If that is more than a minute ago, only the newest
/// time, if it is less than a day ago. `zone` is the IANA name of the time zone of the expression, `None` for UTC.
///
/// Where the clock of the zone goes forward, an expression with one hour, one minute and one second is due right after
/// the times that do not exist, and any other one leaves them out. Where it goes back, the former is due at the first of
/// the two times, and the latter at both. This is the rule of the Open Cron Pattern Specification, which `croner`
/// implements.
///
/// # Errors
/// When the expression or the name is none.
pub fn due_times(
    expression: &str,
    zone: Option<&str>,
    after: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Vec<DateTime<Utc>>, RecurrenceError> {
    let (cron, zone) = (parse(expression)?, time_zone(zone)?);
    let is_interrupted = now - after > INTERRUPTION_MAX;
    let mut times = Vec::new();
    // An expression that matches no time of the last years gives an error.
    let mut found = cron.find_previous_occurrence(&now.with_timezone(&zone), true);
    while let Ok(local) = found {
        let due = local.to_utc();
        if due <= after || now - due > MISSED_MAX {
            break;
        }
        times.push(due);
        if is_interrupted {
            break;
        }
        found = cron.find_previous_occurrence(&local, false);
    }
    times.reverse();
    Ok(times)
}

fn parse(expression: &str) -> Result<Cron, RecurrenceError> {
    if expression.len() > CRON_BYTES_MAX {
        return Err(RecurrenceError::Cron(format!("longer than {CRON_BYTES_MAX} bytes")));
    }
    Cron::from_str(expression).map_err(|error| RecurrenceError::Cron(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn the_newest_due_time_counts_and_older_missed_ones_do_not() {
        let due = |after: &str, now: &str| due_times("0 * * * *", None, at(after), at(now)).unwrap();
        let hour = [at("2025-06-01T12:00:00Z")];
        assert_eq!(due("2025-05-01T00:00:00Z", "2025-06-01T12:00:00Z"), hour);
        assert_eq!(due("2025-05-01T00:00:00Z", "2025-06-01T12:59:59Z"), hour);
        // It came into force after the last full hour.
        assert!(due("2025-06-01T12:00:00Z", "2025-06-01T12:59:59Z").is_empty());
        let yearly = due_times("0 0 1 1 *", None, at("2020-01-01T00:00:00Z"), at("2025-06-01T00:00:00Z"));
        assert_eq!(yearly, Ok(Vec::new()), "missed by more than a day");
    }

    #[test]
    fn no_time_is_left_out_between_two_looks() {
        let due = |after: &str, now: &str| due_times("* * * * * *", None, at(after), at(now)).unwrap();
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
        let due = due_times("*/10 * * * * *", None, at("2025-06-01T00:00:00Z"), at("2025-06-01T12:00:09Z"));
        assert_eq!(due, Ok(vec![at("2025-06-01T12:00:00Z")]));
    }

    /// Berlin's clock goes from 02:00 to 03:00 at this time.
    const FORWARD: &str = "2025-03-30T01:00:00Z";

    /// And from 03:00 to 02:00 at this one.
    const BACK: &str = "2025-10-26T01:00:00Z";

    const BERLIN: Option<&str> = Some("Europe/Berlin");

    /// Minutes from this time on, out of `minutes`, at which the expression is due in Berlin, as half-minute looks see it.
    fn due_minutes(expression: &str, from: &str, minutes: std::ops::Range<i64>) -> Vec<i64> {
        let due_at = |minute: &i64| {
            let time = at(from) + TimeDelta::minutes(*minute);
            let due = due_times(expression, BERLIN, time - TimeDelta::seconds(30), time).unwrap();
            assert!(due.is_empty() || due == [time], "{expression} {time}: {due:?}");
            !due.is_empty()
        };
        minutes.filter(due_at).collect()
    }

    #[test]
    fn the_clock_of_the_time_zone_counts() {
        // Given 04:30 in Berlin, when it is winter, then an hour after UTC; in summer two.
        for (day, hour) in [("2025-01-15", 3), ("2025-07-15", 2)] {
            let due = due_minutes("30 4 * * *", &format!("{day}T00:00:00Z"), 0..1_440);
            assert_eq!(due, [hour * 60 + 30], "{day}");
        }
        // Given no time zone, then UTC.
        let (before, now) = (at("2025-07-15T04:29:30Z"), at("2025-07-15T04:30:00Z"));
        assert_eq!(due_times("30 4 * * *", None, before, now), Ok(vec![now]));
        assert_eq!(due_times("30 4 * * *", Some(UTC), before, now), Ok(vec![now]));
        // Given a day of the week, then as it is there.
        let monday = due_times(
            "0 1 * * 1",
            Some("Asia/Tokyo"),
            at("2025-06-01T15:59:30Z"),
            at("2025-06-01T16:00:00Z"),
        );
        assert_eq!(monday, Ok(vec![at("2025-06-01T16:00:00Z")]));
    }

    #[test]
    fn a_time_that_does_not_exist_is_due_right_after_the_gap_if_it_is_the_only_one_of_its_day() {
        // Given one time a day, when the clock goes forward over it, then at 03:00.
        for expression in ["0 2 * * *", "30 2 * * *", "59 2 30 3 *"] {
            assert_eq!(due_minutes(expression, FORWARD, -300..300), [0], "{expression}");
        }
        // And once, also after an interruption.
        let missed = due_times("30 2 * * *", BERLIN, at("2025-03-29T12:00:00Z"), at("2025-03-30T12:00:00Z"));
        assert_eq!(missed, Ok(vec![at(FORWARD)]));
        // Given several times a day, then those that do not exist are left out.
        assert_eq!(due_minutes("*/30 2 * * *", FORWARD, -300..300), [0; 0]);
        assert_eq!(due_minutes("30 2,4 * * *", FORWARD, -300..300), [90]);
        assert_eq!(due_minutes("*/30 * * * *", FORWARD, -60..90), [-60, -30, 0, 30, 60]);
    }

    #[test]
    fn a_time_that_comes_twice_is_due_once_if_it_is_the_only_one_of_its_day() {
        // Given one time a day, when the clock goes back over it, then at the first of the two.
        assert_eq!(due_minutes("30 2 * * *", BACK, -300..300), [-30]);
        let missed = due_times("30 2 * * *", BERLIN, at("2025-10-25T12:00:00Z"), at("2025-10-26T12:00:00Z"));
        assert_eq!(missed, Ok(vec![at("2025-10-26T00:30:00Z")]));
        // Given several, then at both.
        assert_eq!(due_minutes("*/30 2 * * *", BACK, -300..300), [-60, -30, 0, 30]);
        assert_eq!(due_minutes("30 2,4 * * *", BACK, -300..300), [-30, 30, 150]);
        // Outside of the hour that comes twice nothing changes.
        assert_eq!(due_minutes("0 3 * * *", BACK, -300..300), [60]);
    }

    #[test]
    fn every_minute_is_every_minute_when_the_clock_changes() {
        for (zone, change) in [
            ("Europe/Berlin", FORWARD),
            ("Europe/Berlin", BACK),
            // By half an hour, and at midnight.
            ("Australia/Lord_Howe", "2025-10-04T15:30:00Z"),
            ("Australia/Lord_Howe", "2025-04-05T15:00:00Z"),
            ("America/Havana", "2025-03-09T05:00:00Z"),
            ("America/Havana", "2025-11-02T05:00:00Z"),
        ] {
            for minute in -150..150 {
                let time = at(change) + TimeDelta::minutes(minute);
                let due = due_times("* * * * *", Some(zone), time - TimeDelta::minutes(1), time);
                assert_eq!(due, Ok(vec![time]), "{zone}");
            }
        }
    }

    #[test]
    fn a_time_zone_that_is_unknown_is_refused_by_name() {
        let long = "x".repeat(65);
        for (wrong, said) in [
            ("Europe/Atlantis", "there is no \"Europe/Atlantis\""),
            ("europe/berlin", "there is no \"europe/berlin\""),
            ("", "there is no \"\""),
            (long.as_str(), "longer than 64 bytes"),
        ] {
            let error = time_zone(Some(wrong)).unwrap_err().to_string();
            assert!(error.ends_with(said) && error.contains("Europe/Berlin"), "{error}");
            let now = at("2025-06-01T12:00:00Z");
            assert!(due_times("* * * * *", Some(wrong), now, now).is_err(), "{wrong}");
        }
        assert_eq!(time_zone(None), Ok(Tz::UTC));
    }

    #[test]
    fn an_expression_that_is_none_is_refused() {
        for wrong in ["", "* * * *", "61 * * * *", "every day", &"* ".repeat(100)] {
            assert!(check_cron(wrong).is_err(), "{wrong}");
        }
        assert_eq!(check_cron("30 4 * * 1"), Ok(()));
    }
}
