//! From layers to typed settings, with every refusal at once instead of the first one only.

use figment::error::{Error, Kind};
use figment::value::{Dict, Value};
use figment::{Figment, Profile, Provider as _};
use serde::de::DeserializeOwned;

use super::layer::Problem;

/// The merged layers, still able to say where a value came from.
pub(super) struct Merged {
    figment: Figment,
}

impl Merged {
    /// Later layers win, key by key.
    pub(super) fn of(layers: impl IntoIterator<Item = super::layer::Layer>) -> Self {
        Self { figment: layers.into_iter().fold(Figment::new(), Figment::merge) }
    }

    /// Reads the settings. A refused value is noted, taken out, and the rest read again, so one run
    /// shows them all.
    pub(super) fn extract<T: DeserializeOwned>(&self) -> Result<T, Vec<Problem>> {
        let mut left = self.root();
        let mut problems = Vec::new();
        loop {
            let error = match T::deserialize(&Value::from(left.clone())) {
                Ok(settings) if problems.is_empty() => return Ok(settings),
                Ok(_) => return Err(problems),
                Err(error) => error,
            };
            problems.push(self.problem(&error));
            if !remove(&mut left, &error.path) {
                return Err(problems);
            }
        }
    }

    /// All values with their tags. Reading a layer's text failed earlier, or not at all.
    fn root(&self) -> Dict {
        self.figment.data().ok().and_then(|mut data| data.remove(&Profile::Default)).unwrap_or_default()
    }

    /// A refusal of the value at the dotted `key` for a reason that only shows once it is typed.
    pub(super) fn refuse(&self, key: &str, reason: impl Into<String>) -> Problem {
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        let (source, key) = self.place(&path);
        Problem { source, key, reason: reason.into() }
    }

    fn problem(&self, error: &Error) -> Problem {
        let (source, key) = self.place(&error.path);
        let reason = match &error.kind {
            Kind::UnknownField(_, []) => "unknown key".to_owned(),
            Kind::UnknownField(_, known) => format!("unknown key; known here: {}", known.join(", ")),
            Kind::UnknownVariant(found, known) => format!("`{found}` is none of: {}", known.join(", ")),
            other => other.to_string(),
        };
        Problem { source, key, reason }
    }

    /// Source and key as the source spells it. Array items are found by their array.
    fn place(&self, path: &[String]) -> (String, String) {
        let metadata =
            (1..=path.len()).rev().find_map(|length| self.figment.find_metadata(&path[..length].join(".")));
        match metadata {
            Some(found) => (found.name.to_string(), found.interpolate(&Profile::Default, path)),
            None => ("defaults".to_owned(), path.join(".")),
        }
    }
}

/// Takes out the value at `path`, or the innermost list around it.
fn remove(dict: &mut Dict, path: &[String]) -> bool {
    let Some((key, rest)) = path.split_first() else { return false };
    match dict.get_mut(key) {
        Some(Value::Dict(_, inner)) if !rest.is_empty() => remove(inner, rest),
        Some(_) => dict.remove(key).is_some(),
        None => false,
    }
}
