//! One requirement on the server.

use std::fmt;

/// One requirement. `Display` describes it in words.
#[derive(Debug, Clone)]
pub struct Requirement {
    what: String,
    /// The condition, a boolean SQL expression.
    pub(super) holds: String,
    /// The statement that establishes it; contains no secret.
    pub statement: String,
    pub(super) weight: Weight,
}

/// What follows when a requirement is not met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// Quipu refuses to start.
    Needed,
    /// Each start warns.
    Advised,
    /// Nothing: it helps where the administrator can establish it.
    Helpful,
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

pub(super) fn needed(
    what: impl Into<String>,
    holds: impl Into<String>,
    statement: impl Into<String>,
) -> Requirement {
    let (what, holds, statement) = (what.into(), holds.into(), statement.into());
    Requirement { what, holds, statement, weight: Weight::Needed }
}

/// What a start only warns about.
pub(super) fn advised(
    what: impl Into<String>,
    holds: impl Into<String>,
    statement: impl Into<String>,
) -> Requirement {
    Requirement { weight: Weight::Advised, ..needed(what, holds, statement) }
}

/// What helps where the administrator can establish it.
pub(super) fn helpful(
    what: impl Into<String>,
    holds: impl Into<String>,
    statement: impl Into<String>,
) -> Requirement {
    Requirement { weight: Weight::Helpful, ..needed(what, holds, statement) }
}
