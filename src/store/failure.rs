//! One failed operation on PostgreSQL: what was tried, as which role, in which database, and the server's
//! answer.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use sqlx::postgres::PgDatabaseError;
use tokio_postgres::error::DbError;

use crate::base::with_causes;

/// The error of a driver, a pool or a timer.
pub(super) type Cause = Arc<dyn StdError + Send + Sync>;

/// A failed operation. `Display` contains the whole chain of causes, so it has no `source`.
#[derive(Debug, Clone)]
pub struct Failure {
    attempt: Option<Attempt>,
    cause: Cause,
}

/// Where an operation was tried.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// The role that logs in.
    pub(super) role: String,
    pub(super) database: String,
    /// `host:port`.
    pub(super) address: String,
}

/// What was tried, and where.
#[derive(Debug, Clone)]
struct Attempt {
    action: String,
    target: Target,
}

impl Failure {
    /// A failure whose cause alone is known.
    pub(super) fn new(cause: Cause) -> Self {
        Self { attempt: None, cause }
    }

    /// Adds action, role and database. An action that is set already stays: it was added closer to the
    /// failure and is more exact.
    pub(super) fn during(self, action: impl Into<String>, target: Target) -> Self {
        let attempt = self.attempt.unwrap_or_else(|| Attempt { action: action.into(), target });
        Self { attempt: Some(attempt), cause: self.cause }
    }

    /// What a passing failure means: the server answered, or nothing did.
    pub(super) fn unavailable(&self) -> &'static str {
        if self.sqlstate().is_some() {
            "PostgreSQL cannot do this now"
        } else {
            "PostgreSQL cannot be reached"
        }
    }

    /// The SQLSTATE of the server's answer: five characters.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        report(&*self.cause).map(|report| report.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Attempt { action, target }) = &self.attempt {
            let Target { role, database, address } = target;
            write!(f, "cannot {action} as role `{role}` in database `{database}` of {address}: ")?;
        }
        let said =
            report(&*self.cause).map_or_else(|| with_causes(&*self.cause), |report| report.to_string());
        // Hints of PostgreSQL end with a period; more text may follow.
        f.write_str(said.strip_suffix('.').unwrap_or(&said))?;
        match self.remedy() {
            Some(remedy) => write!(f, ". {remedy}"),
            None => Ok(()),
        }
    }
}

impl Failure {
    /// What an operator can do about it, by SQLSTATE.
    fn remedy(&self) -> Option<String> {
        let Some(state) = self.sqlstate() else { return self.remedy_without_answer() };
        let logging_in = self.attempt.as_ref().filter(|attempt| attempt.action == LOG_IN);
        Some(match state {
            "28P01" => "The password in the database URL is not the one that the server has for this role".to_owned(),
            "28000" => "The server's pg_hba.conf does not let this role in from here, or not with this sslmode (without TLS \
                 where it says `hostssl`), or the role may not log in: change pg_hba.conf, the URL's sslmode or the role"
                .to_owned(),
            "3D000" => "Create the database (`quipu setup-sql` prints the script) or correct its name in the URL".to_owned(),
            "42501" => match logging_in {
                Some(Attempt { target: Target { role, database, .. }, .. }) => {
                    format!("As the database's owner run: GRANT CONNECT ON DATABASE \"{database}\" TO {role}")
                }
                None => "Grant what is missing: `quipu setup-sql --check` names each missing privilege with the statement \
                         that grants it"
                    .to_owned(),
            },
            "53300" => "All connections are in use: raise max_connections, or put PgBouncer in front".to_owned(),
            "53200" => "Where the hint says so, raise max_locks_per_transaction (1024) at the server; otherwise give it memory".to_owned(),
            "53100" => "Free or add disk space on the database server".to_owned(),
            "57P03" => "The server is starting or stopping: try again".to_owned(),
            "08P01" if self.is_refused_parameter() => "Remove the parameter from the database URL: PgBouncer would drop it".to_owned(),
            "08P01" if self.is_late() => {
                "PgBouncer had no connection to the server in time: the server does not answer, or all its connections are in use"
                    .to_owned()
            }
            "08P01" => "PgBouncer cannot log in to the server behind it: its log (DATA/logs/pgbouncer.log) says why".to_owned(),
            _ => return None,
        })
    }

    fn is_refused_parameter(&self) -> bool {
        report(&*self.cause).is_some_and(|report| is_refused_parameter(report.message))
    }

    /// Whether PgBouncer gave up waiting for a server connection.
    fn is_late(&self) -> bool {
        report(&*self.cause).is_some_and(|report| report.message == "query_wait_timeout")
    }

    /// What an operator can do when the server did not answer with a SQLSTATE.
    fn remedy_without_answer(&self) -> Option<String> {
        let text = with_causes(&*self.cause);
        let remedy = if text.contains("certificate") {
            "Check sslrootcert and the host name in the database URL against the server's certificate"
        } else if text.contains("does not support TLS") {
            "Turn TLS on at the server, or set sslmode=disable in the database URL"
        } else if text.contains("Connection refused")
            || text.contains("timed out")
            || text.contains("lookup address")
        {
            "Check that the server runs and that host and port in the database URL are right"
        } else {
            return None;
        };
        Some(remedy.to_owned())
    }
}

/// The action of a login.
pub(super) const LOG_IN: &str = "log in";

/// The error report that the server sent.
struct Report<'a> {
    code: &'a str,
    message: &'a str,
    detail: Option<&'a str>,
    hint: Option<&'a str>,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.code)?;
        if let Some(detail) = self.detail {
            write!(f, "; detail: {detail}")?;
        }
        if let Some(hint) = self.hint {
            write!(f, "; hint: {hint}")?;
        }
        Ok(())
    }
}

/// The server's report, at any depth in the chain of causes.
fn report<'a>(cause: &'a (dyn StdError + Send + Sync + 'static)) -> Option<Report<'a>> {
    causes(cause).find_map(|error| {
        if let Some(db) = error.downcast_ref::<DbError>() {
            let (code, message) = (db.code().code(), db.message());
            return Some(Report { code, message, detail: db.detail(), hint: db.hint() });
        }
        let Some(sqlx::Error::Database(db)) = error.downcast_ref::<sqlx::Error>() else { return None };
        let db = db.try_downcast_ref::<PgDatabaseError>()?;
        Some(Report { code: db.code(), message: db.message(), detail: db.detail(), hint: db.hint() })
    })
}

/// Whether PgBouncer refuses a parameter of the URL, which it reports with the SQLSTATE of a lost connection.
pub(super) fn is_refused_parameter(message: &str) -> bool {
    message.starts_with("unsupported startup parameter")
}

fn causes<'a>(
    first: &'a (dyn StdError + Send + Sync + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let first: &'a (dyn StdError + 'static) = first;
    std::iter::successors(Some(first), |error: &&'a (dyn StdError + 'static)| (*error).source())
}
