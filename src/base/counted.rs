//! Numbers with their nouns, for people.

use std::fmt::Display;

/// A number with its noun: "1 event", "2 events".
pub fn counted(number: impl TryInto<i64> + Display + Copy, one: &str, many: &str) -> String {
    format!("{number} {}", noun(number, one, many))
}

/// The noun of a number: the first for 1, the second for any other.
pub fn noun<'a>(number: impl TryInto<i64>, one: &'a str, many: &'a str) -> &'a str {
    if number.try_into().is_ok_and(|number| number == 1) { one } else { many }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_the_singular() {
        let events = |number: i64| counted(number, "event", "events");
        assert_eq!([0, 1, 2, 1_000].map(events), ["0 events", "1 event", "2 events", "1000 events"]);
        assert_eq!(counted(1_u64, "month", "months"), "1 month");
        assert_eq!(counted(u64::MAX, "month", "months"), format!("{} months", u64::MAX));
    }
}
