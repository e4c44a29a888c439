//! Hashes of files.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use indicatif::ProgressBar;
use sha2::{Digest as _, Sha256 as Hasher};

use crate::base::Sha256;

/// Bytes read at a time.
const READ: usize = 256 * 1024;

/// SHA-256 and size of a file. Moves the bar by what was read. Blocks its thread.
pub(super) fn digest(path: &Path, bar: &ProgressBar) -> io::Result<(Sha256, u64)> {
    let (mut file, mut hasher, mut size) = (File::open(path)?, Hasher::new(), 0);
    let mut buffer = vec![0; READ];
    loop {
        let bytes = file.read(&mut buffer)?;
        if bytes == 0 {
            return Ok((Sha256::from_bytes(hasher.finalize().into()), size));
        }
        hasher.update(&buffer[..bytes]);
        size += u64::try_from(bytes).unwrap_or(u64::MAX);
        bar.inc(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}
