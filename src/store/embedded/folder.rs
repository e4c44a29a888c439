//! The data folder: its layout and its lock.
//!
//! ```text
//! DATA/quipu.lock         locked by the one Quipu that runs on this folder
//! DATA/credentials.json   passwords, mode 0600
//! DATA/postgres           the cluster
//! DATA/pgbouncer          the pooler's configuration, password file and pid file
//! DATA/run                unix sockets
//! DATA/logs               logs of both servers
//! ```
//!
//! The servers' user can write in every folder below it, so these folders are used only through
//! [`Directory`].

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::fcntl::OFlag;

use super::{
    account::{Account, check_socket_path},
    directory::Directory,
    error::{At, Error},
};

/// Name of the cluster's folder.
pub(super) const CLUSTER: &str = "postgres";

/// Name of PostgreSQL's pid file in the cluster's folder.
pub(super) const POSTGRES_PID: &str = "postmaster.pid";

/// Name of the folder of the pooler's files.
const PGBOUNCER: &str = "pgbouncer";

/// Name of the pooler's pid file in its folder.
pub(super) const PGBOUNCER_PID: &str = "pgbouncer.pid";

/// The file that the Quipu on a data folder locks.
const LOCK: &str = "quipu.lock";

/// Refuses a data folder that another Quipu runs on. Creates nothing and keeps no lock: the start itself
/// locks the folder, and reports every other problem with it.
///
/// # Errors
/// [`Error::InUse`].
pub fn check_unused(data: &Path) -> Result<(), Error> {
    let data = std::path::absolute(data).at("find", data)?;
    let Ok(Some(root)) = Directory::open(&data) else { return Ok(()) };
    let Ok(lock) = root.open_to_read(LOCK) else { return Ok(()) };
    match lock.try_lock() {
        Err(TryLockError::WouldBlock) => Err(Error::InUse { data: root.path().to_path_buf() }),
        _ => Ok(()),
    }
}

/// Whether servers of an earlier run may hold their ports: their pid files exist. A start stops such servers
/// before it tries their ports.
#[must_use]
pub fn has_pid_files(data: &Path) -> bool {
    [(CLUSTER, POSTGRES_PID), (PGBOUNCER, PGBOUNCER_PID)]
        .iter()
        .any(|(folder, file)| data.join(folder).join(file).exists())
}

/// A data folder whose lock this process holds. Dropping it releases the lock.
#[derive(Debug)]
pub(super) struct Folder {
    root: Arc<Directory>,
    pgbouncer: Arc<Directory>,
    run: Arc<Directory>,
    logs: Arc<Directory>,
    account: Account,
    _lock: File,
}

impl Folder {
    /// Checks, creates and locks a data folder. `ports` are those of the sockets in it.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::CannotEnter`], [`Error::SocketPathTooLong`], [`Error::OtherOwner`],
    /// [`Error::NoAccount`], [`Error::Planted`], [`Error::Io`]. When a path is refused, nothing has been
    /// created.
    pub(super) fn open(data: &Path, ports: &[u16]) -> Result<Self, Error> {
        let data = std::path::absolute(data).at("find", data)?;
        let account_for = |owner| Account::for_cluster(owner, &data.join(CLUSTER));
        // A parent folder that cannot be entered has its own error, which says what to do.
        let existing = Directory::open(&data)
            .or_else(|error| Self::check(&data, &account_for(None)?, ports).and(Err(error)))?;
        let (root, account) = if let Some(root) = existing {
            let owner = root.child(CLUSTER)?.map(|cluster| cluster.owner()).transpose()?;
            (root, account_for(owner)?)
        } else {
            let account = account_for(None)?;
            Self::check(&data, &account, ports)?;
            (Directory::make(&data)?, account)
        };
        Self::check(root.path(), &account, ports)?;
        let lock = Self::lock(&root, &account)?;
        let private = |name| root.private(name, &account).map(Arc::new);
        let (pgbouncer, run, logs) = (private(PGBOUNCER)?, private("run")?, private("logs")?);
        Ok(Self { root: Arc::new(root), pgbouncer, run, logs, account, _lock: lock })
    }

    fn check(data: &Path, account: &Account, ports: &[u16]) -> Result<(), Error> {
        for port in ports {
            check_socket_path(&data.join("run"), *port)?;
        }
        account.check_path(data)
    }

    fn lock(root: &Directory, account: &Account) -> Result<File, Error> {
        let file = root.open_file(LOCK, OFlag::O_RDWR | OFlag::O_CREAT, account)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(Error::InUse { data: root.path().to_path_buf() }),
            Err(TryLockError::Error(source)) => {
                Err(Error::Io { action: "lock", path: root.path().join(LOCK), source })
            }
        }
    }

    /// The user that runs both servers.
    pub(super) fn account(&self) -> &Account {
        &self.account
    }

    pub(super) fn root(&self) -> &Arc<Directory> {
        &self.root
    }

    /// The path of the cluster's folder, which need not exist.
    pub(super) fn cluster_path(&self) -> PathBuf {
        self.root.path().join(CLUSTER)
    }

    /// The cluster's folder, if it exists.
    ///
    /// # Errors
    /// [`Error::Planted`], [`Error::Io`].
    pub(super) fn cluster(&self) -> Result<Option<Directory>, Error> {
        self.root.child(CLUSTER)
    }

    /// The folder of the pooler's files.
    pub(super) fn pgbouncer(&self) -> &Arc<Directory> {
        &self.pgbouncer
    }

    /// The folder of the unix sockets.
    pub(super) fn run(&self) -> &Arc<Directory> {
        &self.run
    }

    /// The folder of the logs.
    pub(super) fn logs(&self) -> &Arc<Directory> {
        &self.logs
    }
}
