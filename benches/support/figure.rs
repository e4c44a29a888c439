//! A row of a bench's table, and the bar that its figure has to keep.

use super::verdict;

/// Row of the table: what, figure, reference, ratio, bar, verdict.
pub(crate) type Row = Vec<String>;

/// A row whose figure has to be at most, or at least, `bar` times its reference.
pub(crate) fn row(name: &str, figure: String, reference: String, ratio: f64, bar: Bar) -> Row {
    let (bar, passed) = match bar {
        Bar::AtLeast(bar) => (format!(">= {bar}"), ratio >= bar),
        Bar::AtMost(bar) => (format!("<= {bar}"), ratio <= bar),
    };
    vec![name.to_owned(), figure, reference, format!("{ratio:.3}"), bar, verdict(passed).to_owned()]
}

/// What a ratio has to keep.
#[derive(Clone, Copy)]
pub(crate) enum Bar {
    AtLeast(f64),
    AtMost(f64),
}
