//! Secret keys, which are read only from the environment.

use nostr_sdk::Keys;

use super::Environment;
use super::layer::{ENVIRONMENT, Problem};
use crate::base::Secret;

/// The variable with the monitor's secret key: hex or `nsec1…`.
pub(super) const MONITOR: &str = "QUIPU_MONITOR_SECRET_KEY";

/// The variable with the key by which the synchronizer authenticates to relays (NIP-42).
pub(super) const SYNCHRONIZER: &str = "QUIPU_SYNCHRONIZER_SECRET_KEY";

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
