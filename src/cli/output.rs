//! How commands show long work and listings.

use std::fmt::{Display, Write};
use std::io::Write as _;
use std::time::Duration;

use chrono::DateTime;
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{HumanFloatCount, ProgressBar, ProgressFinish, ProgressState, ProgressStyle};

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

/// A line that counts what a long listing has shown so far.
pub(super) fn count_line(what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{human_pos} {msg}").expect("the template is valid");
    let line = ProgressBar::no_length().with_style(style).with_message(what);
    line.enable_steady_tick(REDRAW);
    line
}

/// A bar of so many of a whole that may grow; both are set as they become known. It stays when it is dropped.
pub(super) fn part_bar(name: &'static str) -> ProgressBar {
    stays("{prefix:<26} {human_pos:>13} of {human_len:<13} {wide_bar}").with_prefix(name)
}

/// Fills a [`part_bar`]. Nothing of nothing is an empty bar.
pub(super) fn fill(bar: &ProgressBar, part: u64, whole: u64) {
    if whole > 0 {
        bar.set_length(whole);
    }
    bar.set_position(part);
}

/// A line of something that grows, with its rate.
pub(super) fn growth_line(name: &'static str) -> ProgressBar {
    stays("{prefix:<26} {human_pos:>13} {rate:>16}").with_prefix(name)
}

/// Begins a [`growth_line`] that is shown already: what is there came before anybody looked, and is no growth.
pub(super) fn begin(line: &ProgressBar, there: u64) {
    line.set_position(there);
    line.tick();
    line.reset_eta();
}

/// A line with a message, and for how long it has been there.
pub(super) fn clock_line() -> ProgressBar {
    let line = stays("{elapsed_precise}  {wide_msg}");
    line.enable_steady_tick(REDRAW);
    line
}

fn stays(template: &str) -> ProgressBar {
    let rate = |state: &ProgressState, out: &mut dyn Write| {
        // Where it cannot be written there is nobody to read it.
        let _ = write!(out, "{}/s", HumanFloatCount(state.per_sec().round()));
    };
    let style = ProgressStyle::with_template(template).expect("the template is valid").with_key("rate", rate);
    ProgressBar::no_length().with_style(style).with_finish(ProgressFinish::Abandon)
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

/// A second of unix time, for people, UTC.
pub(super) fn instant(seconds: i64) -> String {
    DateTime::from_timestamp(seconds, 0)
        .map_or_else(|| seconds.to_string(), |time| time.format("%Y-%m-%d %H:%M:%S").to_string())
}
