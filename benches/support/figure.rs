//! Rows of a bench's table, and the bar for each figure.

use super::verdict;

/// A row of the table: subject, figure, reference, ratio, bar, verdict.
pub(crate) type Row = Vec<String>;

/// A row whose ratio of figure to reference must be at most, or at least, `bar`.
pub(crate) fn row(name: &str, figure: String, reference: String, ratio: f64, bar: Bar) -> Row {
    let (bar, passed) = match bar {
        Bar::AtLeast(bar) => (format!(">= {bar}"), ratio >= bar),
        Bar::AtMost(bar) => (format!("<= {bar}"), ratio <= bar),
    };
    vec![name.to_owned(), figure, reference, format!("{ratio:.3}"), bar, verdict(passed).to_owned()]
}

/// The limit on a ratio.
#[derive(Clone, Copy)]
pub(crate) enum Bar {
    AtLeast(f64),
    AtMost(f64),
}
