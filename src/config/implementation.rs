//! An implementation: a folder of settings, stored procedures and seed lists, without code.
//!
//! It is either a folder on disk or compiled into the binary.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};

/// The implementations of this repository, so that the binary works without their folder.
static BUILT_IN: Dir<'static> = include_dir!("$OUT_DIR/implementations");

const BROTR: &str = "config/brotr.yaml";
const SERVICES: &str = "config/services";

/// Why an implementation or one of its files cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ImplementationError {
    /// There is neither a folder nor a built-in implementation of that name.
    #[error(
        "no implementation `{0}`: neither a folder with {BROTR}, nor under implementations/, nor one of the built-in {1}"
    )]
    Unknown(String, String),
    /// One of its files cannot be read.
    #[error("{path}: cannot be read")]
    Read {
        /// The path of the file.
        path: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// One settings file of an implementation.
#[derive(Debug, Clone)]
pub struct SettingsFile {
    /// Path for error messages.
    pub path: String,
    /// The section that it fills: empty for `brotr.yaml`, otherwise `services.<service>`.
    pub section: String,
    /// The YAML text.
    pub text: Cow<'static, str>,
}

/// An implementation that was found.
#[derive(Debug, Clone)]
pub struct Implementation {
    name: String,
    location: Location,
}

#[derive(Debug, Clone)]
enum Location {
    Folder(PathBuf),
    BuiltIn(&'static Dir<'static>),
}

impl Implementation {
    /// Finds an implementation: a path to a folder with `config/brotr.yaml`, else `./implementations/<name>`,
    /// else a built-in one.
    ///
    /// # Errors
    /// [`ImplementationError::Unknown`] when none of these exists.
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
                return Ok(Self { name: name(), location: Location::Folder(folder) });
            }
        }
        Self::find_built_in(name_or_path)
    }

    /// Finds a built-in implementation, ignoring the disk.
    ///
    /// # Errors
    /// [`ImplementationError::Unknown`] when no built-in implementation has that name.
    pub fn find_built_in(name: &str) -> Result<Self, ImplementationError> {
        match BUILT_IN.dirs().find(|dir| dir.path() == Path::new(name)) {
            Some(dir) => Ok(Self { name: name.to_owned(), location: Location::BuiltIn(dir) }),
            None => Err(ImplementationError::Unknown(name.to_owned(), Self::built_in().join(", "))),
        }
    }

    /// Names of the built-in implementations.
    #[must_use]
    pub fn built_in() -> Vec<String> {
        BUILT_IN.dirs().map(|dir| dir.path().display().to_string()).collect()
    }

    /// The name, which is the folder's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder, unless the implementation is built in.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match &self.location {
            Location::Folder(folder) => Some(folder),
            Location::BuiltIn(_) => None,
        }
    }

    /// `config/brotr.yaml`, then the files of `config/services/` sorted by name.
    ///
    /// # Errors
    /// When one of the files cannot be read.
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

    /// A list under `data/`, such as `seed_relays.txt`. An absolute path is used unchanged.
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
        match &self.location {
            Location::Folder(folder) => read(&folder.join(file)),
            Location::BuiltIn(dir) => {
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
        match &self.location {
            Location::Folder(folder) => folder.join(file).display().to_string(),
            Location::BuiltIn(_) => format!("{}/{file} (built in)", self.name),
        }
    }

    /// Paths of the YAML files in `config/services/`, relative to the implementation, sorted.
    fn service_files(&self) -> Result<Vec<String>, ImplementationError> {
        let mut names: Vec<String> = match &self.location {
            Location::Folder(folder) => match folder.join(SERVICES).read_dir() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                entries => entries
                    .and_then(|entries| {
                        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
                    })
                    .map_err(|source| ImplementationError::Read { path: self.shown(SERVICES), source })?,
            },
            Location::BuiltIn(dir) => {
                dir.get_dir(dir.path().join(SERVICES)).map_or_else(Vec::new, |services| {
                    let name =
                        |file: &include_dir::File<'_>| file.path().file_name()?.to_str().map(str::to_owned);
                    services.files().filter_map(name).collect()
                })
            }
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
