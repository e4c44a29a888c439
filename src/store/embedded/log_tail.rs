//! The last lines of a server's log, for error messages.

use std::{
    fs,
    io::{Read, Seek, SeekFrom},
};

use super::directory::Directory;

/// Maximum number of lines in a message.
const LINES_MAX: usize = 12;

/// Number of bytes read from the end of the log.
const BYTES_MAX: u64 = 8 * 1024;

/// The last lines of the most recently written log in `folder` whose name begins with `prefix`.
pub(super) fn log_tail(folder: &Directory, prefix: &str) -> String {
    let newest = fs::read_dir(folder.path())
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter_map(|entry| {
            Some((entry.metadata().ok()?.modified().ok()?, entry.file_name().into_string().ok()?))
        })
        .filter(|(_, name)| name.starts_with(prefix))
        .max();
    let Some((_, name)) = newest else {
        return format!("(no log in {})", folder.path().display());
    };
    let text = end_of(folder, &name).unwrap_or_else(|error| format!("(unreadable: {error})"));
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(LINES_MAX)..].join("\n");
    format!("{tail}\n({})", folder.path().join(name).display())
}

fn end_of(folder: &Directory, name: &str) -> std::io::Result<String> {
    let mut file = folder.open_to_read(name)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(BYTES_MAX)))?;
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
