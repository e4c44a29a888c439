//! Merges the layers into typed settings, and reports all refused values at once.

use figment::error::{Error, Kind};
use figment::value::{Dict, Value};
use figment::{Figment, Profile, Provider as _};
use serde::de::DeserializeOwned;

use super::layer::Problem;

/// The merged layers. They still know the source of each value.
pub(super) struct Merged {
    figment: Figment,
}

impl Merged {
    /// Merges the layers; later layers override earlier ones, key by key.
    pub(super) fn new(layers: impl IntoIterator<Item = super::layer::Layer>) -> Self {
        Self { figment: layers.into_iter().fold(Figment::new(), Figment::merge) }
    }

    /// Deserializes the settings. A refused value is recorded and removed, and the rest is deserialized
    /// again, so that one run reports all problems.
    pub(super) fn extract<T: DeserializeOwned>(&self) -> Result<T, Vec<Problem>> {
        let mut remaining = self.root();
        let mut problems = Vec::new();
        loop {
            let error = match T::deserialize(&Value::from(remaining.clone())) {
                Ok(settings) if problems.is_empty() => return Ok(settings),
                Ok(_) => return Err(problems),
                Err(error) => error,
            };
            problems.push(self.problem(&error));
            if !remove(&mut remaining, &error.path) {
                return Err(problems);
            }
        }
    }

    /// All values with their tags. `data` cannot fail here: text that cannot be parsed was refused when its
    /// layer was read.
    fn root(&self) -> Dict {
        self.figment.data().ok().and_then(|mut data| data.remove(&Profile::Default)).unwrap_or_default()
    }

    /// A problem with the value at the dotted `key` that only shows after deserialization.
    pub(super) fn refuse(&self, key: &str, reason: impl Into<String>) -> Problem {
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        let (source, key) = self.locate(&path);
        Problem { source, key, reason: reason.into() }
    }

    fn problem(&self, error: &Error) -> Problem {
        let (source, key) = self.locate(&error.path);
        let reason = match &error.kind {
            Kind::UnknownField(_, []) => "unknown key".to_owned(),
            Kind::UnknownField(_, known) => format!("unknown key; known here: {}", known.join(", ")),
            Kind::UnknownVariant(found, known) => format!("`{found}` is none of: {}", known.join(", ")),
            other => other.to_string(),
        };
        Problem { source, key, reason }
    }

    /// Source and key, spelled as in that source. Items of a list are located by their list.
    fn locate(&self, path: &[String]) -> (String, String) {
        let metadata =
            (1..=path.len()).rev().find_map(|length| self.figment.find_metadata(&path[..length].join(".")));
        match metadata {
            Some(found) => (found.name.to_string(), found.interpolate(&Profile::Default, path)),
            None => ("defaults".to_owned(), path.join(".")),
        }
    }
}

/// Removes the value at `path`, or the innermost list that contains it.
fn remove(dict: &mut Dict, path: &[String]) -> bool {
    let Some((key, rest)) = path.split_first() else { return false };
    match dict.get_mut(key) {
        Some(Value::Dict(_, inner)) if !rest.is_empty() => remove(inner, rest),
        Some(_) => dict.remove(key).is_some(),
        None => false,
    }
}
