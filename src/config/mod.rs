//! Reads the configuration once at the start: defaults, then the implementation's files, then the file of `-config`,
//! then the environment with `.env`, then `--set`. Later sources override earlier ones, key by key. Unknown keys are refused.
//!
//! **Architecture Invariant:** nothing else reads the environment or a settings file. No setting is a secret:
//! secrets come only from the environment, or from files that it names, as [`Secret`]s.

/// A default that cannot be zero, checked at compile time.
macro_rules! nonzero {
    ($kind:ident, $value:literal) => {
        const { $kind::new($value).expect("the literal is not zero") }
    };
}

mod blossom;
mod blossom_original;
mod blossom_upstreams;
mod check;
mod dotenv;
mod environment;
mod http;
mod implementation;
mod job_client;
mod job_files;
mod job_login;
mod job_webhooks;
mod jobs;
mod keys;
mod layer;
mod merge;
mod messages;
mod monitor;
mod networks;
mod problems;
mod secret_file;
mod sections;
mod services;
mod synchronizer;
mod table;

use std::fmt::Write as _;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::base::{Secret, WebhookKeys};

use layer::Layer;
use merge::Merged;

pub use blossom::Blossom;
pub use blossom_upstreams::{BlossomUpstream, RedirectStrategy};
pub use environment::{DatabaseEnv, Environment, Pooler};
pub use http::{AddressPrefix, Http};
pub use implementation::{Implementation, ImplementationError, SettingsFile};
pub use job_client::JobClientEnv;
pub use job_files::{JobFiles, ObjectKeys};
pub use job_login::JobLogin;
pub use job_webhooks::JobWebhook;
pub use jobs::{Jobs, TypeLimit};
pub use layer::Problem;
pub use messages::Messages;
pub use monitor::Monitor;
pub use networks::{NetworkSettings, Networks};
pub use secret_file::{SecretFileError, read_secret_file};
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
    /// A settings file that the command line names; it comes after the files of the implementation.
    pub settings_file: Option<PathBuf>,
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
            settings_file: None,
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
    /// What commands that talk to a job queue find in the environment.
    pub job_client: JobClientEnv,
    /// The environment itself, for variables that a command hands on to a program by name.
    pub environment: Environment,
    /// `BLOBFORGE_S3_ACCESS_KEY` and `BLOBFORGE_S3_SECRET_KEY`: the keys of the bucket for files of jobs.
    pub object_keys: Option<ObjectKeys>,
    /// `QUIPU_BLOSSOM_S3_ACCESS_KEY` and `QUIPU_BLOSSOM_S3_SECRET_KEY`: the keys of buckets for blobs.
    pub blob_keys: Option<ObjectKeys>,
    /// `QUIPU_BLOSSOM_KEY`: the key that this proxy signs requests to upstreams with, hex or `nsec1…`.
    pub blossom_key: Option<Secret>,
    /// `BLOBFORGE_OIDC_CLIENT_SECRET`: the client's secret for the `OpenID` provider of jobs.
    pub oidc_secret: Option<Secret>,
    /// `QUIPU_JOBS_WEBHOOK_SECRET`: the keys by which webhooks are signed.
    pub webhook_keys: Option<WebhookKeys>,
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
        let mut problems = secret_file::read_secret_files(&mut environment);
        let mut layers = Vec::new();
        let mut add = |layer: Result<Layer, Problem>| match layer {
            Ok(layer) => layers.push(layer),
            Err(problem) => problems.push(problem),
        };
        for file in implementation.settings_files()? {
            add(Layer::yaml(&file.path, &file.section, &file.text));
        }
        if let Some(path) = &sources.settings_file {
            add(Layer::named_file(path));
        }
        add(Ok(Layer::environment(environment.variables())));
        let (overrides, malformed) = Layer::overrides(&sources.overrides);
        add(Ok(overrides));
        problems.extend(malformed);

        let merged = Merged::new(layers);
        let settings = merged.extract::<Settings>();
        let settings = settings.map_err(|found| problems.extend(found)).unwrap_or_default();
        let synchronizer_key = keys::key(&environment, environment::SYNCHRONIZER_KEY);
        let synchronizer_key = synchronizer_key.map_err(|found| problems.push(found)).unwrap_or_default();
        let object_keys = ObjectKeys::read(&environment, &settings.services.jobs.files);
        let object_keys = object_keys.map_err(|found| problems.push(found)).unwrap_or_default();
        let blob_keys = ObjectKeys::read_blossom(&environment, &settings.services.blossom);
        let blob_keys = blob_keys.map_err(|found| problems.push(found)).unwrap_or_default();
        let blossom_key = keys::key(&environment, environment::BLOSSOM_KEY);
        let blossom_key = blossom_key.map_err(|found| problems.push(found)).unwrap_or_default();
        let oidc_secret = environment.get(environment::OIDC_SECRET).map(Secret::new);
        let webhook_keys = job_webhooks::keys(&environment, &settings.services.jobs.webhooks);
        let webhook_keys = webhook_keys.map_err(|found| problems.push(found)).unwrap_or_default();
        let monitor_key = keys::key(&environment, environment::MONITOR_KEY);
        // A key that cannot be read is a problem of its own, not a missing key.
        let has_monitor_key = !matches!(monitor_key, Ok(None));
        let monitor_key = monitor_key.map_err(|found| problems.push(found)).unwrap_or_default();
        problems.extend(check::find(&settings, &merged, has_monitor_key));
        let database = DatabaseEnv::read(&environment, settings.database.pooler);
        let database = database.map_err(|found| problems.extend(found)).unwrap_or_default();
        if problems.is_empty() {
            let job_client = JobClientEnv::read(&environment);
            Ok(Self {
                implementation,
                settings,
                database,
                monitor_key,
                synchronizer_key,
                job_client,
                environment,
                object_keys,
                blob_keys,
                blossom_key,
                oidc_secret,
                webhook_keys,
            })
        } else {
            environment.name_files(&mut problems);
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
            "object_keys": self.object_keys.as_ref().map(|_| "***"),
            "blob_keys": self.blob_keys.as_ref().map(|_| "***"),
            "blossom_key": self.blossom_key.as_ref().map(|_| "***"),
            "oidc_secret": self.oidc_secret.as_ref().map(|_| "***"),
            "webhook_keys": self.webhook_keys.as_ref().map(|_| "***"),
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
}
