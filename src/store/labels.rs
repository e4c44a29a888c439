//! Labels of metrics whose values the store defines.

use super::registry::{TABLES, TableKind};
use super::setup::ROLES;
use crate::telemetry::Label;

/// Names of all tables.
const TABLE_NAMES: [&str; TABLES.len()] = {
    let mut names = [""; TABLES.len()];
    let mut table = 0;
    while table < TABLES.len() {
        names[table] = TABLES[table].0;
        table += 1;
    }
    names
};

const JOURNALS_COUNT: usize = {
    let (mut count, mut table) = (0, 0);
    while table < TABLES.len() {
        if matches!(TABLES[table].1, TableKind::Journal) {
            count += 1;
        }
        table += 1;
    }
    count
};

/// Names of the journals.
const JOURNAL_NAMES: [&str; JOURNALS_COUNT] = {
    let mut names = [""; JOURNALS_COUNT];
    let (mut found, mut table) = (0, 0);
    while table < TABLES.len() {
        if matches!(TABLES[table].1, TableKind::Journal) {
            names[found] = TABLES[table].0;
            found += 1;
        }
        table += 1;
    }
    names
};

/// A journal, by the name of its table.
pub const JOURNAL: Label = Label::listed("journal", &[&JOURNAL_NAMES]);

/// A table of the registry. Partitions count with their parent.
pub const TABLE: Label = Label::listed("table", &[&TABLE_NAMES]);

/// A role of PostgreSQL: one of Quipu's, or `other`.
pub const ROLE: Label = Label::listed("role", &[&ROLES, &[OTHER]]);

/// The value of [`ROLE`] for a role's name.
#[must_use]
pub fn role(name: &str) -> &'static str {
    ROLES.into_iter().find(|role| *role == name).unwrap_or(OTHER)
}

/// Services that divide work by leases: the part of a lease's name before the first `/`.
pub(super) const LEASE_KINDS: [&str; 10] = [
    "blossom",
    "finder",
    "monitor",
    "observer",
    "offers",
    "synchronizer",
    "ticker",
    "validator",
    "vanisher",
    OTHER,
];

const OTHER: &str = "other";

/// The service that a lease belongs to.
pub const LEASE_KIND: Label = Label::listed("kind", &[&LEASE_KINDS]);

/// The value of [`LEASE_KIND`] for a lease's name.
#[must_use]
pub fn lease_kind(name: &str) -> &'static str {
    let service = name.split('/').next().unwrap_or(name);
    LEASE_KINDS.into_iter().find(|kind| *kind == service).unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_belongs_to_the_service_before_the_slash() {
        for (name, kind) in [
            ("ticker", "ticker"),
            ("synchronizer/17", "synchronizer"),
            ("validator/wss://relay.example/a/b", "validator"),
            ("of a stranger/1", OTHER),
            ("", OTHER),
        ] {
            assert_eq!(lease_kind(name), kind, "{name}");
        }
    }

    #[test]
    fn a_journal_is_listed_and_a_working_table_is_not() {
        assert!(JOURNAL.allows("events") && !JOURNAL.allows("lease"));
        assert!(TABLE.allows("lease") && !TABLE.allows(""));
    }
}
