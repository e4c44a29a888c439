//! The totals of an import, and how they are reported.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::chunks::RefusedLine;
use crate::base::counted;
use crate::base::nostr_event::{Refusal, Refusals};
use crate::cli::output;
use crate::store::ingest::PageOutcome;
use crate::telemetry::notice;

/// Refused lines that are named at the end; further ones are only counted.
const NAMED_MAX: usize = 10;

/// The totals of the whole file.
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// The last line of the chunks whose storing has begun.
    pub(super) last_line: u64,
    stored: u64,
    known: u64,
    refused: Refusals,
    /// The first refused lines of the file. Chunks are committed in any order.
    first_refused: BTreeMap<u64, Refusal>,
}

impl Totals {
    /// Adds a committed chunk.
    pub(super) fn add(&mut self, outcome: &PageOutcome, refused: &[RefusedLine]) {
        self.stored += u64::from(outcome.stored);
        self.known += u64::from(outcome.known);
        for (line, reason) in refused {
            self.refused.add(*reason);
            self.first_refused.insert(*line, *reason);
            if self.first_refused.len() > NAMED_MAX {
                self.first_refused.pop_last();
            }
        }
    }

    /// The counts in a few words, for a progress bar.
    pub(super) fn in_short(&self) -> String {
        format!("{} new, {} known, {} refused", self.stored, self.known, self.refused.total())
    }

    /// Prints the totals. The exit code is a failure if the file had lines and all of them were refused.
    pub(super) fn report(&self, json: bool) -> ExitCode {
        if json {
            output::say(self.to_json());
        } else {
            for line in self.lines() {
                output::say(line);
            }
        }
        if self.stored + self.known > 0 || self.refused.is_empty() {
            return ExitCode::SUCCESS;
        }
        notice("quipu: nothing was imported: every line was refused");
        ExitCode::FAILURE
    }

    fn to_json(&self) -> Value {
        let lines = self.first_refused.iter().map(|(line, reason)| (*line, *reason));
        json!({
            "total": true, "stored": self.stored, "known": self.known, "refused": self.refused.to_json(),
            "refused_lines": lines_json(lines),
        })
    }

    fn lines(&self) -> Vec<String> {
        let (stored, known, refused) = (self.stored, self.known, self.refused.total());
        let mut lines = vec![format!(
            "{stored} new, {known} stored before or kept away by an erasure, {refused} refused"
        )];
        lines.extend(
            self.first_refused.iter().map(|(line, reason)| format!("  line {line}: {}", reason.as_str())),
        );
        let more = refused.saturating_sub(self.first_refused.len() as u64);
        if more > 0 {
            lines.push(format!("  and {}", counted(more, "more line", "more lines")));
        }
        lines.extend(self.refused.iter().map(|(reason, count)| format!("  {count} {reason}")));
        lines
    }
}

/// Refused lines as JSON: `[[line, "reason"], …]`.
pub(super) fn lines_json(refused: impl IntoIterator<Item = RefusedLine>) -> Value {
    refused.into_iter().map(|(line, reason)| json!([line, reason.as_str()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_ten_refused_lines_are_named_and_all_are_counted_by_reason() {
        let mut total = Totals::default();
        let later: Vec<RefusedLine> = (8..=12).map(|line| (line, Refusal::BadId)).collect();
        let earlier: Vec<RefusedLine> = (1..=7).map(|line| (line, Refusal::Malformed)).collect();
        let outcome = PageOutcome { stored: 2, known: 1, ..PageOutcome::default() };
        total.add(&outcome, &later);
        total.add(&PageOutcome::default(), &earlier);
        let lines = total.lines();
        assert_eq!(lines[0], "2 new, 1 stored before or kept away by an erasure, 12 refused");
        assert_eq!((&*lines[1], &*lines[10]), ("  line 1: malformed", "  line 10: bad_id"));
        assert_eq!(lines[11..], ["  and 2 more lines", "  7 malformed", "  5 bad_id"]);
        let json = total.to_json();
        assert_eq!(json["refused_lines"].as_array().unwrap().len(), NAMED_MAX);
        assert_eq!(json["refused_lines"][7], json!([8, "bad_id"]));
    }

    #[test]
    fn a_file_of_which_every_line_is_refused_is_a_failure() {
        let code = |stored, refused: &[RefusedLine]| {
            let mut total = Totals::default();
            total.add(&PageOutcome { stored, ..PageOutcome::default() }, refused);
            format!("{:?}", total.report(true))
        };
        let (success, failure) = (format!("{:?}", ExitCode::SUCCESS), format!("{:?}", ExitCode::FAILURE));
        assert_eq!(code(0, &[]), success, "an empty file");
        assert_eq!(code(1, &[(2, Refusal::Malformed)]), success);
        assert_eq!(code(0, &[(1, Refusal::Malformed)]), failure);
    }
}
