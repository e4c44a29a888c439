//! Why a server cannot be prepared, or is not. Every message says what to do next.

use std::path::PathBuf;

use super::Requirement;
use crate::store::{self, Server};

/// Why roles, database or privileges are not as Quipu needs them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server cannot be reached or refuses the login.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The server refuses a statement of the administrator's.
    #[error("{error}. This administrator may not do it: have one who may run: {statement}")]
    Refused {
        /// Action, role, database and the server's words.
        error: store::Error,
        /// The statement; it contains no secret.
        statement: String,
    },
    /// Roles or privileges are missing.
    #[error(
        "database {database} of {address} is not prepared for Quipu:{}\nRun these statements as its owner or an administrator, \
         connected to {database}; `quipu setup-sql` prints the whole script",
        listed(missing)
    )]
    Missing {
        /// The database.
        database: String,
        /// Host and port.
        address: String,
        /// What does not hold.
        missing: Vec<Requirement>,
    },
    /// The roles exist, and their passwords are not in this data folder.
    #[error(
        "{address} has Quipu's roles already, and their passwords are not in {}. Copy that file from the data folder of the Quipu \
         that made the roles (mode 0600), or set DATABASE_URL, QUIPU_SESSION_DATABASE_URL and QUIPU_OWNER_DATABASE_URL to the \
         roles' own URLs. If that Quipu is gone, `quipu setup-sql` prints a script that gives the roles new passwords",
        stored.display()
    )]
    PasswordsUnknown {
        /// Host and port.
        address: String,
        /// The file that would hold them.
        stored: PathBuf,
    },
    /// The file of passwords cannot be read or written.
    #[error("cannot {action} the roles' passwords in {}: {problem}", path.display())]
    Passwords {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong; never contains a password.
        problem: String,
    },
}

impl Error {
    pub(super) fn missing(server: &Server, missing: Vec<Requirement>) -> Self {
        Self::Missing { database: server.database().to_owned(), address: server.address(), missing }
    }

    pub(super) fn refused(
        error: tokio_postgres::Error,
        action: &str,
        statement: &str,
        server: &Server,
    ) -> Self {
        let error = store::Error::from(error).during(action, server);
        // Anything but a missing privilege is no matter of who runs it.
        if error.sqlstate() == Some("42501") {
            Self::Refused { error, statement: statement.to_owned() }
        } else {
            Self::Store(error)
        }
    }
}

/// Each requirement and its statement on a line of its own.
fn listed(missing: &[Requirement]) -> String {
    missing.iter().fold(String::new(), |lines, requirement| {
        lines + &format!("\n  it must hold that {requirement}: {};", requirement.statement)
    })
}
