//! The data folder: its layout, its lock, and files that appear whole or not at all.
//!
//! ```text
//! DATA/quipu.lock         held by the one Quipu that runs here
//! DATA/credentials.json   passwords, mode 0600
//! DATA/postgres           the cluster
//! DATA/pgbouncer          the pooler's configuration, password file and pid file
//! DATA/run                unix sockets
//! DATA/logs               what both servers say
//! ```

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::{
    account::{Account, check_socket_path},
    error::{At, Error},
};

/// A data folder that this process holds the lock of. Dropping it lets the lock go.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    account: Account,
    _lock: File,
}

impl Folder {
    /// Checks, makes and locks a data folder whose sockets are for `ports`.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::CannotEnter`], [`Error::SocketPathTooLong`], [`Error::OtherOwner`],
    /// [`Error::NoAccount`], [`Error::Io`]. Nothing was made when a path is refused.
    pub(super) fn open(data: &Path, ports: &[u16]) -> Result<Self, Error> {
        let data = std::path::absolute(data).at("find", data)?;
        let account = Account::for_cluster(&data.join("postgres"))?;
        Self::check(&data, &account, ports)?;
        if !data.is_dir() {
            fs::create_dir_all(&data).at("make", &data)?;
            fs::set_permissions(&data, Permissions::from_mode(0o755)).at("set the mode of", &data)?;
        }
        let root = data.canonicalize().at("find", &data)?;
        Self::check(&root, &account, ports)?;
        let lock = Self::lock(&root)?;
        let folder = Self { root, account, _lock: lock };
        for made in [folder.pgbouncer(), folder.run(), folder.logs()] {
            folder.make_private(&made)?;
        }
        Ok(folder)
    }

    fn check(data: &Path, account: &Account, ports: &[u16]) -> Result<(), Error> {
        for port in ports {
            check_socket_path(&data.join("run"), *port)?;
        }
        account.check_path(data)
    }

    fn lock(root: &Path) -> Result<File, Error> {
        let path = root.join("quipu.lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .at("open", &path)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(Error::InUse { data: root.to_path_buf() }),
            Err(TryLockError::Error(source)) => Err(Error::Io { action: "lock", path, source }),
        }
    }

    /// The user of both servers.
    pub(super) fn account(&self) -> &Account {
        &self.account
    }

    /// The folder itself, without symbolic links.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The cluster.
    pub(super) fn postgres(&self) -> PathBuf {
        self.root.join("postgres")
    }

    /// The pooler's files.
    pub(super) fn pgbouncer(&self) -> PathBuf {
        self.root.join("pgbouncer")
    }

    /// The sockets.
    pub(super) fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// The logs.
    pub(super) fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Makes a folder (if it is not there) that only the servers' user can look into.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn make_private(&self, path: &Path) -> Result<(), Error> {
        fs::create_dir_all(path).at("make", path)?;
        fs::set_permissions(path, Permissions::from_mode(0o700)).at("set the mode of", path)?;
        self.account.own(path)
    }

    /// Writes a file of mode 0600 for the servers' user; whoever reads it sees the old text or the new one.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn write_for_servers(&self, path: &Path, text: &str) -> Result<(), Error> {
        write_whole(path, text, |draft| self.account.own(draft))
    }
}

/// Writes a file of mode 0600 through a synced draft beside it, which `prepare` may change before it appears.
///
/// # Errors
/// [`Error::Io`], and what `prepare` says.
pub fn write_whole(
    path: &Path,
    text: &str,
    prepare: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".draft");
    let draft = PathBuf::from(draft);
    // A draft left by a killed process may have another owner or mode, or be somebody's link.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).at("remove", &draft),
        _ => {}
    }
    let mut file =
        OpenOptions::new().create_new(true).write(true).mode(0o600).open(&draft).at("write", &draft)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).at("write", &draft)?;
    prepare(&draft)?;
    fs::rename(&draft, path).at("write", path)?;
    // The parent of a bare name is empty.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    sync_folder(folder.unwrap_or(Path::new(".")))
}

/// Makes a rename in `folder` outlive a power cut.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn sync_folder(folder: &Path) -> Result<(), Error> {
    File::open(folder).and_then(|folder| folder.sync_all()).at("sync", folder)
}
