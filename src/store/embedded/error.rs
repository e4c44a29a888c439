//! Errors of the private servers. Every message says what to do next.

use std::{io, path::PathBuf, process::ExitStatus};

/// Why PostgreSQL or PgBouncer could not be prepared, started or kept running.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No PostgreSQL of version 15 or newer is installed.
    #[error(
        "PostgreSQL 15 or newer is not installed: no folder of PATH and no /usr/lib/postgresql/*/bin has it. \
         On Debian and Ubuntu run `apt-get install postgresql`; elsewhere install PostgreSQL's server and put \
         its bin folder on PATH, or set DATABASE_URL to a server you have"
    )]
    PostgresMissing,
    /// The data folder was made by a major version of PostgreSQL that is not installed.
    #[error(
        "{} was made by PostgreSQL {major}, which is not installed. On Debian and Ubuntu run \
         `apt-get install postgresql-{major}`; elsewhere install that version and put its bin folder on PATH, \
         or move the data to the new version with pg_upgrade", data.display()
    )]
    PostgresOtherVersion {
        /// The cluster's folder.
        data: PathBuf,
        /// Its major version.
        major: u32,
    },
    /// PgBouncer is not installed.
    #[error(
        "PgBouncer 1.18 or newer is not installed: it is neither on PATH nor in /usr/sbin. On Debian and \
         Ubuntu run `apt-get install pgbouncer`; elsewhere install it and put its folder on PATH"
    )]
    PgbouncerMissing,
    /// No user exists that the servers could run as.
    #[error(
        "started as root, but PostgreSQL refuses to run as root and neither the user `postgres` nor `nobody` \
         exists: add one (`adduser --system postgres`), or start Quipu as another user"
    )]
    NoAccount,
    /// The data folder belongs to another user than the one that Quipu runs as.
    #[error(
        "{} belongs to user id {owner}, but Quipu runs as `{user}`: start Quipu as that user or as root, or \
         choose another folder with `--data`", path.display()
    )]
    OtherOwner {
        /// The cluster's folder.
        path: PathBuf,
        /// The user id of its owner.
        owner: u32,
        /// The user that Quipu runs as.
        user: String,
    },
    /// The servers' user cannot enter a folder on the path to the data.
    #[error(
        "user `{user}`, who runs PostgreSQL and PgBouncer, cannot enter {}, which is on the way to the data \
         folder {}. Choose a folder that user can reach, such as `--data /var/lib/quipu` \
         (`make run DATA=/var/lib/quipu`), or allow it with `chmod o+x {}`",
        component.display(), data.display(), component.display()
    )]
    CannotEnter {
        /// The servers' user.
        user: String,
        /// The folder that cannot be entered.
        component: PathBuf,
        /// The data folder.
        data: PathBuf,
    },
    /// The path of the data folder is too long for a unix socket.
    #[error(
        "the path of the socket {} has {bytes} bytes, but the operating system allows {limit}: choose a data \
         folder with a path shorter by {} bytes, such as `--data /var/lib/quipu` \
         (`make run DATA=/var/lib/quipu`)", path.display(), bytes - limit
    )]
    SocketPathTooLong {
        /// The socket's path.
        path: PathBuf,
        /// Its length in bytes.
        bytes: usize,
        /// The maximum of the operating system, in bytes.
        limit: usize,
    },
    /// Another Quipu runs on this data folder.
    #[error(
        "another Quipu is running on {}: stop it first, or give this one its own folder with `--data` and its \
         own ports with `--port-base`", data.display()
    )]
    InUse {
        /// The data folder.
        data: PathBuf,
    },
    /// Another program listens on a port that Quipu was given.
    #[error(
        "port {port} of 127.0.0.1, meant for {program}, is taken by another program: stop that one, or choose \
         other ports with `--port-base`"
    )]
    PortInUse {
        /// The server that needs the port.
        program: &'static str,
        /// The port.
        port: u16,
    },
    /// A file or process operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The failed action, as a verb.
        action: &'static str,
        /// The file, folder or program.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// A file or folder in the data folder is not as Quipu created it, and may redirect Quipu to a file
    /// elsewhere.
    #[error(
        "{} {problem}. Another user may have put it there to make Quipu change or show a file elsewhere, so nothing was \
         done with it: check it, remove it, and start again", path.display()
    )]
    Planted {
        /// The link, file or folder.
        path: PathBuf,
        /// The problem, as a sentence that continues after the path.
        problem: String,
    },
    /// The passwords of an existing cluster are missing or unreadable.
    #[error(
        "{} {problem}, but it holds the passwords of the database beside it: restore it from a backup, or, if \
         the data is not needed, remove the whole folder", path.display()
    )]
    Credentials {
        /// The file.
        path: PathBuf,
        /// The problem, as a sentence that continues after the path.
        problem: String,
    },
    /// A stop was requested before both servers answered. Servers that had started were stopped again.
    #[error("stopped before the database was ready")]
    Stopped,
    /// `initdb` failed.
    #[error("initdb could not make the database cluster:\n{output}")]
    Initdb {
        /// The output of `initdb`.
        output: String,
    },
    /// A server ended before it was ready.
    #[error("{program} ended while starting ({status}); the last lines of its log:\n{log}")]
    Ended {
        /// The server.
        program: &'static str,
        /// Its exit status.
        status: ExitStatus,
        /// The last lines of its log.
        log: String,
    },
    /// A server runs but does not answer.
    #[error("{program} did not answer within {seconds} s ({reason}); the last lines of its log:\n{log}")]
    NotReady {
        /// The server.
        program: &'static str,
        /// Time waited, in seconds.
        seconds: u64,
        /// Why the last login failed.
        reason: String,
        /// The last lines of its log.
        log: String,
    },
    /// A server failed repeatedly after restarts.
    #[error("{program} failed {times} times in a row, giving up; the last lines of its log:\n{log}")]
    KeepsFailing {
        /// The server.
        program: &'static str,
        /// Number of consecutive failures.
        times: u32,
        /// The last lines of its log.
        log: String,
    },
    /// A process of an earlier run does not end.
    #[error("{program} of a former run on this data folder does not end (process {pid}): end it by hand")]
    LeftoverStays {
        /// The program.
        program: &'static str,
        /// Its process id.
        pid: u32,
    },
    /// PostgreSQL or PgBouncer cannot be reached or refuses the login.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// Roles, database or privileges are not as Quipu requires.
    #[error(transparent)]
    Setup(#[from] crate::store::setup::Error),
}

/// Converts an `io::Error` into [`Error::Io`] with action and path.
pub(super) trait At<T> {
    /// Adds the action and the path that failed.
    fn at(self, action: &'static str, path: &std::path::Path) -> Result<T, Error>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &std::path::Path) -> Result<T, Error> {
        self.map_err(|source| Error::Io { action, path: path.to_path_buf(), source })
    }
}
