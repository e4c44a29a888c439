//! Finds the installed programs of PostgreSQL and PgBouncer.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use super::error::Error;

/// The oldest major version of PostgreSQL that Quipu's schema works with.
const POSTGRES_MAJOR_MIN: u32 = 15;

/// Debian and Ubuntu keep each major version in its own folder, which is not on PATH.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The programs of one PostgreSQL version.
#[derive(Debug, Clone)]
pub(super) struct PostgresPrograms {
    pub(super) postgres: PathBuf,
    /// The program that creates a new cluster.
    pub(super) initdb: PathBuf,
    pub(super) major: u32,
}

/// Finds PostgreSQL. An existing cluster at `data` needs exactly the version `wanted`. Without one, the first
/// PostgreSQL 15 or newer on PATH is used, or else Debian's newest.
///
/// # Errors
/// [`Error::PostgresMissing`], [`Error::PostgresOtherVersion`].
pub(super) fn find_postgres(wanted: Option<u32>, data: &Path) -> Result<PostgresPrograms, Error> {
    let mut found = path_folders()
        .into_iter()
        .chain(debian_folders(Path::new(DEBIAN)))
        .filter_map(|folder| programs_in(&folder))
        .filter(|programs| programs.major >= POSTGRES_MAJOR_MIN);
    match wanted {
        None => found.next().ok_or(Error::PostgresMissing),
        Some(major) => found
            .find(|programs| programs.major == major)
            .ok_or_else(|| Error::PostgresOtherVersion { data: data.to_path_buf(), major }),
    }
}

/// Finds PgBouncer on PATH or in `/usr/sbin`, which is often missing from a user's PATH.
///
/// # Errors
/// [`Error::PgbouncerMissing`].
pub(super) fn find_pgbouncer() -> Result<PathBuf, Error> {
    path_folders()
        .into_iter()
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join("pgbouncer"))
        .find(|program| program.is_file())
        .ok_or(Error::PgbouncerMissing)
}

/// The folders of PATH. PATH is not a setting of Quipu, so it does not come through `config`.
fn path_folders() -> Vec<PathBuf> {
    env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default()
}

/// The `bin` folders below `root`, newest version first.
fn debian_folders(root: &Path) -> Vec<PathBuf> {
    let mut majors: Vec<u32> = root
        .read_dir()
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    majors.sort_unstable_by(|a, b| b.cmp(a));
    majors.into_iter().map(|major| root.join(major.to_string()).join("bin")).collect()
}

fn programs_in(folder: &Path) -> Option<PostgresPrograms> {
    let postgres = folder.join("postgres");
    let initdb = folder.join("initdb");
    if !postgres.is_file() || !initdb.is_file() {
        return None;
    }
    let output = Command::new(&postgres).arg("--version").output().ok()?;
    let major = major_version(&String::from_utf8_lossy(&output.stdout))?;
    Some(PostgresPrograms { postgres, initdb, major })
}

/// `postgres (PostgreSQL) 15.18 (Debian …)` is 15, `postgres (PostgreSQL) 18beta1` is 18.
fn major_version(version: &str) -> Option<u32> {
    let number = version.split_whitespace().nth(2)?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_parsed_from_the_output_of_postgres() {
        assert_eq!(major_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major_version("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(major_version("something else"), None);
    }

    #[test]
    fn debian_folders_are_sorted_by_number() {
        let root = tempfile::tempdir().unwrap();
        for name in ["9.6", "15", "100", "17", "common"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        let names: Vec<_> = debian_folders(root.path())
            .iter()
            .map(|bin| bin.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["100", "17", "15"]);
    }
}
