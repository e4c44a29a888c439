//! A string that is never printed: passwords, keys, tokens and URLs that contain them.

use std::fmt;

use serde::Deserialize;

/// A secret string. `Debug` prints `***`; only [`Secret::expose`] returns the value.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value, for the code that hands it to a driver.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The value for `Url::set_password`, which encodes every character but the percent sign.
    #[must_use]
    pub fn for_url(&self) -> String {
        self.0.replace('%', "%25")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
