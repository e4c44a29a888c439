//! Commands for the journal of people who log in.

use uuid::Uuid;

/// One command for the journal of people who log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserCommand {
    /// Open a session.
    Login(Box<NewSession>),
    /// End the session whose cookie has this SHA-256: its person logs out.
    Logout {
        /// SHA-256 of the cookie's value.
        sha256: [u8; 32],
    },
    /// End the session with this id.
    Revoke {
        /// Its id.
        session: Uuid,
        /// Who ends it.
        actor: String,
    },
}

/// A session to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSession {
    /// Its id, no secret.
    pub session: Uuid,
    /// SHA-256 of the cookie's value.
    pub sha256: [u8; 32],
    /// URL of the provider.
    pub issuer: String,
    /// Id of the person at the provider.
    pub subject: String,
    /// The person in the actor of entries.
    pub label: String,
    /// Name for people.
    pub name: Option<String>,
    /// Verified email address.
    pub email: Option<String>,
    /// Groups by which the login is allowed.
    pub groups: Vec<String>,
    /// Whether it may do everything.
    pub is_admin: bool,
    /// Seconds until it expires.
    pub lifetime_s: i32,
}
