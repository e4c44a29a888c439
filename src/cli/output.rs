//! Progress bars, tables and lines of output, for all commands.

use std::fmt::{self, Display};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::DateTime;
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{
    HumanCount, HumanFloatCount, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
};

use crate::base::noun;
use crate::telemetry::notice;

/// Pause between two redraws of a bar that receives no update.
const REDRAW: Duration = Duration::from_millis(200);

/// All bars of this process are drawn here; none is when standard error is not a terminal.
static SCREEN: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Whether bars are drawn at all.
pub(super) fn is_drawn() -> bool {
    !SCREEN.is_hidden()
}

/// Stops drawing. The bars stay on the screen, and later output goes below them.
pub(super) fn leave_bars() {
    SCREEN.set_draw_target(ProgressDrawTarget::hidden());
    notice("");
}

/// Standard error for log lines, which are written above the bars.
#[derive(Debug)]
pub(super) struct AboveBars;

impl io::Write for AboveBars {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        SCREEN.suspend(|| io::stderr().write(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Adds a bar to the screen.
fn shown(bar: ProgressBar, template: &str) -> ProgressBar {
    let rate = |state: &ProgressState, out: &mut dyn fmt::Write| {
        // If the terminal does not accept output, no one misses the rate.
        let _ = write!(out, "{}/s", HumanFloatCount(state.per_sec().round()));
    };
    let style = ProgressStyle::with_template(template).expect("the template is valid").with_key("rate", rate);
    SCREEN.add(bar.with_style(style))
}

/// Redraws a bar regularly, so that its time moves even without an update.
fn ticking(bar: ProgressBar, pause: Duration) -> ProgressBar {
    bar.enable_steady_tick(pause);
    bar
}

/// A bar of bytes read, with a total if it is known.
pub(super) fn byte_bar(total: Option<u64>) -> ProgressBar {
    let bar = match total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::new_spinner(),
    };
    ticking(shown(bar, "{bytes} of {total_bytes} {wide_bar} {eta}  {msg}"), REDRAW)
}

/// A bar that counts items up to a known total. The noun follows the total.
pub(super) fn count_bar(total: u64, one: &'static str, many: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(total).with_message(noun(total, one, many));
    ticking(shown(bar, "{human_pos} of {human_len} {msg} {wide_bar} {per_sec} {eta}"), REDRAW)
}

/// A line that counts the rows of a long listing. It is shown only if the listing goes to a file: on a
/// terminal or in a pager it would be mixed with the rows.
pub(super) fn count_line(one: &'static str, many: &'static str) -> ProgressBar {
    let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    if !stdout.and_then(|stdout| stdout.metadata()).is_ok_and(|stdout| stdout.is_file()) {
        return ProgressBar::hidden();
    }
    let number = move |state: &ProgressState, out: &mut dyn fmt::Write| {
        let _ = write!(out, "{} {}", HumanCount(state.pos()), noun(state.pos(), one, many));
    };
    let style = ProgressStyle::with_template("{number}").expect("the template is valid");
    let line = ProgressBar::no_length().with_style(style.with_key("number", number));
    ticking(SCREEN.add(line), REDRAW)
}

/// A bar that shows a part of a total which may grow; [`fill`] moves it.
pub(super) fn part_bar(name: &'static str) -> ProgressBar {
    shown(
        ProgressBar::no_length().with_prefix(name),
        "{prefix:<26} {human_pos:>13} of {human_len:<13} {wide_bar}",
    )
}

/// Sets a [`part_bar`]. With a total of 0 it is empty.
pub(super) fn fill(bar: &ProgressBar, part: u64, whole: u64) {
    if whole > 0 {
        bar.set_length(whole);
    }
    bar.set_position(part);
}

/// A line with a growing count and its rate. The rate leaves out the first `there` items, which existed
/// before the command.
pub(super) fn growth_line(name: &'static str, there: u64) -> ProgressBar {
    // Counted before it is drawn: the first frame would show what was there as the rate.
    let line = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    let line = line.with_prefix(name).with_position(there);
    line.tick();
    line.reset_eta();
    shown(line, "{prefix:<26} {human_pos:>13} {rate:>16}")
}

/// A line of text.
pub(super) fn text_line(name: &'static str) -> ProgressBar {
    shown(ProgressBar::no_length().with_prefix(name), "{prefix:<26} {wide_msg}")
}

/// A line with a message and the time since it was added.
pub(super) fn clock_line() -> ProgressBar {
    ticking(shown(ProgressBar::no_length(), "{elapsed_precise}  {wide_msg}"), Duration::from_secs(1))
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

/// Names and values for people, a pair a line. No table: a long value would pad all lines.
pub(super) fn pairs(pairs: &[[String; 2]]) -> String {
    let width = pairs.iter().map(|[name, _]| name.chars().count()).max().unwrap_or_default();
    pairs.iter().map(|[name, value]| format!(" {name:width$}  {value}")).collect::<Vec<_>>().join("\n")
}

/// Standard output was closed by its reader (`| head`), so the rest of a listing has no use. It ends the
/// command without a message and without a failure.
#[derive(Debug, thiserror::Error)]
#[error("standard output was closed")]
pub(super) struct Closed;

/// Prints a line of a listing to standard output.
///
/// # Errors
/// [`Closed`]; any other error with what failed.
pub(super) fn list(line: impl Display) -> Result<()> {
    written(writeln!(io::stdout(), "{line}"))
}

/// The outcome of a write of the command's output, as the outcome of the command.
///
/// # Errors
/// As [`list`].
pub(super) fn written(outcome: io::Result<()>) -> Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Closed.into()),
        other => other.context("cannot write the output"),
    }
}

/// Prints a line about what the command does. Errors are ignored: the work goes on, and its exit code counts,
/// whether or not it is read.
pub(super) fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Unix seconds as a date and time, UTC.
pub(super) fn instant(seconds: i64) -> String {
    DateTime::from_timestamp(seconds, 0)
        .map_or_else(|| seconds.to_string(), |time| time.format("%Y-%m-%d %H:%M:%S").to_string())
}

/// Untrusted text on one line: each run of white space, control characters and characters that change the
/// direction of writing becomes one blank, and the text is cut after `characters`.
pub(super) fn one_line(text: &str, characters: usize) -> String {
    let is_blank = |c: char| {
        c.is_whitespace()
            || c.is_control()
            || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let line = text.split(is_blank).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_text_is_one_line_that_moves_nothing() {
        let text = "  a\u{1b}[2Jb\r\nc\u{9b}d\u{202e}e\u{2066}f\0g \u{feff} ";
        assert_eq!(one_line(text, 60), "a [2Jb c d e f g");
        assert_eq!(one_line("äöüß", 3), "äöü…");
        assert_eq!(one_line("äöüß", 4), "äöüß");
    }
}
