//! The sections shared by all rooms. Every key says its unit; what is absent has the value of `Default`.

use std::num::{NonZeroU16, NonZeroUsize};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Pooler;

/// Section `database`. The URLs themselves are secrets and come from the environment alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// Who runs PgBouncer: `embedded` or `external`. Also set by `QUIPU_POOLER`.
    pub pooler: Pooler,
    /// Most connections of this process through the write door.
    pub write_connections_max: NonZeroU16,
    /// Most connections of this process through the session door.
    pub session_connections_max: NonZeroU16,
    /// Most connections of this process through the read door.
    pub read_connections_max: NonZeroU16,
    /// Nothing is accepted while less than this is free where Quipu's own PostgreSQL keeps its data, in MiB. Without a value 512, but at
    /// most an eighth of that file system; 0 accepts until the disk is full.
    #[serde(skip_serializing_if = "Option::is_none")]
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

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// When a new log file begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `text` or `json`, on stderr and in files alike.
    pub format: LogFormat,
    /// What is logged, in the syntax of `RUST_LOG`: `info`, or `warn,quipu=debug`.
    pub level: String,
    /// Folder for log files, made if absent. Without it only stderr is written.
    pub directory: Option<PathBuf>,
    /// When a new file begins.
    pub rotation: Rotation,
    /// Files kept, the current one included; older ones are deleted when a new one begins.
    pub files_max: NonZeroUsize,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "info,refinery_core=warn,deadpool=error,nostr_relay_builder=error".to_owned(),
            directory: None,
            rotation: Rotation::Daily,
            files_max: nonzero!(NonZeroUsize, 7),
        }
    }
}
