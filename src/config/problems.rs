//! How a section checks what the types of its settings cannot express, and how problems are reported.
//! `check.rs` lists the sections.

use super::Settings;
use super::layer::Problem;
use super::merge::Merged;
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

impl<'a> Problems<'a> {
    /// None so far.
    pub(super) fn new(settings: &'a Settings, merged: &'a Merged, has_monitor_key: bool) -> Self {
        Self { settings, has_monitor_key, merged, section: "", found: Vec::new() }
    }

    /// Checks `section`, named as in the files.
    pub(super) fn check(&mut self, name: &'static str, section: &dyn Section) {
        self.section = name;
        section.problems(self);
    }

    /// What was found, in the order of the checks.
    pub(super) fn found(self) -> Vec<Problem> {
        self.found
    }

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
