//! Secrets in files: `NAME_FILE` is the path of a file that holds the value of the variable `NAME`.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::environment::{Environment, secret_variables};
use super::layer::{ENVIRONMENT, Problem};
use crate::base::Secret;

/// Longest file, in bytes: a database URL with parameters is shorter.
const BYTES_MAX: usize = 8_192;

/// Why a file with a secret cannot be used. Never contains the secret.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct SecretFileError {
    path: PathBuf,
    problem: String,
}

/// Reads a secret of one line. The line's end does not belong to it; an empty file is an empty secret.
///
/// # Errors
/// [`SecretFileError`]: the file cannot be read, is no regular file or no text, has a second line, a control
/// character, a byte order mark or more than 8 KiB.
pub fn read_secret_file(path: &Path) -> Result<Secret, SecretFileError> {
    let failed =
        |problem: &dyn ToString| SecretFileError { path: path.to_path_buf(), problem: problem.to_string() };
    let mut text = String::new();
    read(path, &mut text).map_err(|error| failed(&error))?;
    if text.len() > BYTES_MAX {
        return Err(failed(&format_args!("longer than {BYTES_MAX} bytes")));
    }
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.contains(['\n', '\r']) {
        return Err(failed(&"more than one line"));
    }
    // Programs between here and PostgreSQL (a shell, PgBouncer's file) drop or change these.
    if line.chars().any(|c| c.is_control() || c == '\u{feff}') {
        return Err(failed(&"has a control character or a byte order mark"));
    }
    Ok(Secret::new(line))
}

/// Reads one byte more than the limit at most. Opening a FIFO waits for a writer, so the file is opened
/// without waiting, and anything but a regular file is refused.
fn read(path: &Path, text: &mut String) -> io::Result<()> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let limit = u64::try_from(BYTES_MAX + 1).expect("the limit fits");
    file.take(limit).read_to_string(text).map(|_| ())
}

/// Sets each variable that holds a secret and is named by its `…_FILE` variable. An empty file leaves it
/// unset.
pub(super) fn read_secret_files(environment: &mut Environment) -> Vec<Problem> {
    let mut problems = Vec::new();
    for name in secret_variables() {
        let variable = format!("{name}_FILE");
        let Some(path) = environment.get(&variable) else { continue };
        let reason = if environment.get(&name).is_some() {
            format!("{name} is set, too; set one of them")
        } else {
            match read_secret_file(Path::new(path)) {
                Ok(secret) => {
                    environment.set(name, secret.expose());
                    continue;
                }
                Err(error) => error.to_string(),
            }
        };
        problems.push(Problem { source: ENVIRONMENT.into(), key: variable, reason });
    }
    problems
}
