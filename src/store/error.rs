//! What can go wrong at the doors to PostgreSQL: the data, the moment, or the system.

use std::sync::Arc;

use tokio_postgres::error::SqlState;

/// A failure of the store. Cheap to clone: one failed batch answers many callers.
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
    Data(Arc<tokio_postgres::Error>),
    /// PostgreSQL could not be reached, or was lost, for longer than we retry. Whether the last attempt was
    /// committed is unknown, and it is safe to send the command again.
    #[error("PostgreSQL cannot be reached: {0}")]
    Unavailable(Arc<dyn std::error::Error + Send + Sync>),
    /// The writer has stopped because the process is shutting down.
    #[error("the store is shutting down")]
    Stopped,
    /// Anything else PostgreSQL says: a missing table, a missing grant.
    #[error("PostgreSQL answers with an error: {0}")]
    Broken(Arc<dyn std::error::Error + Send + Sync>),
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
        matches!(self, Self::Busy { .. } | Self::Unavailable(_))
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
}

/// Whether a SQLSTATE is the moment's fault: a deadlock, a lost server, or one that only reads until a failover is over.
fn passes(state: &str) -> bool {
    state == SqlState::READ_ONLY_SQL_TRANSACTION.code()
        || matches!(state.get(..2), Some("08" | "40" | "53" | "55" | "57" | "58"))
}

/// Sorts SQLSTATEs into passing, data and broken.
fn from_state(state: Option<&SqlState>) -> fn(Arc<tokio_postgres::Error>) -> Error {
    match state.map(SqlState::code) {
        None => |e| Error::Unavailable(e),
        Some(code) if passes(code) => |e| Error::Unavailable(e),
        Some(code) if matches!(code.get(..2), Some("22" | "23" | "54")) => Error::Data,
        Some(_) => |e| Error::Broken(e),
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        let make = from_state(error.code());
        make(Arc::new(error))
    }
}

impl From<deadpool_postgres::PoolError> for Error {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        match error {
            deadpool_postgres::PoolError::Backend(e) => e.into(),
            other => Self::Unavailable(Arc::new(other)),
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let passing = match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Protocol(_) => true,
            sqlx::Error::Database(e) => e.code().is_some_and(|code| passes(&code)),
            _ => false,
        };
        if passing { Self::Unavailable(Arc::new(error)) } else { Self::Broken(Arc::new(error)) }
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
