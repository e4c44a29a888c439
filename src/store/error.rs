//! Errors of the store, classified by what a caller can do: the data is refused, the failure is transient, or
//! the setup is wrong.

use std::sync::Arc;

use tokio_postgres::error::SqlState;

use super::Shortage;
use super::failure::{Failure, Target, is_refused_parameter};

/// An error of the store. Cheap to clone, because one failed batch answers many callers.
///
/// `Display` contains the action, role and database where they are known, the SQLSTATE, the server's message,
/// detail and hint, and a remedy. `source` is empty.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// PostgreSQL refuses the data itself; sending it again does not help.
    #[error("PostgreSQL refuses the data: {0}")]
    Data(Arc<Failure>),
    /// PostgreSQL was unreachable, or refused for a passing reason such as missing memory, for longer than the
    /// retry limits. Whether the last attempt was committed is unknown; sending the command again is safe.
    #[error("{what}: {0}", what = .0.unavailable())]
    Unavailable(Arc<Failure>),
    /// Less than the reserve is free on PostgreSQL's disk, or PostgreSQL found no space. The command was not
    /// stored; it succeeds when there is space again.
    #[error("no space left: {0}")]
    NoSpace(Arc<Shortage>),
    /// The writer has stopped because the process is shutting down.
    #[error("the store is shutting down")]
    Stopped,
    /// Any other error of PostgreSQL, such as a missing table or a missing grant.
    #[error("PostgreSQL answers with an error: {0}")]
    Broken(Arc<Failure>),
    /// A database URL that cannot be used.
    #[error("database URL {url}: {problem}")]
    Url {
        /// Scheme, host, port and database, without user, password and parameters.
        url: String,
        /// The problem, and what is accepted.
        problem: String,
    },
    /// The work needs the owner's URL, which this process does not have.
    #[error(
        "this needs the login of quipu_owner: set QUIPU_OWNER_DATABASE_URL to its URL, straight to PostgreSQL \
         (with docker compose: docker compose run --rm owner COMMAND)"
    )]
    NoOwner,
    /// Stored rows contradict what this program wrote or expects.
    #[error("{table}: {problem}")]
    Inconsistent {
        /// The table or view.
        table: &'static str,
        /// The problem, and what to do.
        problem: String,
    },
}

impl Error {
    /// Whether a retry can succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::NoSpace(_))
    }

    /// Whether all other work would fail now, too: the store is unreachable, full or stopping. Any other
    /// error concerns only the subject whose work failed, so a loop over many subjects skips that subject and
    /// goes on.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        self.is_transient() || matches!(self, Self::Stopped)
    }

    /// An inconsistency of `table`.
    pub fn inconsistent(table: &'static str, problem: impl Into<String>) -> Self {
        Self::Inconsistent { table, problem: problem.into() }
    }

    /// PostgreSQL did not answer, as a timer or a driver reports.
    pub fn unavailable(cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Unavailable(Arc::new(Failure::new(Arc::new(cause))))
    }

    /// Any other error of a driver.
    pub(super) fn broken(cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Broken(Arc::new(Failure::new(Arc::new(cause))))
    }

    /// Adds what was tried (a verb and its object), and where. An error that has an action already keeps it.
    #[must_use]
    pub(super) fn during(self, action: impl Into<String>, target: Target) -> Self {
        let named = |failure: Arc<Failure>| Arc::new(Arc::unwrap_or_clone(failure).during(action, target));
        match self {
            Self::Data(failure) => Self::Data(named(failure)),
            Self::Unavailable(failure) => Self::Unavailable(named(failure)),
            Self::Broken(failure) => Self::Broken(named(failure)),
            other => other,
        }
    }

    /// The SQLSTATE of PostgreSQL's or PgBouncer's answer.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Data(failure) | Self::Unavailable(failure) | Self::Broken(failure) => failure.sqlstate(),
            _ => None,
        }
    }
}

/// Whether a SQLSTATE is transient: a deadlock, a lost server, or a server that is read-only until a failover
/// is over.
fn is_transient(state: &str) -> bool {
    state == SqlState::READ_ONLY_SQL_TRANSACTION.code()
        || matches!(state.get(..2), Some("08" | "40" | "53" | "55" | "57" | "58"))
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        if error.code() == Some(&SqlState::DISK_FULL) {
            let said =
                error.as_db_error().map_or_else(|| error.to_string(), |said| said.message().to_owned());
            return Self::NoSpace(Arc::new(Shortage::Reported(said)));
        }
        let is_misuse = error.as_db_error().is_some_and(|said| is_refused_parameter(said.message()));
        // Without a SQLSTATE the connection was lost or never made.
        let state = error.code().map(|state| state.code().to_owned());
        let failure = Arc::new(Failure::new(Arc::new(error)));
        match state.as_deref() {
            None => Self::Unavailable(failure),
            Some(state) if is_transient(state) && !is_misuse => Self::Unavailable(failure),
            Some(state) if matches!(state.get(..2), Some("22" | "23" | "54")) => Self::Data(failure),
            Some(_) => Self::Broken(failure),
        }
    }
}

impl From<deadpool_postgres::PoolError> for Error {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        match error {
            deadpool_postgres::PoolError::Backend(e) => e.into(),
            other => Self::unavailable(other),
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let passing = match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Protocol(_) => true,
            sqlx::Error::Database(e) => {
                e.code().is_some_and(|code| is_transient(&code)) && !is_refused_parameter(e.message())
            }
            _ => false,
        };
        if passing { Self::unavailable(error) } else { Self::broken(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_only_server_is_transient_and_misuse_is_not() {
        for passing in ["25006", "08006", "40P01", "57P01"] {
            assert!(is_transient(passing), "{passing}");
        }
        for broken in ["25001", "42P01", "42501", "23505", ""] {
            assert!(!is_transient(broken), "{broken}");
        }
    }
}
