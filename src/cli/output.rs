//! How commands show long work and listings.

use std::fmt::Display;
use std::io::Write as _;
use std::time::Duration;

use chrono::DateTime;
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};

/// Redraws a second; standard error, and nothing where that is no terminal.
const REDRAW: Duration = Duration::from_millis(200);

/// A bar of bytes read.
pub(super) fn byte_bar(total: Option<u64>) -> ProgressBar {
    let bar = match total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::new_spinner(),
    };
    bar.set_style(
        ProgressStyle::with_template("{bytes} of {total_bytes} {wide_bar} {eta}  {msg}")
            .expect("the template is valid"),
    );
    bar.enable_steady_tick(REDRAW);
    bar
}

/// A bar of things done.
pub(super) fn count_bar(total: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(total);
    bar.set_style(
        ProgressStyle::with_template("{human_pos} of {human_len} {msg} {wide_bar} {per_sec} {eta}")
            .expect("the template is valid"),
    );
    bar.set_message(what);
    bar.enable_steady_tick(REDRAW);
    bar
}

/// A table for people.
pub(super) fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    for row in rows {
        table.add_row(row);
    }
    table
}

/// Prints a line. A reader that has seen enough, such as `head`, is no failure.
pub(super) fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A second for people, in UTC.
pub(super) fn instant(seconds: i64) -> String {
    DateTime::from_timestamp(seconds, 0)
        .map_or_else(|| seconds.to_string(), |t| t.format("%Y-%m-%d %H:%M:%S").to_string())
}
