//! The sections that all rooms share. Every key states its unit; absent keys have the value of `Default`.

use std::num::{NonZeroU16, NonZeroUsize};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use super::Pooler;
use super::problems::{Problems, Section};

/// Section `database`. The URLs are secrets and come only from the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// Which PgBouncer pools the connections. The variable `QUIPU_POOLER` sets it too.
    pub pooler: Pooler,
    /// Connections of this process in the write pool.
    pub write_connections_max: NonZeroU16,
    /// Connections of this process in the session pool.
    pub session_connections_max: NonZeroU16,
    /// Connections of this process in the read pool.
    pub read_connections_max: NonZeroU16,
    /// Free space to keep on the file system of Quipu's own PostgreSQL. With less, the services and
    /// `quipu import` accept no events, messages or relays and `/readyz` says `disk: waiting`; they continue
    /// by themselves once there is space. `quipu relays add` and procedures called by SQL (`insert_event`, at
    /// most 1 GiB) are not held back. Without a value 512, but at most an eighth of the file system; 0
    /// accepts until the disk is full.
    pub reserve_mb: Option<u32>,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            pooler: Pooler::Embedded,
            write_connections_max: nonzero!(NonZeroU16, 8),
            session_connections_max: nonzero!(NonZeroU16, 8),
            read_connections_max: nonzero!(NonZeroU16, 8),
            reserve_mb: None,
        }
    }
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// When a new log file begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rotation {
    /// At midnight, UTC.
    #[default]
    Daily,
    /// At each full hour, UTC.
    Hourly,
    /// Never: one file that grows.
    Never,
}

/// Section `log`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Format of log lines, on standard error and in files.
    pub format: LogFormat,
    /// Log filter in the syntax of `RUST_LOG`, such as `info` or `warn,quipu=debug`. The default hides what
    /// some libraries log at level `info`, PostgreSQL's notices among them.
    pub level: String,
    /// Folder for log files, created if missing. Without it logs go only to standard error.
    #[schemars(extend("format" = "path"))]
    pub directory: Option<PathBuf>,
    /// When a new file begins.
    pub rotation: Rotation,
    /// Log files kept, including the current one; older files are deleted when a new one begins.
    pub files_max: NonZeroUsize,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "info,refinery_core=warn,deadpool=error,nostr_relay_builder=off,tokio_postgres=warn,sqlx::postgres::notice=warn,sqlx_core::pool=error".to_owned(),
            directory: None,
            rotation: Rotation::Daily,
            files_max: nonzero!(NonZeroUsize, 7),
        }
    }
}

impl Section for Log {
    fn problems(&self, problems: &mut Problems<'_>) {
        if let Err(error) = EnvFilter::builder().parse(&self.level) {
            problems.refuse("level", error.to_string());
        }
    }
}
