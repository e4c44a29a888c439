//! The months in which the events of a set of batches lie: a query names both, so that it reads few partitions.

use chrono::{DateTime, Datelike as _, NaiveDate};

use super::Batch;

/// One month of a set of batches. Event numbers grow by month, then by slot, so the events of a month lie
/// close together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonthOfBatches {
    /// Oldest `created_at`, unix seconds.
    pub since: i64,
    /// Newest `created_at`, unix seconds.
    pub until: i64,
    /// First slot and end (exclusive) of each batch, ascending. A slot belongs to a batch when an odd number
    /// of bounds are at or below it.
    pub bounds: Vec<i64>,
}

/// The months in which events of `batches` may lie. The batches must be ascending and must not overlap.
#[must_use]
pub fn months_of(batches: &[Batch]) -> Vec<MonthOfBatches> {
    let end = |batch: &Batch| batch.first_slot + i64::from(batch.slots);
    let bounds: Vec<i64> = batches.iter().flat_map(|batch| [batch.first_slot, end(batch)]).collect();
    let oldest = batches.iter().map(|batch| batch.since).min().unwrap_or(0);
    let newest = batches.iter().map(|batch| batch.until).max().unwrap_or(-1);
    months(oldest, newest)
        .into_iter()
        .map(|(since, until)| MonthOfBatches { since, until, bounds: bounds.clone() })
        .collect()
}

impl MonthOfBatches {
    /// The first slot of the first batch.
    #[must_use]
    pub fn first_slot(&self) -> i64 {
        self.bounds.first().copied().unwrap_or(0)
    }

    /// The end, exclusive, of the last batch.
    #[must_use]
    pub fn end_slot(&self) -> i64 {
        self.bounds.last().copied().unwrap_or(0)
    }
}

/// Start of the last month that event numbers distinguish: November 2286.
const LAST_MONTH_S: i64 = 9_998_294_400;

/// The months from `since` to `until` as pairs of first and last second, clamped to that range.
fn months(since: i64, until: i64) -> Vec<(i64, i64)> {
    let mut months = Vec::new();
    let mut first = since.max(0);
    while first <= until {
        let next = if first >= LAST_MONTH_S { None } else { next_month(first) };
        let last = next.map_or(i64::MAX, |next| next - 1).min(until);
        months.push((first, last));
        let Some(next) = next else { break };
        first = next;
    }
    months
}

/// The first second of the month after that of `second`.
fn next_month(second: i64) -> Option<i64> {
    let day = DateTime::from_timestamp(second, 0)?.date_naive();
    let first =
        NaiveDate::from_ymd_opt(day.year(), day.month(), 1)?.checked_add_months(chrono::Months::new(1))?;
    Some(first.and_hms_opt(0, 0, 0)?.and_utc().timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_cover_a_span_without_gap_and_end_where_numbers_do() {
        assert_eq!(months(1_700_000_000, 1_700_000_000), [(1_700_000_000, 1_700_000_000)]);
        assert_eq!(
            months(1_700_000_000, 1_704_067_200),
            [(1_700_000_000, 1_701_388_799), (1_701_388_800, 1_704_067_199), (1_704_067_200, 1_704_067_200)]
        );
        assert_eq!(months(9_999_999_999, i64::MAX), [(9_999_999_999, i64::MAX)]);
        assert_eq!(months(i64::MAX, i64::MAX), [(i64::MAX, i64::MAX)]);
        assert_eq!(months(1, 0), []);
        let all = months(0, i64::MAX);
        assert_eq!((all.len(), all[0].0, all[all.len() - 1]), (3_803, 0, (LAST_MONTH_S, i64::MAX)));
        assert!(all.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0));
    }
}
