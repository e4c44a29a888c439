//! `quipu messages key`: ed25519 keys in files.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use ed25519_dalek::SigningKey;
use rand::Rng as _;

use crate::cli::output;
use crate::services::messages::decide::wayfarer_id_of;

/// Longest key file that is read, in bytes: the hex digits of a seed, and some white space.
const FILE_BYTES_MAX: u64 = 256;

/// ed25519 keys in files.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Key {
    /// Create a key file that only you can read, and print the `wayfarer_id` that the key proves.
    Create {
        /// The file to create. It must not exist yet.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

impl Key {
    pub(super) fn run(self) -> Result<ExitCode> {
        let Self::Create { file } = self;
        output::say(create(&file)?);
        Ok(ExitCode::SUCCESS)
    }
}

/// Creates a key file. Returns the key's `wayfarer_id`.
fn create(path: &Path) -> Result<String> {
    let key = SigningKey::from_bytes(&rand::rng().random());
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            bail!("{} exists, and a key is never overwritten: name another file", path.display())
        }
        other => other.with_context(|| format!("cannot write {}", path.display()))?,
    };
    writeln!(file, "{}", hex::encode(key.to_bytes()))
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(wayfarer_id_of(&key.verifying_key().to_bytes()))
}

/// Reads a key file.
pub(super) fn read(path: &Path) -> Result<SigningKey> {
    let shown = path.display();
    let file = File::open(path).with_context(|| {
        format!("cannot read the key {shown}; `quipu messages key create {shown}` creates one")
    })?;
    if file.metadata()?.mode() & 0o077 != 0 {
        bail!(
            "other users can read the key {shown}: run `chmod 600 {shown}`, or create another key if they may have read it"
        );
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).with_context(|| format!("cannot read {shown}"))?;
    let mut seed = [0; 32];
    hex::decode_to_slice(text.trim(), &mut seed)
        .map_err(|_| anyhow::anyhow!("{shown} holds no key: 64 hex digits, the seed of an ed25519 key"))?;
    Ok(SigningKey::from_bytes(&seed))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_owner_alone_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let id = create(&path).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(wayfarer_id_of(&read(&path).unwrap().verifying_key().to_bytes()), id);
        assert!(create(&path).unwrap_err().to_string().contains("never overwritten"));

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("chmod 600"));
    }

    #[test]
    fn what_is_no_key_is_said_to_be_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert!(read(&path).unwrap_err().to_string().contains("key create"));
        for text in ["", "zz", &"0".repeat(63), &"0".repeat(66), &"0".repeat(1_000)] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert!(read(&path).unwrap_err().to_string().contains("holds no key"), "{text:?}");
        }
    }
}
