//! Snapshots of the database, as PostgreSQL writes them, and how far a reader of a journal goes from one to the next.

use std::cmp::Reverse;
use std::str::FromStr;

/// Transactions that one turn of a reader spans. A reader records its place when it has come so far.
const TRANSACTIONS_MAX: i64 = 1_000;

/// A snapshot, `xmin:xmax:in progress`: the transactions below xmin are over, those from xmax on had not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Snapshot {
    xmin: i64,
    xmax: i64,
    /// Number of transactions in between that are in progress.
    in_progress: usize,
}

/// A text that is no snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotASnapshot;

impl Snapshot {
    /// What grows from snapshot to snapshot: xmax and, while that stays, the number of transactions that have
    /// ended.
    pub(super) fn age(self) -> (i64, Reverse<usize>) {
        (self.xmax, Reverse(self.in_progress))
    }
}

impl FromStr for Snapshot {
    type Err = NotASnapshot;

    /// Checks as PostgreSQL does: the transactions in progress are in ascending order.
    fn from_str(text: &str) -> Result<Self, NotASnapshot> {
        let number = |text: &str| -> Result<i64, NotASnapshot> {
            let is_plain = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
            if is_plain { text.parse().map_err(|_| NotASnapshot) } else { Err(NotASnapshot) }
        };
        let parts: Vec<&str> = text.split(':').collect();
        let [xmin, xmax, between] = parts[..] else { return Err(NotASnapshot) };
        let (xmin, xmax) = (number(xmin)?, number(xmax)?);
        if xmin < 1 || xmax < xmin {
            return Err(NotASnapshot);
        }
        let (mut last, mut in_progress) = (xmin - 1, 0);
        for xid in between.split(',').filter(|_| !between.is_empty()) {
            let xid = number(xid)?;
            if xid <= last || xid >= xmax {
                return Err(NotASnapshot);
            }
            (last, in_progress) = (xid, in_progress + 1);
        }
        Ok(Self { xmin, xmax, in_progress })
    }
}

/// How far a reader of the journal goes in one turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The snapshot up to which it reads.
    pub until: String,
    /// Whether it spans so many transactions that the reader should record its place.
    pub is_wide: bool,
    /// Whether there is more behind it.
    pub is_behind: bool,
}

/// The window from the snapshot `last` towards the snapshot `this`. `None` if `last` is not of this database cluster,
/// or one of them is no snapshot.
#[must_use]
pub fn window(last: &str, this: &str) -> Option<Window> {
    let (from, to): (Snapshot, Snapshot) = (last.parse().ok()?, this.parse().ok()?);
    if from.xmax > to.xmax {
        return None;
    }
    // Every transaction below xmin is over, so a snapshot that ends there can be made up.
    let part = from.xmax.saturating_add(TRANSACTIONS_MAX);
    let is_behind = part < to.xmin;
    let until = if is_behind { format!("{part}:{part}:") } else { this.to_owned() };
    Some(Window { until, is_wide: to.xmax - from.xmax >= TRANSACTIONS_MAX, is_behind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_is_far_behind_goes_on_in_parts() {
        let told = |last, this| window(last, this).map(|w| (w.until, w.is_wide, w.is_behind));
        assert_eq!(told("10:20:", "15:30:15"), Some(("15:30:15".to_owned(), false, false)));
        assert_eq!(told("10:20:12", "5000:5100:"), Some(("1020:1020:".to_owned(), true, true)));
        assert_eq!(told("10:20:", "1020:1020:"), Some(("1020:1020:".to_owned(), true, false)));
        // A transaction that is not over keeps the window whole, and wide.
        assert_eq!(told("10:20:", "30:2000:30"), Some(("30:2000:30".to_owned(), true, false)));
        assert_eq!(told("10:20:", "10:1019:"), Some(("10:1019:".to_owned(), false, false)));
        // Those of another cluster, or of before a restore.
        assert_eq!(told("10:200:", "15:30:15"), None);
        assert_eq!(told("x", "15:30:15"), None);
    }
}
