//! Formats numbers, sizes and times for people.

use chrono::{DateTime, TimeDelta, Utc};

/// Separator between groups of digits, and between a number and its unit: a narrow space without a line
/// break.
pub const THIN: char = '\u{202f}';

/// 1234567 as `1 234 567`.
#[must_use]
pub fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    if number < 0 {
        text.push('−');
    }
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(THIN);
        }
        text.push(digit);
    }
    text
}

/// A size in binary units.
#[must_use]
pub fn bytes(size: i64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let (mut size_in_unit, mut unit) = (size.max(0) as f64 / 1024.0, 0);
    if size < 1024 {
        return format!("{size}{THIN}B");
    }
    while size_in_unit >= 1000.0 && unit + 1 < UNITS.len() {
        size_in_unit /= 1024.0;
        unit += 1;
    }
    let decimals = usize::from(size_in_unit < 10.0);
    format!("{size_in_unit:.decimals$}{THIN}{}", UNITS[unit])
}

/// Time since `then`.
#[must_use]
pub fn age(now: DateTime<Utc>, then: DateTime<Utc>) -> String {
    let past = now - then;
    if past < TimeDelta::seconds(-90) {
        return format!("dated {}", then.format("%Y-%m-%d"));
    }
    let seconds = past.num_seconds();
    match seconds {
        ..2 => "just now".to_owned(),
        2..100 => format!("{seconds}{THIN}s ago"),
        100..6_000 => format!("{}{THIN}min ago", seconds / 60),
        6_000..172_800 => format!("{}{THIN}h ago", seconds / 3_600),
        172_800..5_184_000 => format!("{} days ago", seconds / 86_400),
        _ => then.format("%Y-%m-%d").to_string(),
    }
}

/// A span of seconds in its largest fitting unit.
#[must_use]
pub fn span(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "rounded for people; saturates")]
    let seconds = seconds.max(0.0).round() as i64;
    match seconds {
        ..100 => format!("{seconds}{THIN}s"),
        100..6_000 => format!("{}{THIN}min", seconds / 60),
        6_000..172_800 => format!("{}{THIN}h", seconds / 3_600),
        172_800..63_072_000 => format!("{} days", grouped(seconds / 86_400)),
        _ => format!("{} years", grouped(seconds / 31_536_000)),
    }
}

/// `window_complete` as `window complete`.
#[must_use]
pub fn spaced(kind: &str) -> String {
    kind.replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn digits_are_grouped_by_three() {
        let text = |number| grouped(number).replace(THIN, " ");
        assert_eq!([text(0), text(999), text(1_000), text(-1_234_567)], ["0", "999", "1 000", "−1 234 567"]);
        assert_eq!(text(i64::MIN), "−9 223 372 036 854 775 808");
    }

    #[test]
    fn sizes_have_two_or_three_digits() {
        let text = |number| bytes(number).replace(THIN, " ");
        assert_eq!(
            [
                text(0),
                text(1_023),
                text(1_024),
                text(1_048_576 * 999),
                text(1_048_576 * 1_000),
                text(i64::MAX)
            ],
            ["0 B", "1023 B", "1.0 kB", "999 MB", "1.0 GB", "8.0 EB"]
        );
    }

    #[test]
    fn an_age_has_a_fitting_unit_and_the_future_is_shown_by_its_date() {
        let text = |then: i64| age(at(10_000_000), at(10_000_000 - then)).replace(THIN, " ");
        assert_eq!(
            [text(0), text(59), text(120), text(7_200), text(864_000), text(-600), text(9_999_999)],
            ["just now", "59 s ago", "2 min ago", "2 h ago", "10 days ago", "dated 1970-04-26", "1970-01-01"]
        );
    }

    #[test]
    fn a_span_has_a_fitting_unit() {
        let text = |seconds: f64| span(seconds).replace(THIN, " ");
        assert_eq!(
            [text(-1.0), text(59.6), text(100.0), text(7_200.0), text(864_000.0), text(1e8)],
            ["0 s", "60 s", "1 min", "2 h", "10 days", "3 years"]
        );
    }
}
