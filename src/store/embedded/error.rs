//! What can go wrong with the private servers. Every message says what to do next.

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
    /// No PgBouncer is installed.
    #[error(
        "PgBouncer 1.18 or newer is not installed: it is neither on PATH nor in /usr/sbin. On Debian and \
         Ubuntu run `apt-get install pgbouncer`; elsewhere install it and put its folder on PATH"
    )]
    PgbouncerMissing,
    /// There is no user to run the servers as.
    #[error(
        "started as root, but PostgreSQL refuses to run as root and neither the user `postgres` nor `nobody` \
         exists: add one (`adduser --system postgres`), or start Quipu as another user"
    )]
    NoAccount,
    /// The data folder belongs to another user than the one Quipu runs as.
    #[error(
        "{} belongs to user id {owner}, but Quipu runs as `{user}`: start Quipu as that user or as root, or \
         choose another folder with `--data`", path.display()
    )]
    OtherOwner {
        /// The cluster's folder.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who we are.
        user: String,
    },
    /// The servers' user may not enter a folder on the way to the data.
    #[error(
        "user `{user}`, who runs PostgreSQL and PgBouncer, cannot enter {}, which is on the way to the data \
         folder {}. Choose a folder that user can reach, such as `--data /var/lib/quipu` \
         (`make run DATA=/var/lib/quipu`), or allow it with `chmod o+x {}`",
        component.display(), data.display(), component.display()
    )]
    CannotEnter {
        /// The servers' user.
        user: String,
        /// The folder that refuses.
        component: PathBuf,
        /// The data folder.
        data: PathBuf,
    },
    /// The data folder's path is too long for a unix socket in it.
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
        /// The most the operating system takes, in bytes.
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
    /// A stranger listens on a port we were given.
    #[error(
        "port {port} of 127.0.0.1, meant for {program}, is taken by another program: stop that one, or choose \
         other ports with `--port-base`"
    )]
    PortInUse {
        /// Who wanted it.
        program: &'static str,
        /// The port.
        port: u16,
    },
    /// A file or process operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file, folder or program.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Something in the data folder is not what Quipu put there, and may be another user's way to a file elsewhere.
    #[error(
        "{} {problem}. Another user may have put it there to make Quipu change or show a file elsewhere, so nothing was \
         done with it: check it, remove it, and start again", path.display()
    )]
    Planted {
        /// The link, file or folder.
        path: PathBuf,
        /// What is wrong with it, after its path.
        problem: String,
    },
    /// The passwords of an existing cluster are gone or unreadable.
    #[error(
        "{} {problem}, but it holds the passwords of the database beside it: restore it from a backup, or, if \
         the data may go, remove the whole folder", path.display()
    )]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A stop was asked for before both servers answered. What was started has been stopped again.
    #[error("stopped before the database was ready")]
    Stopped,
    /// `initdb` failed.
    #[error("initdb could not make the database cluster:\n{output}")]
    Initdb {
        /// What it printed.
        output: String,
    },
    /// A server ended before it was ready.
    #[error("{program} ended while starting ({status}); the last lines of its log:\n{log}")]
    Ended {
        /// Which one.
        program: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// A server runs but does not answer.
    #[error("{program} did not answer within {seconds} s ({reason}); the last lines of its log:\n{log}")]
    NotReady {
        /// Which one.
        program: &'static str,
        /// How long we waited.
        seconds: u64,
        /// The last refusal.
        reason: String,
        /// The end of its log.
        log: String,
    },
    /// A server that was restarted again and again.
    #[error("{program} failed {times} times in a row, giving up; the last lines of its log:\n{log}")]
    KeepsFailing {
        /// Which one.
        program: &'static str,
        /// How often it ended.
        times: u32,
        /// The end of its log.
        log: String,
    },
    /// Processes of a former run do not end.
    #[error("{program} of a former run on this data folder does not end (process {pid}): end it by hand")]
    LeftoverStays {
        /// Which one.
        program: &'static str,
        /// The process.
        pid: u32,
    },
    /// PostgreSQL or PgBouncer cannot be reached or refuses the login.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// Roles, database or privileges are not as Quipu needs them.
    #[error(transparent)]
    Setup(#[from] crate::store::setup::Error),
}

/// Turns an `io::Error` into [`Error::Io`] with the path it is about.
pub(super) trait At<T> {
    /// Names what was tried on which path.
    fn at(self, action: &'static str, path: &std::path::Path) -> Result<T, Error>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &std::path::Path) -> Result<T, Error> {
        self.map_err(|source| Error::Io { action, path: path.to_path_buf(), source })
    }
}
