//! One request of a walk, and the summary of its answer.

use crate::services::archive::event::Window;

/// The next request: the relay's events in a window, newest first.
pub type Ask = Window;

/// No relay limits its answers to fewer events than this. A smaller answer is complete unless the relay
/// itself says otherwise.
pub(super) const CAP_MIN: usize = 10;

/// Summary of one page. Only events inside the requested window count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Page {
    /// Events in the page.
    pub events: usize,
    /// Smallest `created_at` among them; `None` for an empty page.
    pub oldest: Option<i64>,
    /// Largest `created_at` among them.
    pub newest: Option<i64>,
    /// A second in the middle, newer than the oldest one; `None` when all events lie in one second.
    pub middle: Option<i64>,
    /// Events at or after the middle second.
    pub from_middle: usize,
    /// Items sent as events that could not be used. They take up room in the answer all the same.
    pub unusable: usize,
    /// True if only the beginning of the answer was read.
    pub is_cut: bool,
    /// True if the events arrived newest first.
    pub is_sorted: bool,
    /// Events that arrived for an earlier request after the end of its answer.
    pub late: usize,
}

impl Page {
    /// The page with events of these seconds, in order of arrival.
    #[must_use]
    pub fn of(seconds: &[i64]) -> Self {
        let mut sorted = seconds.to_vec();
        sorted.sort_unstable();
        let oldest = sorted.first().copied();
        let half = sorted.get(sorted.len() / 2..).unwrap_or_default();
        let middle = half.iter().copied().find(|second| Some(*second) != oldest);
        Self {
            events: seconds.len(),
            oldest,
            newest: sorted.last().copied(),
            middle,
            from_middle: sorted
                .iter()
                .filter(|second| middle.is_some_and(|middle| **second >= middle))
                .count(),
            is_sorted: seconds.is_sorted_by(|a, b| a >= b),
            ..Self::default()
        }
    }

    /// Number of items that the relay sent.
    pub(super) fn sent(&self) -> usize {
        self.events + self.unusable
    }

    /// The window in which a relay that sends its newest events first must show exactly this page's events
    /// again, and their number. The probe of the walk requests it.
    pub(super) fn proof(&self, until: i64) -> Option<(Window, usize)> {
        let (since, events) = match self.middle {
            Some(middle) => (middle, self.from_middle),
            // A page within one second may be a part of it; above that second there must be no events.
            None => (self.newest?.checked_add(1)?, 0),
        };
        Some((Window::new(since, until)?, events))
    }
}
