//! Directories that are held open. Every operation is relative to the open descriptor and follows no symbolic
//! link.
//!
//! Root works in folders that the servers' user can write. Between two calls that user can replace a path
//! there with a link to any file of the machine, so nothing in these folders is opened, given away or changed
//! by its path.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat, renameat};
use nix::sys::stat::{Mode, SFlag, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use super::account::Account;
use super::error::{At, Error};

/// Maximum number of symbolic links in one path.
const LINKS_MAX: u8 = 40;

/// Maximum size of a file that [`Directory::read`] reads, in bytes.
const READ_BYTES_MAX: u64 = 1024 * 1024;

/// How a directory is opened on the way to another directory: it need not be readable.
#[cfg(target_os = "linux")]
const PASS: OFlag = OFlag::O_PATH;
#[cfg(not(target_os = "linux"))]
const PASS: OFlag = OFlag::O_RDONLY;

#[derive(Debug)]
pub(super) struct Directory {
    handle: File,
    path: PathBuf,
}

impl Directory {
    /// Opens the directory at the absolute `path`; `None` when it does not exist. A symbolic link in the path
    /// is followed only when no other user can have made it.
    ///
    /// # Errors
    /// [`Error::Planted`], [`Error::Io`].
    pub(super) fn open(path: &Path) -> Result<Option<Self>, Error> {
        let mut links = LINKS_MAX;
        match Self::walk(path, &mut links)? {
            Some(found) => found.reopened().map(Some),
            None => Ok(None),
        }
    }

    /// Creates the directory at the absolute `path` with mode 0755, and its missing parents.
    ///
    /// # Errors
    /// [`Error::Planted`], [`Error::Io`].
    pub(super) fn make(path: &Path) -> Result<Self, Error> {
        let mut missing = Vec::new();
        let mut here = path;
        let mut directory = loop {
            if let Some(found) = Self::open(here)? {
                break found;
            }
            missing.push(here.file_name().unwrap_or_default());
            here = here.parent().unwrap_or(Path::new("/"));
        };
        for name in missing.iter().rev() {
            directory = directory.child_or_made(name, 0o777)?;
        }
        if !missing.is_empty() {
            directory.set_mode(0o755)?;
        }
        Ok(directory)
    }

    /// The path it was opened by, with symbolic links resolved.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// User id of the owner.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn owner(&self) -> Result<u32, Error> {
        Ok(self.handle.metadata().at("look at", &self.path)?.uid())
    }

    /// Opens a directory inside this one; `None` when it does not exist.
    ///
    /// # Errors
    /// [`Error::Planted`], [`Error::Io`].
    pub(super) fn child(&self, name: impl AsRef<OsStr>) -> Result<Option<Self>, Error> {
        let mut links = LINKS_MAX;
        match self.enter(name.as_ref(), &mut links)? {
            Some(found) => found.reopened().map(Some),
            None => Ok(None),
        }
    }

    /// Opens a directory inside this one, creates it when it is missing, and sets owner and mode so that only
    /// `account` can read it.
    ///
    /// # Errors
    /// [`Error::Planted`], [`Error::Io`].
    pub(super) fn private(&self, name: &str, account: &Account) -> Result<Self, Error> {
        let child = self.child_or_made(OsStr::new(name), 0o700)?;
        child.set_mode(0o700)?;
        account.own(&child.handle, &child.path)?;
        Ok(child)
    }

    fn child_or_made(&self, name: &OsStr, mode: u32) -> Result<Self, Error> {
        let path = self.path.join(name);
        match mkdirat(&self.handle, name, Mode::from_bits_truncate(mode)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno).io().at("make", &path),
        }
        self.child(name)?.ok_or(Errno::ENOENT).io().at("open", &path)
    }

    fn set_mode(&self, mode: u32) -> Result<(), Error> {
        self.handle.set_permissions(Permissions::from_mode(mode)).at("set the mode of", &self.path)
    }

    /// Opens a regular file that `account` or the current user owns.
    ///
    /// # Errors
    /// [`Error::Planted`] for any other file type or owner, [`Error::Io`].
    pub(super) fn open_file(&self, name: &str, flags: OFlag, account: &Account) -> Result<File, Error> {
        let path = self.path.join(name);
        let file = self.opened(name, flags).map_err(|source| planted_or(&path, "open", source))?;
        let found = file.metadata().at("look at", &path)?;
        if !found.is_file() {
            return Err(Error::Planted { path, problem: "is not a regular file".to_owned() });
        }
        if ![account.uid(), geteuid().as_raw()].contains(&found.uid()) {
            let problem = format!("belongs to user id {}", found.uid());
            return Err(Error::Planted { path, problem });
        }
        Ok(file)
    }

    /// Opens a file owned by `account` for appending, and creates it when it is missing.
    ///
    /// # Errors
    /// As [`Directory::open_file`].
    pub(super) fn open_to_append(&self, name: &str, account: &Account) -> Result<File, Error> {
        let open = || self.open_file(name, OFlag::O_WRONLY | OFlag::O_APPEND, account);
        let file = match open() {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                self.write(name, "", Some(account))?;
                open()
            }
            opened => opened,
        }?;
        // A file of root in a folder of the servers' user is not given away: that user may have moved the
        // file here.
        if file.metadata().at("look at", &self.path.join(name))?.uid() != account.uid() {
            let problem = "does not belong to the user of the servers".to_owned();
            return Err(Error::Planted { path: self.path.join(name), problem });
        }
        Ok(file)
    }

    /// The text of a regular file.
    ///
    /// # Errors
    /// As the operating system answers. Symbolic links, anything but a regular file, and files of more than
    /// 1 MiB are refused.
    pub(super) fn read(&self, name: &str) -> std::io::Result<String> {
        let mut bytes = Vec::new();
        self.open_to_read(name)?.take(READ_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > READ_BYTES_MAX {
            let problem = format!("it has more than {READ_BYTES_MAX} bytes");
            return Err(std::io::Error::new(ErrorKind::FileTooLarge, problem));
        }
        String::from_utf8(bytes).map_err(|error| std::io::Error::new(ErrorKind::InvalidData, error))
    }

    /// Opens a regular file for reading; its owner is not checked.
    ///
    /// # Errors
    /// As [`Directory::read`].
    pub(super) fn open_to_read(&self, name: &str) -> std::io::Result<File> {
        let file = self.opened(name, OFlag::O_RDONLY)?;
        if !file.metadata()?.is_file() {
            return Err(std::io::Error::other("it is not a regular file"));
        }
        Ok(file)
    }

    /// Opens without blocking, so that a pipe in the place of a file cannot hang the process.
    fn opened(&self, name: &str, flags: OFlag) -> std::io::Result<File> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        Ok(openat(&self.handle, name, flags, Mode::from_bits_truncate(0o600)).map(File::from)?)
    }

    /// Writes a file of mode 0600 through a synced temporary file: a reader sees the old text or the new
    /// text.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn write(&self, name: &str, text: &str, owner: Option<&Account>) -> Result<(), Error> {
        let draft = format!("{name}.draft");
        let path = self.path.join(&draft);
        // A temporary file that a killed process left may have another owner or mode.
        self.remove(&draft)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let mut file = self.opened(&draft, flags).at("write", &path)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).at("write", &path)?;
        if let Some(owner) = owner {
            owner.own(&file, &path)?;
        }
        self.rename(&draft, name)
    }

    /// Renames an entry of this directory, and syncs so that a power cut does not undo it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let path = self.path.join(to);
        renameat(&self.handle, from, &self.handle, to).io().at("write", &path)?;
        self.handle.sync_all().at("sync", &self.path)
    }

    /// Removes a file or a link; a missing one is no error.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn remove(&self, name: &str) -> Result<(), Error> {
        match unlinkat(&self.handle, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno).io().at("remove", &self.path.join(name)),
        }
    }

    /// Opens each component of `path` in turn, starting at the root directory.
    fn walk(path: &Path, links: &mut u8) -> Result<Option<Self>, Error> {
        let mut here = Self { handle: File::open("/").at("open", Path::new("/"))?, path: PathBuf::from("/") };
        for component in path.components() {
            let name = match component {
                Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
                Component::ParentDir => OsStr::new(".."),
                Component::Normal(name) => name,
            };
            match here.enter(name, links)? {
                Some(next) => here = next,
                None => return Ok(None),
            }
        }
        Ok(Some(here))
    }

    fn enter(&self, name: &OsStr, links: &mut u8) -> Result<Option<Self>, Error> {
        let mut path = self.path.clone();
        if name == ".." {
            path.pop();
        } else {
            path.push(name);
        }
        let flags = PASS | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(&self.handle, name, flags, Mode::empty()) {
            Ok(handle) => Ok(Some(Self { handle: File::from(handle), path })),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno @ (Errno::ENOTDIR | Errno::ELOOP)) => {
                let found =
                    fstatat(&self.handle, name, AtFlags::AT_SYMLINK_NOFOLLOW).io().at("look at", &path)?;
                if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT != SFlag::S_IFLNK || *links == 0 {
                    return Err(errno).io().at("open", &path);
                }
                self.check_link(&path, found.st_uid)?;
                *links -= 1;
                let target = readlinkat(&self.handle, name).io().at("read", &path)?;
                Self::walk(&self.path.join(target), links)
            }
            Err(errno) => Err(errno).io().at("open", &path),
        }
    }

    /// Whether a symbolic link may be followed: root or the current user must have made it. For root, its
    /// folder counts too, because a user who can write there may have moved the link there.
    fn check_link(&self, path: &Path, owner: u32) -> Result<(), Error> {
        let current = geteuid();
        let is_trusted = |uid: u32| uid == 0 || uid == current.as_raw();
        let folder = self.handle.metadata().at("look at", &self.path)?;
        let is_sticky = folder.mode() & 0o1000 != 0;
        let is_closed = is_trusted(folder.uid()) && (folder.mode() & 0o022 == 0 || is_sticky);
        if is_trusted(owner) && (is_closed || !current.is_root()) {
            return Ok(());
        }
        let problem = format!("is a symbolic link that user id {owner} made, or could have moved there");
        Err(Error::Planted { path: path.to_path_buf(), problem })
    }

    /// The same directory, opened for reading: a directory opened with [`PASS`] can be neither changed nor
    /// synced.
    fn reopened(self) -> Result<Self, Error> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let handle = openat(&self.handle, ".", flags, Mode::empty()).io().at("open", &self.path)?;
        Ok(Self { handle: File::from(handle), path: self.path })
    }
}

