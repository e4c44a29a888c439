//! An implementation: a folder of settings, stored procedures and seed lists, and no code.
//!
//! It is a folder on disk, or one of those compiled into the binary.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};

/// The implementations of this repository, for a binary without its folder.
static BUILT_IN: Dir<'static> = include_dir!("$OUT_DIR/implementations");

const BROTR: &str = "config/brotr.yaml";
const SERVICES: &str = "config/services";

/// Why an implementation or one of its files is not there.
#[derive(Debug, thiserror::Error)]
pub enum ImplementationError {
    /// No folder and no built-in one has that name.
    #[error(
        "no implementation `{0}`: neither a folder with {BROTR}, nor under implementations/, nor one of the built-in {1}"
    )]
    Unknown(String, String),
    /// A file of it cannot be read.
    #[error("{path}: cannot be read")]
    Read {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// One settings file of an implementation.
#[derive(Debug, Clone)]
pub struct SettingsFile {
    /// Its path for messages.
    pub path: String,
    /// The section it fills: empty for `brotr.yaml`, else `services.<service>`.
    pub section: String,
    /// Its YAML.
    pub text: Cow<'static, str>,
}

/// A found implementation.
#[derive(Debug, Clone)]
pub struct Implementation {
    name: String,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Folder(PathBuf),
    BuiltIn(&'static Dir<'static>),
}

impl Implementation {
    /// Finds it: a path to a folder with a `config/brotr.yaml`, else `./implementations/<name>`, else
    /// a built-in one.
    ///
    /// # Errors
    /// [`ImplementationError::Unknown`] when it is none of these.
    pub fn find(name_or_path: &str) -> Result<Self, ImplementationError> {
        let path = Path::new(name_or_path);
        let name = || {
            let canonical = path.canonicalize().unwrap_or_else(|_| path.to_owned());
            canonical
                .file_name()
                .map_or_else(|| name_or_path.to_owned(), |n| n.to_string_lossy().into_owned())
        };
        for folder in [path.to_owned(), Path::new("implementations").join(path)] {
            if folder.join(BROTR).is_file() {
                return Ok(Self { name: name(), place: Place::Folder(folder) });
            }
        }
        Self::find_built_in(name_or_path)
    }

    /// Finds one that is compiled in, whatever is on disk.
    ///
    /// # Errors
    /// [`ImplementationError::Unknown`] when there is none of that name.
    pub fn find_built_in(name: &str) -> Result<Self, ImplementationError> {
        match BUILT_IN.dirs().find(|dir| dir.path() == Path::new(name)) {
            Some(dir) => Ok(Self { name: name.to_owned(), place: Place::BuiltIn(dir) }),
            None => Err(ImplementationError::Unknown(name.to_owned(), Self::built_in().join(", "))),
        }
    }

    /// The names that are compiled in.
    #[must_use]
    pub fn built_in() -> Vec<String> {
        BUILT_IN.dirs().map(|dir| dir.path().display().to_string()).collect()
    }

    /// Its name: the folder's.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its folder, unless it is compiled in.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match &self.place {
            Place::Folder(folder) => Some(folder),
            Place::BuiltIn(_) => None,
        }
    }

    /// `config/brotr.yaml`, then those of `config/services/` by name.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn settings_files(&self) -> Result<Vec<SettingsFile>, ImplementationError> {
        let mut files =
            vec![SettingsFile { path: self.shown(BROTR), section: String::new(), text: self.text(BROTR)? }];
        for file in self.service_files()? {
            let stem = Path::new(&file).file_stem().unwrap_or_default().to_string_lossy().replace('-', "_");
            files.push(SettingsFile {
                path: self.shown(&file),
                section: format!("services.{stem}"),
                text: self.text(&file)?,
            });
        }
        Ok(files)
    }

    /// The stored procedures, `config/postgres/init/05_procedures.sql`.
    ///
    /// # Errors
    /// When the file is not there or not readable.
    pub fn procedures_sql(&self) -> Result<Cow<'static, str>, ImplementationError> {
        self.text("config/postgres/init/05_procedures.sql")
    }

    /// The server's settings, `config/postgres/postgresql.conf`.
    ///
    /// # Errors
    /// When the file is not there or not readable.
    pub fn postgresql_conf(&self) -> Result<Cow<'static, str>, ImplementationError> {
        self.text("config/postgres/postgresql.conf")
    }

    /// A list under `data/`, such as `seed_relays.txt`; an absolute path is taken as it is.
    ///
    /// # Errors
    /// When the file is not there or not readable.
    pub fn data_file(&self, name: &str) -> Result<Cow<'static, str>, ImplementationError> {
        if Path::new(name).is_absolute() {
            return read(Path::new(name));
        }
        self.text(&format!("data/{name}"))
    }

    fn text(&self, file: &str) -> Result<Cow<'static, str>, ImplementationError> {
        match &self.place {
            Place::Folder(folder) => read(&folder.join(file)),
            Place::BuiltIn(dir) => {
                let text = dir.get_file(dir.path().join(file)).and_then(include_dir::File::contents_utf8);
                let missing = || ImplementationError::Read {
                    path: self.shown(file),
                    source: io::ErrorKind::NotFound.into(),
                };
                text.map(Cow::Borrowed).ok_or_else(missing)
            }
        }
    }

    fn shown(&self, file: &str) -> String {
        match &self.place {
            Place::Folder(folder) => folder.join(file).display().to_string(),
            Place::BuiltIn(_) => format!("{}/{file} (built in)", self.name),
        }
    }

    /// Paths of the YAML files in `config/services/`, relative to the implementation, sorted.
    fn service_files(&self) -> Result<Vec<String>, ImplementationError> {
        let mut names: Vec<String> = match &self.place {
            Place::Folder(folder) => match folder.join(SERVICES).read_dir() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                entries => entries
                    .and_then(|entries| {
                        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
                    })
                    .map_err(|source| ImplementationError::Read { path: self.shown(SERVICES), source })?,
            },
            Place::BuiltIn(dir) => dir.get_dir(dir.path().join(SERVICES)).map_or_else(Vec::new, |services| {
                let name =
                    |file: &include_dir::File<'_>| file.path().file_name()?.to_str().map(str::to_owned);
                services.files().filter_map(name).collect()
            }),
        };
        names.retain(|name| {
            Path::new(name).extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
        });
        names.sort();
        Ok(names.into_iter().map(|name| format!("{SERVICES}/{name}")).collect())
    }
}

fn read(path: &Path) -> Result<Cow<'static, str>, ImplementationError> {
    let read = std::fs::read_to_string(path).map(Cow::Owned);
    read.map_err(|source| ImplementationError::Read { path: path.display().to_string(), source })
}
