//! Secret keys, which come from the environment alone.

use nostr_sdk::Keys;

use super::Environment;
use super::layer::{ENVIRONMENT, Problem};
use crate::base::Secret;

/// The variable that holds the monitor's secret key: hex or `nsec1…`.
pub(super) const MONITOR: &str = "QUIPU_MONITOR_SECRET_KEY";

/// The variable that holds the key by which the synchronizer says who it is (NIP-42).
pub(super) const SYNCHRONIZER: &str = "QUIPU_SYNCHRONIZER_SECRET_KEY";

/// A key out of the environment, if it is there.
///
/// # Errors
/// When it is none; the value is not shown.
pub(super) fn key(environment: &Environment, variable: &str) -> Result<Option<Secret>, Problem> {
    let Some(text) = environment.get(variable) else { return Ok(None) };
    match Keys::parse(text) {
        Ok(_) => Ok(Some(Secret::new(text))),
        Err(_) => Err(Problem {
            source: ENVIRONMENT.into(),
            key: variable.into(),
            reason: "neither 64 hex digits nor nsec1…".into(),
        }),
    }
}