/// The error for a file that was refused because it is a symbolic link or a pipe.
fn planted_or(path: &Path, action: &'static str, source: std::io::Error) -> Error {
    let path = path.to_path_buf();
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ELOOP) => Error::Planted { path, problem: "is a symbolic link".to_owned() },
        Some(Errno::ENXIO) => Error::Planted { path, problem: "is not a regular file".to_owned() },
        _ => Error::Io { action, path, source },
    }
}

/// Converts the operating system's error number into an [`std::io::Error`].
trait Io<T> {
    fn io(self) -> std::io::Result<T>;
}

impl<T> Io<T> for nix::Result<T> {
    fn io(self) -> std::io::Result<T> {
        self.map_err(std::io::Error::from)
    }
}

/// Writes a file of mode 0600 atomically.
///
/// # Errors
/// [`Error::Planted`], [`Error::Io`].
pub fn write_whole(path: &Path, text: &str) -> Result<(), Error> {
    let path = std::path::absolute(path).at("find", path)?;
    let missing = || Error::Io { action: "write", path: path.clone(), source: Errno::ENOENT.into() };
    let folder = path.parent().ok_or_else(missing)?;
    let name = path.file_name().and_then(OsStr::to_str).ok_or_else(missing)?;
    Directory::open(folder)?.ok_or_else(missing)?.write(name, text, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_over_the_limit_is_refused_and_not_cut() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open(folder.path()).unwrap().expect("it exists");
        let limit = usize::try_from(READ_BYTES_MAX).unwrap();
        let fits = "x".repeat(limit);
        std::fs::write(folder.path().join("fits"), &fits).unwrap();
        std::fs::write(folder.path().join("large"), fits.clone() + "x").unwrap();
        assert!(directory.read("fits").unwrap() == fits);
        assert_eq!(directory.read("large").unwrap_err().kind(), ErrorKind::FileTooLarge);
    }
}
