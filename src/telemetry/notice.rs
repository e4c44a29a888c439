//! Lines for people on standard error.

use std::fmt::Display;
use std::io::Write as _;

/// Prints a line to standard error. Unlike `eprintln!` it does not panic when the reader is gone
/// (`2>&1 | head`).
pub fn notice(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
