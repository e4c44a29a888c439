//! Where a reader of the stream of events is: between two snapshots of the database.
//!
//! As an event's id: `ERA-FROM` after everything that snapshot FROM sees, or `ERA-FROM/TO/POSITION` within the
//! entries that TO sees and FROM does not, after the one at POSITION. An entry that commits late is seen by a
//! later snapshot, so a reader that resumes misses nothing.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use super::snapshot::Snapshot;

/// Longest snapshot, characters: some hundred transactions in progress.
const SNAPSHOT_CHARS_MAX: usize = 4_000;

/// Most transactions for which a reader that comes back gets what it missed.
const TRANSACTIONS_MAX: i64 = 100_000;

/// A place in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamCursor {
    /// The era of the database; ids of another era compare with nothing.
    pub era: i32,
    /// Everything that this snapshot sees was read, as PostgreSQL writes it.
    pub from: String,
    /// The next snapshot, and the position up to which its entries were read.
    pub within: Option<(String, i64)>,
}

/// An id that is not one of this stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an event id of this stream")]
pub struct NotACursor;

impl StreamCursor {
    /// After everything that a snapshot sees.
    #[must_use]
    pub fn after(era: i32, snapshot: impl Into<String>) -> Self {
        Self { era, from: snapshot.into(), within: None }
    }

    /// Whether so many transactions lie between it and a snapshot of the same era that nothing is sent again: an old
    /// id, or a made-up one, would have all journals read.
    #[must_use]
    pub fn is_far_behind(&self, snapshot: &str) -> bool {
        let xmax = |text: &str| text.parse().map_or(0, |snapshot: Snapshot| snapshot.age().0);
        xmax(snapshot).saturating_sub(xmax(&self.from)) > TRANSACTIONS_MAX
    }

    /// Whether [`StreamCursor::from`] was taken before (`Less`) or after another snapshot of the same era.
    #[must_use]
    pub fn compare(&self, snapshot: &str) -> Ordering {
        let age = |text: &str| text.parse().map(Snapshot::age).ok();
        age(&self.from).cmp(&age(snapshot))
    }
}

impl fmt::Display for StreamCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { era, from, within } = self;
        match within {
            None => write!(f, "{era}-{from}"),
            Some((to, position)) => write!(f, "{era}-{from}/{to}/{position}"),
        }
    }
}

impl FromStr for StreamCursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let (era, rest) = text.split_once('-').ok_or(NotACursor)?;
        let mut parts = rest.split('/');
        let from = snapshot(parts.next().ok_or(NotACursor)?)?;
        let within = match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => None,
            (Some(to), Some(position), None) => {
                Some((snapshot(to)?, position.parse().map_err(|_| NotACursor)?))
            }
            _ => return Err(NotACursor),
        };
        Ok(Self { era: era.parse().map_err(|_| NotACursor)?, from, within })
    }
}

/// Checks a snapshot, which goes into a query as one: a wrong one would fail there.
fn snapshot(text: &str) -> Result<String, NotACursor> {
    if text.len() > SNAPSHOT_CHARS_MAX || text.parse::<Snapshot>().is_err() {
        return Err(NotACursor);
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_where_its_reader_is() {
        for text in ["1-745:745:", "2-10:20:10,14,19", "1-745:745:/750:752:751/99"] {
            assert_eq!(text.parse::<StreamCursor>().unwrap().to_string(), text);
        }
        let cursor: StreamCursor = "1-745:745:/750:752:751/99".parse().unwrap();
        assert_eq!(cursor.within, Some(("750:752:751".to_owned(), 99)));
    }

    #[test]
    fn the_order_of_snapshots_is_that_in_which_they_were_taken() {
        let in_order = ["745:745:", "745:751:745,748", "748:751:748", "751:751:", "751:752:751"];
        for (place, from) in in_order.iter().enumerate() {
            for (other, snapshot) in in_order.iter().enumerate() {
                assert_eq!(StreamCursor::after(1, *from).compare(snapshot), place.cmp(&other));
            }
        }
    }

    #[test]
    fn an_old_or_made_up_id_is_far_behind() {
        let cursor = |from: &str| StreamCursor::after(1, from);
        assert!(cursor("1:1:").is_far_behind("200000:200000:"));
        assert!(cursor("700:745:700").is_far_behind("100746:100746:"));
        assert!(!cursor("700:745:700").is_far_behind("100745:100745:"));
        assert!(!cursor("200000:200000:").is_far_behind("745:745:"));
    }

    #[test]
    fn what_postgresql_would_refuse_is_no_id() {
        for wrong in [
            "",
            "745:745:",
            "1-",
            "1-745",
            "1-745:744:",
            "1-0:5:",
            "1-10:20:9",
            "1-10:20:20",
            "1-10:20:14,14",
            "1-10:20:14,",
            "1-10:20:+14",
            "1-10:20:14:1",
            "1-10:20:/10:20:",
            "1-10:20:/10:20:/x",
            "1-10:20:/10:20:/1/2",
            "x-10:20:",
            "1-99999999999999999999:99999999999999999999:",
        ] {
            assert_eq!(wrong.parse::<StreamCursor>(), Err(NotACursor), "{wrong}");
        }
    }
}
