//! Rules on blobs.

use super::{Facts, Problem, Rule, Severity, ago};

/// Kept blobs without a copy that are none too many.
pub(super) const UNAVAILABLE: i64 = 0;

/// Age of a copy that was accepted and not read back, in seconds.
pub(super) const UNVERIFIED_S: i32 = 3_600;

const BLOBS_UNAVAILABLE: Rule = Rule {
    alert: "QuipuBlobsUnavailable",
    severity: Severity::Critical,
    why: "Downloads of them fail, and nothing is left to copy them from.",
    action: "`quipu blobs where SHA256` shows every place that a blob ever was, with the reason why it is not there any more. Bring that upstream back; its copies are found again by `quipu blobs verify`. Else upload the file again.",
};

const BLOBS_NOT_VERIFIED: Rule = Rule {
    alert: "QuipuBlobsNotVerified",
    severity: Severity::Warning,
    why: "Until a copy is read back nothing proves that it exists. Downloads go to other copies.",
    action: "The loop `blossom verify` or the upstream fails: see `/readyz`. `quipu blobs verify` tries at once.",
};

/// Every rule of this file.
#[cfg(test)]
pub(super) const RULES: [&Rule; 2] = [&BLOBS_UNAVAILABLE, &BLOBS_NOT_VERIFIED];

pub(super) fn problems(facts: &Facts) -> Vec<Problem> {
    let Some(blobs) = facts.blobs else { return Vec::new() };
    let mut found = Vec::new();
    if blobs.unavailable > UNAVAILABLE {
        let what = match blobs.unavailable {
            1 => "1 kept blob has no copy.".to_owned(),
            number => format!("{number} kept blobs have no copy."),
        };
        found.push(BLOBS_UNAVAILABLE.problem(what, None));
    }
    if let Some(age_s) = blobs.oldest_unverified_s.filter(|age_s| *age_s > f64::from(UNVERIFIED_S)) {
        let what = "Copies that upstreams accepted are not read back.";
        found.push(BLOBS_NOT_VERIFIED.problem(what, ago(facts.now, age_s)));
    }
    found
}
