//! Sets up logging: text or JSON, on stderr and, if a folder is set, in rotating files.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_appender::rolling::{self, RollingFileAppender};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::config::{Log, LogFormat, Rotation};

/// Why logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `log.level` is not a valid filter.
    #[error("log.level `{level}` is not a valid filter")]
    Level {
        /// The value of the setting.
        level: String,
        /// The parser's error.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// The log folder or its first file cannot be created.
    #[error("log.directory {} cannot be written", directory.display())]
    Directory {
        /// The folder.
        directory: PathBuf,
        /// The system's error.
        #[source]
        source: rolling::InitError,
    },
    /// Logging has already been set up in this process.
    #[error("logging is already set up")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Flushes the queue of the log file when dropped: keep it until the end of `main`.
#[derive(Debug)]
#[must_use = "dropping it ends the log file"]
pub struct LogGuard {
    _file: Option<WorkerGuard>,
}

/// Sets up logging for this process; `stderr` is the writer for standard error. A separate thread writes the
/// file: when the disk is too slow, lines are dropped from the file instead of slowing down the services.
///
/// # Errors
/// When the level is not a valid filter, the folder cannot be written, or logging has already been set up.
pub fn init<W>(log: &Log, stderr: W) -> Result<LogGuard, LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (subscriber, guard) = subscriber(log, stderr, io::stderr().is_terminal())?;
    subscriber.try_init().map_err(LogError::Twice)?;
    Ok(guard)
}

fn subscriber<W>(
    log: &Log,
    stderr: W,
    is_terminal: bool,
) -> Result<(impl Subscriber + Send + Sync, LogGuard), LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(&log.level)
        .map_err(|source| LogError::Level { level: log.level.clone(), source })?;
    let (file, guard) = file(log)?.unzip();
    let file = file.map(|file| lines(log.format, file, false));
    let subscriber = Registry::default().with(filter).with(lines(log.format, stderr, is_terminal)).with(file);
    Ok((subscriber, LogGuard { _file: guard }))
}

fn lines<S, W>(format: LogFormat, writer: W, is_terminal: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = fmt::layer().with_writer(writer);
    match format {
        LogFormat::Text => layer.with_ansi(is_terminal).boxed(),
        LogFormat::Json => {
            layer.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
        }
    }
}

fn file(log: &Log) -> Result<Option<(NonBlocking, WorkerGuard)>, LogError> {
    let Some(directory) = &log.directory else { return Ok(None) };
    let rotation = match log.rotation {
        Rotation::Daily => rolling::Rotation::DAILY,
        Rotation::Hourly => rolling::Rotation::HOURLY,
        Rotation::Never => rolling::Rotation::NEVER,
    };
    let appender = RollingFileAppender::builder()
        .rotation(rotation)
        .filename_prefix("quipu")
        .filename_suffix("log")
        .max_log_files(log.files_max.get())
        .build(directory)
        .map_err(|source| LogError::Directory { directory: directory.clone(), source })?;
    Ok(Some(tracing_appender::non_blocking(appender)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_lines_reach_the_file_when_the_guard_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log {
            format: LogFormat::Json,
            directory: Some(folder.path().to_owned()),
            rotation: Rotation::Never,
            ..Log::default()
        };
        let (subscriber, guard) = subscriber(&log, io::sink, false).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(relay.url = "wss://relay.example", "connected");
            tracing::debug!("too quiet to be kept");
        });
        drop(guard);
        let file = folder.path().read_dir().unwrap().next().unwrap().unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "connected");
        assert_eq!(line["relay.url"], "wss://relay.example");
    }

    #[test]
    fn an_invalid_level_is_refused_by_name() {
        let log = Log { level: "quipu=loud".to_owned(), ..Log::default() };
        let refused = subscriber(&log, io::sink, false).err().unwrap();
        assert_eq!(refused.to_string(), "log.level `quipu=loud` is not a valid filter");
    }
}
