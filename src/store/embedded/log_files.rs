//! Bounds the log files of the private PostgreSQL, whose logger begins a new file at a size and at midnight, but
//! never removes one.

use std::{fs, time::Duration};

use tracing::warn;

use super::directory::Directory;

/// Beginning of the names of these files.
pub(super) const PREFIX: &str = "postgresql-";

/// Size in MiB at which PostgreSQL begins a new file.
pub(super) const FILE_MIB_MAX: u32 = 32;

/// Number of files that are kept: 256 MiB.
const FILES_MAX: usize = 8;

/// Interval of [`remove_oldest`].
pub(super) const REMOVE_EVERY: Duration = Duration::from_mins(1);

/// Removes the oldest files beyond [`FILES_MAX`]. A file that cannot be removed is tried again the next time.
pub(super) fn remove_oldest(logs: &Directory) {
    let mut files: Vec<_> = fs::read_dir(logs.path())
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some((entry.metadata().ok()?.modified().ok()?, name)).filter(|(_, name)| name.starts_with(PREFIX))
        })
        .collect();
    files.sort();
    let surplus = files.len().saturating_sub(FILES_MAX);
    for (_, name) in files.into_iter().take(surplus) {
        if let Err(error) = logs.remove(&name) {
            warn!("cannot remove an old log file of PostgreSQL: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_eight_files_and_every_other_file_stay() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..12 {
            let file = fs::File::create(folder.path().join(format!("{PREFIX}{number}.log"))).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(number)).unwrap();
        }
        fs::write(folder.path().join("postgresql.log"), "").unwrap();
        let directory = Directory::open(folder.path()).unwrap().unwrap();
        remove_oldest(&directory);
        let mut left: Vec<String> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let mut expected: Vec<String> = (4..12).map(|number| format!("{PREFIX}{number}.log")).collect();
        expected.push("postgresql.log".to_owned());
        expected.sort();
        assert_eq!(left, expected);
    }
}
