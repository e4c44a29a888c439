//! What one answer of a relay held, as far as a walk needs to know.

use crate::services::archive::event::Window;

/// What one page held, counting only events inside the window that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Page {
    /// Events in the page.
    pub events: usize,
    /// Smallest `created_at` among them; `None` for an empty page.
    pub oldest: Option<i64>,
    /// Largest.
    pub newest: Option<i64>,
    /// A second in the middle, newer than the oldest one; `None` when there is no other.
    pub middle: Option<i64>,
    /// Events from that second on.
    pub from_middle: usize,
    /// What was sent beside them as events and could not be used. It has its place in an answer all the same.
    pub unusable: usize,
    /// Only the beginning of the answer was read.
    pub is_cut: bool,
    /// The events came newest first.
    pub is_sorted: bool,
    /// Events that came meanwhile for a question whose answer had ended.
    pub late: usize,
}

impl Page {
    /// The page with events of these seconds, in the order in which they came.
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

    /// What it took up of an answer's room.
    pub(super) fn sent(&self) -> usize {
        self.events + self.unusable
    }

    /// Where a relay that showed its newest events up to `until` shows no others than this page, and how many of them.
    pub(super) fn proof(&self, until: i64) -> Option<(Window, usize)> {
        let (since, events) = match self.middle {
            Some(middle) => (middle, self.from_middle),
            // A page in one second may be a cut of it; above it there must be nothing.
            None => (self.newest?.checked_add(1)?, 0),
        };
        Some((Window::new(since, until)?, events))
    }
}
