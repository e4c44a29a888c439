//! The last lines of a server's log, for error messages.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::Path,
};

/// Lines in a message.
const LINES_MAX: usize = 12;

/// Bytes read from the end of the log.
const BYTES_MAX: u64 = 8 * 1024;

/// The last lines of the log in `folder` that was written last, of those whose name begins with `prefix`.
pub(super) fn log_tail(folder: &Path, prefix: &str) -> String {
    let newest = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .max();
    let Some((_, path)) = newest else {
        return format!("(no log in {})", folder.display());
    };
    let text = end_of(&path).unwrap_or_else(|error| format!("(unreadable: {error})"));
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(LINES_MAX)..].join("\n");
    format!("{tail}\n({})", path.display())
}

fn end_of(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(BYTES_MAX)))?;
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
