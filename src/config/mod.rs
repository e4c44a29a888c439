//! Reads the configuration once at the start: defaults, then the implementation's files, then the environment
//! with `.env`, then `--set`. Later sources override earlier ones, key by key. Unknown keys are refused.
//!
//! **Architecture Invariant:** nothing else reads the environment or a settings file. No setting is a secret:
//! secrets come only from the environment, as [`Secret`]s.

/// A default that cannot be zero, checked at compile time.
macro_rules! nonzero {
    ($kind:ident, $value:literal) => {
        const { $kind::new($value).expect("the literal is not zero") }
    };
}

mod environment;
mod http;
mod implementation;
mod keys;
mod layer;
mod merge;
mod messages;
mod monitor;
mod networks;
mod sections;
mod services;
mod synchronizer;
mod table;

use std::fmt::Write as _;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json_path::JsonPath;
use tracing_subscriber::EnvFilter;

use crate::base::{RelayUrl, Secret};

use layer::Layer;
use merge::Merged;

pub use environment::{DatabaseEnv, Environment, Pooler};
pub use http::{AddressPrefix, Http};
pub use implementation::{Implementation, ImplementationError, SettingsFile};
pub use layer::Problem;
pub use messages::Messages;
pub use monitor::Monitor;
pub use networks::{NetworkSettings, Networks};
pub use sections::{Database, Log, LogFormat, Rotation};
pub use services::{
    Console, Finder, Ingest, Initializer, Observer, Projector, RelayList, Services, Ticker, Validator, Vanish,
};
pub use synchronizer::{PrioritySynchronizer, Synchronizer};

/// All settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The connections of this process to PostgreSQL, and the disk reserve. The URLs of databases are secrets
    /// and come only from the environment.
    pub database: Database,
    /// Logging.
    pub log: Log,
    /// The HTTP listeners of this process and the limits of each. By default nothing listens beyond loopback.
    pub http: Http,
    /// How relays and web servers are reached.
    pub networks: Networks,
    /// One section per service.
    pub services: Services,
}

/// Why the configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The implementation or one of its files cannot be read.
    #[error(transparent)]
    Implementation(#[from] ImplementationError),
    /// All problems, one per line.
    #[error("the configuration is refused{}", lines_of(.0))]
    Refused(Vec<Problem>),
}

fn lines_of(problems: &[Problem]) -> String {
    problems.iter().fold(String::new(), |mut lines, problem| {
        let _ = write!(lines, "\n  {problem}");
        lines
    })
}

/// The sources of a configuration.
#[derive(Debug, Clone)]
pub struct Sources {
    /// An implementation's name, or the path of its folder.
    pub implementation: String,
    /// The environment, without `.env` files.
    pub environment: Environment,
    /// The folder whose `.env` is read before the implementation's.
    pub working_dir: PathBuf,
    /// The values of `--set`: `section.key=value`.
    pub overrides: Vec<String>,
}

impl Sources {
    /// The sources of this process: its environment and its working folder.
    #[must_use]
    pub fn of_process(implementation: impl Into<String>, overrides: Vec<String>) -> Self {
        Self {
            implementation: implementation.into(),
            environment: Environment::of_process(),
            working_dir: PathBuf::from("."),
            overrides,
        }
    }
}

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// The implementation that supplies the files.
    pub implementation: Implementation,
    /// All settings.
    pub settings: Settings,
    /// Database URLs from the environment.
    pub database: DatabaseEnv,
    /// `QUIPU_MONITOR_SECRET_KEY`: the key that the monitor signs with, hex or `nsec1…`.
    pub monitor_key: Option<Secret>,
    /// `QUIPU_SYNCHRONIZER_SECRET_KEY`: the key for relays that require authentication (NIP-42).
    pub synchronizer_key: Option<Secret>,
}

