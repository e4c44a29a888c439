//! Secret keys, which are read only from the environment.

use nostr_sdk::Keys;

use super::Environment;
use super::layer::{ENVIRONMENT, Problem};
use crate::base::Secret;

/// The key in `variable`, if it is set.
///
/// # Errors
/// When the value is not a key; the value is not shown.
pub(super) fn key(environment: &Environment, variable: &str) -> Result<Option<Secret>, Problem> {
    let Some(text) = environment.get(variable) else { return Ok(None) };
    match Keys::parse(text) {
        Ok(_) => Ok(Some(Secret::new(text))),
        Err(_) => Err(Problem {
            source: ENVIRONMENT.into(),
            key: variable.into(),
            reason: "expected 64 hex digits or nsec1…".into(),
        }),
    }
}
