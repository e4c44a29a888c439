//! Passwords of the private cluster, in a file in the data folder.

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{directory::Directory, error::Error, folder::Folder};
use crate::base::Secret;
use crate::store::setup::{Credentials, random_text};

/// The file in the data folder.
const FILE: &str = "credentials.json";

/// Length of the superuser's password in letters and digits: 190 bits.
const PASSWORD_CHARACTERS: usize = 32;

/// The contents of `DATA/credentials.json`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct StoredCredentials {
    /// Password of `postgres`, the cluster's superuser.
    #[serde(rename = "postgres")]
    pub(super) superuser: Secret,
    /// Random name of this folder; not a secret. Distinguishes its processes from those of other folders.
    folder: String,
    /// Passwords of Quipu's roles.
    #[serde(flatten)]
    pub(super) roles: Credentials,
}

impl StoredCredentials {
    /// Reads the folder's passwords. Creates them if there is no cluster yet.
    ///
    /// # Errors
    /// [`Error::Credentials`] when the passwords of an existing cluster are missing or unreadable;
    /// [`Error::Io`].
    pub(super) fn load_or_make(folder: &Folder) -> Result<Self, Error> {
        let path = folder.root().path().join(FILE);
        let unusable = |problem: String| Error::Credentials { path: path.clone(), problem };
        match folder.root().read(FILE) {
            // The parser's own message could contain a password, so only its position is reported.
            Ok(text) => {
                let kept: Self = serde_json::from_str(&text).map_err(|error| {
                    unusable(format!("is damaged (line {}, column {})", error.line(), error.column()))
                })?;
                // A file of an older Quipu lacks the passwords of newer roles. `serde` has just created them,
                // so they are saved.
                kept.save(folder.root())?;
                Ok(kept)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && folder.cluster()?.is_none() => {
                let kept = Self {
                    superuser: Secret::new(random_text(PASSWORD_CHARACTERS)),
                    folder: random_text(12),
                    roles: Credentials::random(),
                };
                kept.save(folder.root())?;
                Ok(kept)
            }
            Err(error) => Err(unusable(format!("cannot be read ({error})"))),
        }
    }

    fn save(&self, root: &Directory) -> Result<(), Error> {
        let mut text = serde_json::Map::new();
        text.insert("folder".into(), self.folder.clone().into());
        text.insert("postgres".into(), self.superuser.expose().into());
        for (role, password) in self.roles.roles() {
            text.insert(role.into(), password.expose().into());
        }
        root.write(FILE, &format!("{:#}\n", serde_json::Value::Object(text)), None)
    }

    /// The `cluster_name`, which PostgreSQL shows in the title of each of its processes. It identifies
    /// orphans of this folder. It depends on the path, so a copied folder has another name.
    pub(super) fn cluster_name(&self, folder: &Folder) -> String {
        let digest = Sha256::new()
            .chain_update(self.folder.as_bytes())
            .chain_update(folder.root().path().as_os_str().as_encoded_bytes())
            .finalize();
        format!("quipu-{}", hex::encode(&digest[..6]))
    }
}
