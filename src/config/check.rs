//! The list of all sections, which the compiler holds complete.

use super::layer::Problem;
use super::merge::Merged;
use super::problems::{Problems, Section};
use super::{Database, Initializer, Observer, Projector, Services, Settings, Ticker, Validator};

/// Checks every section.
pub(super) fn find(settings: &Settings, merged: &Merged, has_monitor_key: bool) -> Vec<Problem> {
    let mut problems = Problems::new(settings, merged, has_monitor_key);
    for (name, section) in all(settings) {
        problems.check(name, section);
    }
    problems.found()
}

/// Every section with its name. The patterns have no `..`: a section that is not listed does not compile.
fn all(settings: &Settings) -> [(&'static str, &dyn Section); 18] {
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
        observer,
        messages,
        jobs,
        blossom,
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
        ("services.observer", observer),
        ("services.messages", messages),
        ("services.jobs", jobs),
        ("services.blossom", blossom),
        ("services.console", console),
        ("services.ingest", ingest),
    ]
}

/// Sections whose types say everything.
macro_rules! without_problems {
    ($($section:ty),+) => {
        $(impl Section for $section {
            fn problems(&self, _: &mut Problems<'_>) {}
        })+
    };
}

without_problems!(Database, Initializer, Observer, Projector, Ticker, Validator);

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
        let listed: BTreeSet<String> = all(&settings).iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(listed, expected);
    }
}
