//! What the types of the settings cannot express: each section checks its own values, and one list, which the
//! compiler holds complete, names all sections.

use super::layer::Problem;
use super::merge::Merged;
use super::{
    Console, Database, Initializer, PrioritySynchronizer, Projector, Services, Settings, Ticker, Validator,
};
use crate::base::RelayUrl;

/// A section of the settings.
pub(super) trait Section {
    /// Reports the values that are refused although their types allow them.
    fn problems(&self, problems: &mut Problems<'_>);
}

/// The problems that were found, and what a section may look at beside its own values.
pub(super) struct Problems<'a> {
    /// All settings, for values that depend on those of another section.
    pub(super) settings: &'a Settings,
    /// Whether the environment has a key for the monitor.
    pub(super) has_monitor_key: bool,
    merged: &'a Merged,
    section: &'static str,
    found: Vec<Problem>,
}

impl Problems<'_> {
    /// Reports the value at `key` of the section that is being checked.
    pub(super) fn refuse(&mut self, key: &str, reason: impl Into<String>) {
        self.found.push(self.merged.refuse(&format!("{}.{key}", self.section), reason));
    }

    /// Reports each of `urls`, the value at `key`, that is not the canonical URL of a relay.
    pub(super) fn refuse_other_than_relays(&mut self, key: &str, urls: &[String]) {
        for url in urls {
            match RelayUrl::parse(url) {
                Ok(relay) if relay.as_str() == url => {}
                Ok(relay) => self.refuse(key, format!("write `{url}` as `{relay}`")),
                Err(error) => self.refuse(key, format!("`{url}`: {error}")),
            }
        }
    }
}

/// Checks every section.
pub(super) fn find(settings: &Settings, merged: &Merged, has_monitor_key: bool) -> Vec<Problem> {
    let mut problems = Problems { settings, has_monitor_key, merged, section: "", found: Vec::new() };
    for (name, section) in sections(settings) {
        problems.section = name;
        section.problems(&mut problems);
    }
    problems.found
}

/// Every section with its name. The patterns have no `..`: a section that is not listed does not compile.
fn sections(settings: &Settings) -> [(&'static str, &dyn Section); 15] {
    let Settings { database, log, http, networks, services } = settings;
    let Services {
        initializer,
        finder,
        validator,
        synchronizer,
        priority_synchronizer,
        monitor,
        projector,
        ticker,
        messages,
        console,
        ingest,
    } = services;
    [
        ("database", database),
        ("log", log),
        ("http", http),
        ("networks", networks),
        ("services.initializer", initializer),
        ("services.finder", finder),
        ("services.validator", validator),
        ("services.synchronizer", synchronizer),
        ("services.priority_synchronizer", priority_synchronizer),
        ("services.monitor", monitor),
        ("services.projector", projector),
        ("services.ticker", ticker),
        ("services.messages", messages),
        ("services.console", console),
        ("services.ingest", ingest),
    ]
}

impl Section for PrioritySynchronizer {
    fn problems(&self, problems: &mut Problems<'_>) {
        if self.enabled && problems.settings.services.synchronizer.enabled {
            let reason = "one of the two synchronizers runs: set `services.synchronizer.enabled` to false";
            problems.refuse("enabled", reason);
        }
    }
}

/// Sections whose types say everything.
macro_rules! without_problems {
    ($($section:ty),+) => {
        $(impl Section for $section {
            fn problems(&self, _: &mut Problems<'_>) {}
        })+
    };
}

without_problems!(Console, Database, Initializer, Projector, Ticker, Validator);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_section_is_listed_by_its_name() {
        let settings = Settings::default();
        let shown = serde_json::to_value(&settings).unwrap();
        let names = |value: &serde_json::Value, prefix: &str| -> BTreeSet<String> {
            value.as_object().unwrap().keys().map(|key| format!("{prefix}{key}")).collect()
        };
        let mut expected = names(&shown, "");
        expected.remove("services");
        expected.extend(names(&shown["services"], "services."));
        let listed: BTreeSet<String> =
            sections(&settings).iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(listed, expected);
    }
}