impl Configuration {
    /// Reads and checks all sources.
    ///
    /// # Errors
    /// [`ConfigError::Refused`] with all problems that can be found in one run, each with source, key and
    /// reason; [`ConfigError::Implementation`] when the files cannot be read.
    pub fn load(sources: Sources) -> Result<Self, ConfigError> {
        let implementation = Implementation::find(&sources.implementation)?;
        let mut environment = sources.environment;
        let folder = implementation.folder().map(PathBuf::from);
        for folder in [Some(sources.working_dir), folder].into_iter().flatten() {
            environment =
                environment.with_dotenv(&folder.join(".env")).map_err(|p| ConfigError::Refused(vec![p]))?;
        }
        let mut problems = Vec::new();
        let mut layers = Vec::new();
        let mut add = |layer: Result<Layer, Problem>| match layer {
            Ok(layer) => layers.push(layer),
            Err(problem) => problems.push(problem),
        };
        for file in implementation.settings_files()? {
            add(Layer::yaml(&file.path, &file.section, &file.text));
        }
        add(Ok(Layer::environment(environment.variables())));
        add(Layer::overrides(&sources.overrides));

        let merged = Merged::new(layers);
        let settings = merged.extract::<Settings>();
        let settings = settings.map_err(|found| problems.extend(found)).unwrap_or_default();
        problems.extend(settings.problems(&merged));
        problems.extend(settings.services.messages.problems(&merged));
        let synchronizer_key = keys::key(&environment, keys::SYNCHRONIZER);
        let synchronizer_key = synchronizer_key.map_err(|found| problems.push(found)).unwrap_or_default();
        let monitor_key = keys::key(&environment, keys::MONITOR);
        let is_key_bad = monitor_key.is_err();
        let monitor_key = monitor_key.map_err(|found| problems.push(found)).unwrap_or_default();
        if !is_key_bad {
            problems.extend(settings.services.monitor.problems(&merged, monitor_key.as_ref()));
        }
        let database = DatabaseEnv::read(&environment, settings.database.pooler);
        let database = database.map_err(|found| problems.extend(found)).unwrap_or_default();
        if problems.is_empty() {
            Ok(Self { implementation, settings, database, monitor_key, synchronizer_key })
        } else {
            Err(ConfigError::Refused(problems))
        }
    }

    /// The effective configuration, for `quipu check-config`: every key with its value, secrets masked.
    #[must_use]
    pub fn effective_json(&self) -> serde_json::Value {
        json!({
            "implementation": {
                "name": self.implementation.name(),
                "folder": self.implementation.folder(),
            },
            "settings": self.settings,
            "environment": self.database.masked(),
            "monitor_key": self.monitor_key.as_ref().map(|_| "***"),
            "synchronizer_key": self.synchronizer_key.as_ref().map(|_| "***"),
        })
    }
}

impl Settings {
    /// The table of all settings for `docs/configuration.md`, as Markdown: key, type, default and doc
    /// comment.
    #[must_use]
    pub fn markdown() -> String {
        table::markdown()
    }

    /// Problems that the types cannot express.
    fn problems(&self, merged: &Merged) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Err(error) = EnvFilter::builder().parse(&self.log.level) {
            problems.push(merged.refuse("log.level", error.to_string()));
        }
        for (key, urls) in [
            ("services.synchronizer.only_relays", &self.services.synchronizer.only_relays),
            ("services.ingest.vanish_relay_urls", &self.services.ingest.vanish_relay_urls),
        ] {
            for url in urls {
                match RelayUrl::parse(url) {
                    Ok(relay) if relay.as_str() == url => {}
                    Ok(relay) => problems.push(merged.refuse(key, format!("write `{url}` as `{relay}`"))),
                    Err(error) => problems.push(merged.refuse(key, format!("`{url}`: {error}"))),
                }
            }
        }
        if self.services.synchronizer.enabled && self.services.priority_synchronizer.enabled {
            let reason = "one of the two synchronizers runs: set `services.synchronizer.enabled` to false";
            problems.push(merged.refuse("services.priority_synchronizer.enabled", reason));
        }
        for RelayList { url, path } in &self.services.finder.lists {
            let is_web = |url: &url::Url| matches!(url.scheme(), "http" | "https");
            if !url::Url::parse(url).is_ok_and(|url| is_web(&url)) {
                let reason = format!("`{url}`: expected an http or https URL");
                problems.push(merged.refuse("services.finder.lists", reason));
            }
            if let Some(path) = path
                && let Err(error) = JsonPath::parse(path)
            {
                let reason = format!("`{path}` is not a JSONPath: {error}");
                problems.push(merged.refuse("services.finder.lists", reason));
            }
        }
        for (key, reason) in self.networks.problems() {
            problems.push(merged.refuse(&key, reason));
        }
        for (key, reason) in self.http.problems() {
            problems.push(merged.refuse(key, reason));
        }
        problems
    }
}
