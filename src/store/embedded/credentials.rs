//! The passwords of the roles, and the file that keeps them beside the data.

use std::{fs, path::Path};

use rand::{Rng, distr::Alphanumeric};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{
    error::Error,
    folder::{Folder, write_whole},
};
use crate::base::Secret;

/// Letters and digits in a made password: 190 bits.
const PASSWORD_CHARACTERS: usize = 32;

/// A role for people and their programs, not for Quipu's services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Person {
    /// `quipu_reader`: reads everything but messages, a minute for each statement.
    Reader,
    /// `quipu_messages_reader`: reads messages as well.
    MessagesReader,
    /// `quipu_writer`: may call `insert_event`, `insert_relay` and `insert_relay_metadata`.
    Writer,
}

impl Person {
    /// The role's name.
    #[must_use]
    pub fn role(self) -> &'static str {
        match self {
            Self::Reader => "quipu_reader",
            Self::MessagesReader => "quipu_messages_reader",
            Self::Writer => "quipu_writer",
        }
    }
}

/// The passwords of Quipu's roles.
#[derive(Debug, Clone, Deserialize)]
pub struct Credentials {
    /// Of `quipu_owner`, who owns the database: migrations, retention, erasure.
    #[serde(rename = "quipu_owner")]
    pub owner: Secret,
    /// Of `quipu`, who appends and reads.
    #[serde(rename = "quipu")]
    pub service: Secret,
    /// Of `quipu_session`, who is `quipu` on a session of its own.
    #[serde(rename = "quipu_session")]
    pub session: Secret,
    /// Of `quipu_reader`, the role for people: read-only, a minute for each statement.
    #[serde(rename = "quipu_reader")]
    pub reader: Secret,
    /// Of `quipu_messages_reader`, which may read messages, too.
    #[serde(rename = "quipu_messages_reader", default = "password")]
    pub messages_reader: Secret,
    /// Of `quipu_writer`, the role for programs that hand over events and relays by SQL.
    #[serde(rename = "quipu_writer", default = "password")]
    pub writer: Secret,
}

impl Credentials {
    /// New random passwords of 32 letters and digits.
    #[must_use]
    pub fn random() -> Self {
        Self {
            owner: password(),
            service: password(),
            session: password(),
            reader: password(),
            messages_reader: password(),
            writer: password(),
        }
    }

    /// Passwords that everybody who knows `secret` arrives at: SHA-256 over it and the role's name.
    #[must_use]
    pub fn derived(secret: &str) -> Self {
        let of = |role: &str| {
            let mut hash = Sha256::new();
            hash.update(format!("quipu/{}/{role}/{secret}", role.len()));
            Secret::new(hex::encode(hash.finalize()))
        };
        Self {
            owner: of("quipu_owner"),
            service: of("quipu"),
            session: of("quipu_session"),
            reader: of("quipu_reader"),
            messages_reader: of("quipu_messages_reader"),
            writer: of("quipu_writer"),
        }
    }

    /// Every role with its password.
    pub(super) fn roles(&self) -> [(&'static str, &Secret); 6] {
        [
            ("quipu_owner", &self.owner),
            ("quipu", &self.service),
            ("quipu_session", &self.session),
            (Person::Reader.role(), &self.reader),
            (Person::MessagesReader.role(), &self.messages_reader),
            (Person::Writer.role(), &self.writer),
        ]
    }

    /// The password of a role for people.
    pub(super) fn of_person(&self, person: Person) -> &Secret {
        match person {
            Person::Reader => &self.reader,
            Person::MessagesReader => &self.messages_reader,
            Person::Writer => &self.writer,
        }
    }
}

/// What `DATA/credentials.json` holds.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Kept {
    /// The password of `postgres`, the cluster's superuser.
    #[serde(rename = "postgres")]
    pub(super) superuser: Secret,
    /// Tells this folder from others; no secret.
    folder: String,
    /// The roles' passwords.
    #[serde(flatten)]
    pub(super) roles: Credentials,
}

impl Kept {
    /// Reads the folder's passwords; makes them if there is no cluster yet that could have others.
    ///
    /// # Errors
    /// [`Error::Credentials`] when an existing cluster's passwords are missing or unreadable; [`Error::Io`].
    pub(super) fn load_or_make(folder: &Folder) -> Result<Self, Error> {
        let path = folder.root().join("credentials.json");
        let unusable = |problem: String| Error::Credentials { path: path.clone(), problem };
        match fs::read(&path) {
            // The parser's own message could quote a password.
            Ok(text) => {
                let kept: Self = serde_json::from_slice(&text).map_err(|error| {
                    unusable(format!(
                        "is not as Quipu wrote it (line {}, column {})",
                        error.line(),
                        error.column()
                    ))
                })?;
                // A file of an older Quipu lacks the passwords of newer roles: they were made just now.
                kept.save(&path)?;
                Ok(kept)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !folder.postgres().exists() => {
                let kept =
                    Self { superuser: password(), folder: random_text(12), roles: Credentials::random() };
                kept.save(&path)?;
                Ok(kept)
            }
            Err(error) => Err(unusable(format!("cannot be read ({error})"))),
        }
    }

    fn save(&self, path: &Path) -> Result<(), Error> {
        let mut text = serde_json::Map::new();
        text.insert("folder".into(), self.folder.clone().into());
        text.insert("postgres".into(), self.superuser.expose().into());
        for (role, password) in self.roles.roles() {
            text.insert(role.into(), password.expose().into());
        }
        write_whole(path, &format!("{:#}\n", serde_json::Value::Object(text)), |_| Ok(()))
    }

    /// The `cluster_name`, which PostgreSQL shows in the title of each of its processes: how orphans of this
    /// folder are told from other people's. A copied folder gets another one.
    pub(super) fn cluster_name(&self, folder: &Folder) -> String {
        let digest = Sha256::new()
            .chain_update(self.folder.as_bytes())
            .chain_update(folder.root().as_os_str().as_encoded_bytes())
            .finalize();
        format!("quipu-{}", hex::encode(&digest[..6]))
    }
}

fn password() -> Secret {
    Secret::new(random_text(PASSWORD_CHARACTERS))
}

fn random_text(characters: usize) -> String {
    rand::rng().sample_iter(Alphanumeric).take(characters).map(char::from).collect()
}
