//! What can go wrong at the doors to PostgreSQL: the data, the moment, or the system.

use std::sync::Arc;

use tokio_postgres::error::SqlState;

use super::failure::Failure;
use super::{Server, Shortage};

/// A failure of the store. Cheap to clone: one failed batch answers many callers.
///
/// `Display` names the action, role and database where they are known, the SQLSTATE, the server's message, detail and hint, and
/// what to do; nothing is left to `source`.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The queue is full; the same request may succeed a moment later.
    #[error("the store's queue for {journal} is full ({limit} commands waiting)")]
    Busy {
        /// Which journal's queue.
        journal: &'static str,
        /// Its bound, in commands.
        limit: usize,
    },
    /// PostgreSQL refused the data itself; sending it again cannot help.
    #[error("PostgreSQL refuses the data: {0}")]
    Data(Arc<Failure>),
    /// PostgreSQL could not be reached, or was lost, for longer than we retry. Whether the last attempt was
    /// committed is unknown, and it is safe to send the command again.
    #[error("PostgreSQL cannot be reached: {0}")]
    Unavailable(Arc<Failure>),
    /// No space is left where PostgreSQL keeps its data, or less than the reserve. Nothing was accepted; the same command
    /// succeeds when there is space again.
    #[error("no space left: {0}")]
    NoSpace(Arc<Shortage>),
    /// The writer has stopped because the process is shutting down.
    #[error("the store is shutting down")]
    Stopped,
    /// Anything else PostgreSQL says: a missing table, a missing grant.
    #[error("PostgreSQL answers with an error: {0}")]
    Broken(Arc<Failure>),
    /// A database URL that cannot be used.
    #[error("database URL {url}: {problem}")]
    Url {
        /// Scheme, host, port and database, without user, password and parameters.
        url: String,
        /// What is wrong with it, and what is accepted.
        problem: String,
    },
    /// Stored rows that contradict what this program wrote or expects.
    #[error("{table}: {problem}")]
    Inconsistent {
        /// The table or view.
        table: &'static str,
        /// What is wrong with it, and what to do.
        problem: String,
    },
}

impl Error {
    /// Whether sending the same again, later, can succeed.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Unavailable(_) | Self::NoSpace(_))
    }

    /// Whether all other work would fail now, too: the store is away, full or stops. Any other error concerns the subject whose
    /// work failed: a loop over many subjects sets that one aside and goes on.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        self.is_passing() || matches!(self, Self::Stopped)
    }

    /// An inconsistency of `table`.
    pub fn inconsistent(table: &'static str, problem: impl Into<String>) -> Self {
        Self::Inconsistent { table, problem: problem.into() }
    }

    /// PostgreSQL did not answer: a timer or a driver says so.
    pub fn unavailable(cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Unavailable(Arc::new(Failure::new(Arc::new(cause))))
    }

    /// Anything else that a driver refuses to do.
    pub(super) fn broken(cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Broken(Arc::new(Failure::new(Arc::new(cause))))
    }

    /// The same error with what was tried, as a verb and its object, and where. An error that says so already keeps it.
    #[must_use]
    pub fn during(self, action: impl Into<String>, server: &Server) -> Self {
        let named = |failure: Arc<Failure>| Arc::new(Arc::unwrap_or_clone(failure).during(action, server));
        match self {
            Self::Data(failure) => Self::Data(named(failure)),
            Self::Unavailable(failure) => Self::Unavailable(named(failure)),
            Self::Broken(failure) => Self::Broken(named(failure)),
            other => other,
        }
    }

    /// The SQLSTATE that PostgreSQL or PgBouncer answered with.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Data(failure) | Self::Unavailable(failure) | Self::Broken(failure) => failure.sqlstate(),
            _ => None,
        }
    }
}

/// Whether a SQLSTATE is the moment's fault: a deadlock, a lost server, or one that only reads until a failover is over.
fn passes(state: &str) -> bool {
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
        // Without a SQLSTATE the connection was lost or never made.
        let state = error.code().map(|state| state.code().to_owned());
        let failure = Arc::new(Failure::new(Arc::new(error)));
        match state.as_deref() {
            None => Self::Unavailable(failure),
            Some(state) if passes(state) => Self::Unavailable(failure),
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
            sqlx::Error::Database(e) => e.code().is_some_and(|code| passes(&code)),
            _ => false,
        };
        if passing { Self::unavailable(error) } else { Self::broken(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_only_reads_is_the_moments_fault_and_other_misuse_is_not() {
        for passing in ["25006", "08006", "40P01", "57P01"] {
            assert!(passes(passing), "{passing}");
        }
        for broken in ["25001", "42P01", "42501", "23505", ""] {
            assert!(!passes(broken), "{broken}");
        }
    }
}
