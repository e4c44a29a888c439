//! Passwords of Quipu's roles, and the file that stores them.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use rand::{Rng, distr::Alphanumeric};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::Error;
use crate::base::Secret;

/// Length of a generated password in letters and digits: 190 bits.
const PASSWORD_CHARACTERS: usize = 32;

/// A role for people and their programs. Quipu's services do not use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedRole {
    /// `quipu_reader`: reads everything but messages; each statement may take a minute.
    Reader,
    /// `quipu_messages_reader`: reads messages too.
    MessagesReader,
    /// `quipu_writer`: may call `insert_event`, `insert_relay`, `insert_relay_metadata`, `quipu_submit_job`
    /// and `delete_orphan_events`.
    Writer,
}

impl SharedRole {
    /// Name of the role.
    #[must_use]
    pub fn role(self) -> &'static str {
        match self {
            Self::Reader => "quipu_reader",
            Self::MessagesReader => "quipu_messages_reader",
            Self::Writer => "quipu_writer",
        }
    }
}

/// Passwords of Quipu's roles.
#[derive(Debug, Clone, Deserialize)]
pub struct Credentials {
    /// Password of `quipu_owner`, which owns the database: migrations, retention, erasure.
    #[serde(rename = "quipu_owner")]
    pub owner: Secret,
    /// Password of `quipu`, the role of the services: appends and reads.
    #[serde(rename = "quipu")]
    pub service: Secret,
    /// Password of `quipu_session`, a member of `quipu` for connections with session pooling.
    #[serde(rename = "quipu_session")]
    pub session: Secret,
    /// Password of `quipu_reader`, for people: read-only, a minute per statement.
    #[serde(rename = "quipu_reader")]
    pub reader: Secret,
    /// Password of `quipu_messages_reader`, which may read messages too.
    #[serde(rename = "quipu_messages_reader", default = "password")]
    pub messages_reader: Secret,
    /// Password of `quipu_writer`, for programs that store events and relays by SQL.
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

    /// Passwords that are kept elsewhere: `password` returns that of the role it is given.
    ///
    /// # Errors
    /// The first error of `password`.
    pub fn by_role<E>(mut password: impl FnMut(&str) -> Result<Secret, E>) -> Result<Self, E> {
        Ok(Self {
            owner: password("quipu_owner")?,
            service: password("quipu")?,
            session: password("quipu_session")?,
            reader: password(SharedRole::Reader.role())?,
            messages_reader: password(SharedRole::MessagesReader.role())?,
            writer: password(SharedRole::Writer.role())?,
        })
    }

    /// Each role with its password.
    pub(in crate::store) fn roles(&self) -> impl Iterator<Item = (&'static str, &Secret)> {
        self.roles_of_services().into_iter().chain(self.roles_of_people())
    }

    /// Each role of Quipu itself with its password.
    pub(in crate::store) fn roles_of_services(&self) -> [(&'static str, &Secret); 3] {
        [("quipu_owner", &self.owner), ("quipu", &self.service), ("quipu_session", &self.session)]
    }

    /// Each role for people with its password.
    pub(super) fn roles_of_people(&self) -> [(&'static str, &Secret); 3] {
        [SharedRole::Reader, SharedRole::MessagesReader, SharedRole::Writer]
            .map(|person| (person.role(), self.of_shared_role(person)))
    }

    /// The password of a role for people.
    #[must_use]
    pub fn of_shared_role(&self, person: SharedRole) -> &Secret {
        match person {
            SharedRole::Reader => &self.reader,
            SharedRole::MessagesReader => &self.messages_reader,
            SharedRole::Writer => &self.writer,
        }
    }
}

/// The file that stores the passwords of an operator's server. The caller writes it: it owns the folder, and
/// knows how to replace a file there safely.
pub(in crate::store) struct PasswordFile<'a> {
    pub(in crate::store) path: PathBuf,
    /// Replaces the file by one of mode 0600 with this text, or returns the problem.
    pub(in crate::store) write: &'a (dyn Fn(&str) -> Result<(), String> + Sync),
}

impl PasswordFile<'_> {
    /// Reads the passwords; `None` when the file does not exist.
    pub(super) fn load(&self) -> Result<Option<Credentials>, Error> {
        match fs::read(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("read", error.to_string())),
            // The parser's own message could contain a password, so only its position is reported.
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| {
                let problem = format!("it is damaged (line {}, column {})", error.line(), error.column());
                self.failed("read", problem)
            }),
        }
    }

    /// Stores the passwords.
    pub(super) fn save(&self, credentials: &Credentials) -> Result<(), Error> {
        let roles = credentials.roles().map(|(role, password)| (role.to_owned(), password.expose().into()));
        let text = format!("{:#}\n", serde_json::Value::Object(roles.collect()));
        (self.write)(&text).map_err(|problem| self.failed("write", problem))
    }

    fn failed(&self, action: &'static str, problem: String) -> Error {
        Error::Passwords { action, path: self.path.clone(), problem }
    }
}

fn password() -> Secret {
    Secret::new(random_text(PASSWORD_CHARACTERS))
}

/// The password of `quipu_owner` that earlier versions derived from the administrator's password, by SHA-256
/// of both. Used only to recognise and replace it.
pub(super) fn derived_owner(secret: &str) -> Secret {
    Secret::new(hex::encode(Sha256::digest(format!("quipu/11/quipu_owner/{secret}"))))
}

/// Random letters and digits.
pub(in crate::store) fn random_text(characters: usize) -> String {
    rand::rng().sample_iter(Alphanumeric).take(characters).map(char::from).collect()
}
