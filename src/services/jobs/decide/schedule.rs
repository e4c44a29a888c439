//! When the jobs of a schedule are due.

use std::str::FromStr as _;

use chrono::{DateTime, Datelike as _, Months, NaiveDate, TimeDelta, Utc};
use chrono_tz::Tz;
use croner::{Cron, Weekday};
use thiserror::Error;

/// Most schedules in force. All are read each second.
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

/// Years within which a schedule has to have a time.
const YEARS_MAX: u32 = 10;

/// Longest time for which [`next_look`] puts a look off, so that it reads two days of an expression at most.
const LOOK_MAX: TimeDelta = TimeDelta::hours(1);

/// Why the times of a schedule are refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecurrenceError {
    /// The expression.
    #[error("not a cron expression of five or six fields, such as `30 4 * * 1`: {0}")]
    Cron(String),
    /// The time zone.
    #[error("not a time zone of the IANA database, such as `Europe/Berlin`: {0}")]
    Zone(String),
    /// The expression is one, and has no time in the coming years.
    #[error("a cron expression without a time in the next {YEARS_MAX} years: `{0}`")]
    Never(String),
}

/// Checks a cron expression, five fields, or six with seconds first, that comes into force at `now` in this time zone.
///
/// # Errors
/// Why it is refused.
pub fn check_cron(expression: &str, zone: Tz, now: DateTime<Utc>) -> Result<(), RecurrenceError> {
    // `croner` takes a list without items for one that holds nothing, and looks for it in all years until 5000.
    if expression.split_whitespace().any(|field| field.split(',').any(str::is_empty)) {
        return Err(RecurrenceError::Cron("an item of a list is empty".to_owned()));
    }
    let cron = parse(expression)?;
    let until = now.checked_add_months(Months::new(12 * YEARS_MAX)).unwrap_or(now);
    let (now, until) = (now.with_timezone(&zone), until.with_timezone(&zone));
    // The days first: `croner` looks for a time in all years until 5000.
    let is_due = matches_day(&cron, now.date_naive(), until.date_naive())
        && cron.find_next_occurrence(&now, false).is_ok_and(|next| next <= until);
    if is_due { Ok(()) } else { Err(RecurrenceError::Never(expression.to_owned())) }
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
/// An expression without a time in that day costs no search, however rare its times are.
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
    let day_of = |time: DateTime<Utc>| time.with_timezone(&zone).date_naive();
    // `croner` looks for a time in all years since 1.
    if !matches_day(&cron, day_of(now - MISSED_MAX), day_of(now)) {
        return Ok(times);
    }
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

/// When the times up to `now` of a schedule are known: the time at which it has to be looked at again. That is when it is
/// due next, or an hour later at most.
///
/// # Errors
/// When the expression or the name is none.
pub fn next_look(
    expression: &str,
    zone: Option<&str>,
    now: DateTime<Utc>,
) -> Result<DateTime<Utc>, RecurrenceError> {
    let (cron, zone) = (parse(expression)?, time_zone(zone)?);
    let (local, latest) = (now.with_timezone(&zone), now + LOOK_MAX);
    // `croner` looks for a time in all years until 5000.
    if !matches_day(&cron, local.date_naive(), latest.with_timezone(&zone).date_naive()) {
        return Ok(latest);
    }
    // It also fails before a day that the time zone leaves out, such as 2011-12-30 of Samoa. Then no look is put off.
    let next = cron.find_next_occurrence(&local, false).map(|next| next.to_utc());
    Ok(next.map_or(now, |next| next.min(latest)))
}

/// Whether the expression matches one of the days from `first` to `last`. An expression names at least one time of a day.
fn matches_day(cron: &Cron, first: NaiveDate, last: NaiveDate) -> bool {
    first.iter_days().take_while(|day| *day <= last).any(|day| {
        let weekday = Weekday::from_days_from_sunday(day.weekday().num_days_from_sunday());
        let pattern = &cron.pattern;
        // An error is a number out of range, which a day has not.
        pattern.year_match(day.year()).unwrap_or(false)
            && pattern.month_match(day.month()).unwrap_or(false)
            && pattern.day_match(day.year(), day.month(), day.day(), weekday).unwrap_or(false)
    })
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
        let now = at("2026-11-30T16:00:00Z");
        for wrong in ["", "* * * *", "61 * * * *", "every day", &"* ".repeat(100)] {
            let refused = check_cron(wrong, Tz::UTC, now);
            assert!(matches!(refused, Err(RecurrenceError::Cron(_))), "{wrong}: {refused:?}");
        }
        assert_eq!(check_cron("30 4 * * 1", Tz::UTC, now), Ok(()));
    }

    #[test]
    fn an_expression_without_a_time_in_ten_years_is_refused_and_named() {
        let now = at("2026-11-30T16:00:00Z");
        for never in ["0 0 1 * +MON#5", "0 0 30 2 *", "*/5 0-10 1-7 * +MON#5", "0 0 31W 2 *"] {
            for zone in [Tz::UTC, Tz::Europe__Berlin] {
                let refused = check_cron(never, zone, now);
                assert_eq!(refused, Err(RecurrenceError::Never(never.to_owned())), "{zone}");
            }
            let said = check_cron(never, Tz::UTC, now).unwrap_err().to_string();
            assert!(said.ends_with(&format!("in the next 10 years: `{never}`")), "{said}");
        }
        for empty in ["0 , 1 3 +1", "0 1, 1 3 *", "0 ,1 * * *", ", * * * *"] {
            let said = check_cron(empty, Tz::UTC, now).unwrap_err().to_string();
            assert!(said.ends_with("an item of a list is empty"), "{said}");
        }
        // Its first time is a Monday in 2044; its only one is over; it is today, in the past or in the future.
        for (expression, is_due) in [
            ("0 0 29 2 +MON", false),
            ("0 0 0 1 1 * 2020", false),
            ("0 0 15 30 11 * 2026", false),
            ("0 0 17 30 11 * 2026", true),
            ("0 0 29 2 *", true),
            ("0 0 0 1 1 * 2036", true),
            ("0 0 0 1 1 * 2037", false),
        ] {
            assert_eq!(check_cron(expression, Tz::UTC, now).is_ok(), is_due, "{expression}");
        }
        // The day is that of the time zone: it is still the 29th in Honolulu.
        let only = "0 30 23 29 11 * 2026";
        let early = at("2026-11-30T04:00:00Z");
        assert!(
            check_cron(only, Tz::Pacific__Honolulu, early).is_ok()
                && check_cron(only, Tz::UTC, early).is_err()
        );
    }

    #[test]
    fn a_schedule_is_looked_at_again_when_it_is_due_and_once_an_hour_at_most_otherwise() {
        let next = |expression: &str, now: &str| next_look(expression, None, at(now)).unwrap();
        let now = "2025-06-01T12:00:00.25Z";
        assert_eq!(next("* * * * * *", now), at("2025-06-01T12:00:01Z"));
        assert_eq!(next("30 * * * *", now), at("2025-06-01T12:30:00Z"));
        for rare in ["30 4 * * *", "0 0 29 2 *", "0 0 1 * +MON#5"] {
            assert_eq!(next(rare, now), at("2025-06-01T13:00:00.25Z"), "{rare}");
        }
        assert_eq!(next("0 0 * * *", "2025-06-01T23:30:00Z"), at("2025-06-02T00:00:00Z"));
        assert!(next_look("every day", None, at(now)).is_err());
    }

    /// The times that are found by looks every 50 s, of which only those are made that are due.
    fn looked(expression: &str, zone: &str, change: &str) -> Vec<DateTime<Utc>> {
        let (mut found, mut after, mut wake) = (Vec::new(), at(change) - TimeDelta::hours(2), None);
        let end = at(change) + TimeDelta::hours(3);
        let mut now = after;
        while now < end {
            now += TimeDelta::seconds(50);
            if wake.is_none_or(|wake| wake <= now) {
                found.extend(due_times(expression, Some(zone), after, now).unwrap());
                wake = Some(next_look(expression, Some(zone), now).unwrap());
            }
            after = now;
        }
        found
    }

    #[test]
    fn looks_that_are_put_off_miss_no_time_when_the_clock_changes() {
        let expressions = [
            "30 2 * * *",
            "0 2 * * *",
            "*/30 2 * * *",
            "30 2,4 * * *",
            "0 0 * * *",
            "30 0 * * *",
            "*/7 * * * *",
        ];
        for (zone, change) in [
            ("Europe/Berlin", FORWARD),
            ("Europe/Berlin", BACK),
            ("Australia/Lord_Howe", "2025-10-04T15:30:00Z"),
            ("Australia/Lord_Howe", "2025-04-05T15:00:00Z"),
            ("America/Havana", "2025-03-09T05:00:00Z"),
            ("America/Havana", "2025-11-02T05:00:00Z"),
            // A day that is left out.
            ("Pacific/Apia", "2011-12-30T10:00:00Z"),
        ] {
            for expression in expressions {
                let (begin, mut expected) = (at(change) - TimeDelta::hours(2), Vec::new());
                for look in 0..360 {
                    let after = begin + TimeDelta::seconds(50 * look);
                    expected.extend(
                        due_times(expression, Some(zone), after, after + TimeDelta::seconds(50)).unwrap(),
                    );
                }
                assert_eq!(looked(expression, zone, change), expected, "{expression} {zone}");
            }
        }
    }
}
