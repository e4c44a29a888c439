//! The operating system's user that runs the private servers, and whether that user can reach the data
//! folder.
//!
//! Root may not run PostgreSQL or PgBouncer, so a Quipu that runs as root starts both as one other user. Any
//! other user starts them under its own account.

use std::{
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::unistd::{AccessFlags, User, access, geteuid};

use super::error::{At, Error};

/// Maximum length of the path of a unix socket: `sockaddr_un` has 108 bytes, one of them for the final NUL.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The user that runs both servers.
#[derive(Debug, Clone)]
pub(super) struct Account {
    /// The user's name, for messages.
    pub(super) name: String,
    uid: u32,
    gid: u32,
    /// True when Quipu runs as root and has to switch to this user.
    switch: bool,
}

impl Account {
    /// Chooses the user for a cluster at `cluster`, which user id `owner` owns if it exists. The owner of an
    /// existing cluster stays its user. Otherwise it is the current user, or, when that is root, `postgres`
    /// or else `nobody`.
    ///
    /// # Errors
    /// [`Error::OtherOwner`], [`Error::NoAccount`].
    pub(super) fn for_cluster(owner: Option<u32>, cluster: &Path) -> Result<Self, Error> {
        let current = geteuid();
        let lookup = |uid| User::from_uid(uid).ok().flatten();
        if !current.is_root() {
            let name = lookup(current).map_or_else(|| current.to_string(), |user| user.name);
            return match owner {
                Some(owner) if owner != current.as_raw() => {
                    Err(Error::OtherOwner { path: cluster.to_path_buf(), owner, user: name })
                }
                _ => {
                    let gid = nix::unistd::getegid().as_raw();
                    Ok(Self { name, uid: current.as_raw(), gid, switch: false })
                }
            };
        }
        let named = |name| User::from_name(name).ok().flatten();
        owner
            .filter(|uid| *uid != 0)
            .and_then(|uid| lookup(uid.into()))
            .or_else(|| named("postgres"))
            .or_else(|| named("nobody"))
            .map(|user| Self {
                name: user.name,
                uid: user.uid.as_raw(),
                gid: user.gid.as_raw(),
                switch: true,
            })
            .ok_or(Error::NoAccount)
    }

    /// Makes `command` run as this user. The standard library drops the supplementary groups.
    pub(super) fn apply(&self, command: &mut Command) {
        if self.switch {
            command.uid(self.uid).gid(self.gid);
        }
    }

    pub(super) fn uid(&self) -> u32 {
        self.uid
    }

    /// Gives an open file or folder, without its contents, to this user. `path` is for the error.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn own(&self, file: &File, path: &Path) -> Result<(), Error> {
        if !self.switch {
            return Ok(());
        }
        std::os::unix::fs::fchown(file, Some(self.uid), Some(self.gid)).at("change the owner of", path)
    }

    /// Checks that this user can enter `data` and every existing folder above it.
    ///
    /// # Errors
    /// [`Error::CannotEnter`] with the outermost folder that cannot be entered.
    pub(super) fn check_path(&self, data: &Path) -> Result<(), Error> {
        let existing: Vec<&Path> = data.ancestors().filter(|folder| folder.is_dir()).collect();
        if existing.first().is_none_or(|deepest| self.can_enter(deepest)) {
            return Ok(());
        }
        let refusing = existing.iter().rev().find(|folder| !self.can_enter(folder)).unwrap_or(&data);
        Err(Error::CannotEnter {
            user: self.name.clone(),
            component: refusing.to_path_buf(),
            data: data.to_path_buf(),
        })
    }

    /// Whether the user can enter a folder. Asks the kernel instead of reading the mode bits, because access
    /// lists and mount options count too.
    fn can_enter(&self, folder: &Path) -> bool {
        if !self.switch {
            return access(folder, AccessFlags::X_OK).is_ok();
        }
        let mut probe = Command::new("/bin/sh");
        probe.args(["-c", "test -x \"$1\"", "sh"]).arg(folder).current_dir("/");
        probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.apply(&mut probe);
        probe.status().is_ok_and(|status| status.success())
    }
}

/// Checks that the path of PostgreSQL's socket for `port` in `folder` is short enough for the operating
/// system.
///
/// # Errors
/// [`Error::SocketPathTooLong`].
pub(super) fn check_socket_path(folder: &Path, port: u16) -> Result<(), Error> {
    let path: PathBuf = folder.join(format!(".s.PGSQL.{port}"));
    let bytes = path.as_os_str().len();
    if bytes > SOCKET_PATH_BYTES_MAX {
        return Err(Error::SocketPathTooLong { path, bytes, limit: SOCKET_PATH_BYTES_MAX });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_path_may_have_107_bytes_and_no_more() {
        let folder = |bytes: usize| PathBuf::from("/".repeat(bytes - "/.s.PGSQL.5432".len()));
        assert!(check_socket_path(&PathBuf::from("/run/quipu"), 5432).is_ok());
        let long = folder(108).to_string_lossy().replace('/', "a");
        let error = check_socket_path(Path::new(&format!("/{}", &long[1..])), 5432).unwrap_err();
        assert!(matches!(error, Error::SocketPathTooLong { bytes: 108, limit: 107, .. }), "{error}");
        let fits = folder(107).to_string_lossy().replace('/', "a");
        assert!(check_socket_path(Path::new(&format!("/{}", &fits[1..])), 5432).is_ok());
    }
}
