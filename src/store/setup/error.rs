//! Errors of preparing and checking a server. Every message says what to do next.

use std::path::PathBuf;

use super::Requirement;
use crate::store::{self, Server};

/// Why roles, database or privileges are not as Quipu requires.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server cannot be reached or refuses the login.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The administrator lacks the privilege for a statement.
    #[error(
        "{error}. This administrator lacks the privilege; let an administrator who has it run: {statement}"
    )]
    Refused {
        /// Action, role, database and the server's answer.
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
        /// The requirements that are not met.
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
        /// The file that should contain them.
        stored: PathBuf,
    },
    /// The file of passwords cannot be read or written.
    #[error("cannot {action} the roles' passwords in {}: {problem}", path.display())]
    Passwords {
        /// The failed action, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The problem; never contains a password.
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
        let error = store::Error::from(error).during(action, server.target());
        // Only a missing privilege can be solved by another administrator.
        if error.sqlstate() == Some("42501") {
            Self::Refused { error, statement: statement.to_owned() }
        } else {
            Self::Store(error)
        }
    }
}

/// Each requirement with its statement, one per line.
fn listed(missing: &[Requirement]) -> String {
    missing.iter().fold(String::new(), |lines, requirement| {
        lines + &format!("\n  required: {requirement}. Run: {};", requirement.statement)
    })
}
