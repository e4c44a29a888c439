//! `quipu jobs submit` and `ingest`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use chrono::{DateTime, Utc};
use clap::{ArgAction, Args};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::client::{Server, Trouble};
use super::files::{self, Source};
use super::transfer;
use super::transfer_error::TransferError;
use super::upload::Stored;
use super::upload_notes::Notes;
use crate::cli::output;
use crate::services::jobs::decide::PRIORITY_DEFAULT;
use crate::telemetry::notice;

/// Submit one job for each file, or one without a file.
#[derive(Debug, Args)]
pub(super) struct Submit {
    /// Files, or folders with files of the type. Without any, one job without a source is submitted.
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The type, by which workers claim.
    #[arg(long = "type", short = 'T', default_value = "pdf", value_name = "TYPE")]
    job_type: String,
    /// 1 (first) to 5 (last).
    #[arg(long, short, default_value_t = PRIORITY_DEFAULT, value_name = "N", value_parser = super::priority())]
    priority: i16,
    /// Attempts that may fail before a job is dead [default: the server's].
    #[arg(long, short, value_name = "N", value_parser = super::attempts())]
    max_attempts: Option<i32>,
    /// Tags, separated by commas.
    #[arg(long, value_name = "TAGS", value_delimiter = ',')]
    tags: Vec<String>,
    /// Data for the worker, as JSON.
    #[arg(long, value_name = "JSON", value_parser = json_value)]
    metadata: Option<Value>,
    /// Not to be claimed before this time, as RFC 3339.
    #[arg(long, value_name = "TIME")]
    run_at: Option<DateTime<Utc>>,
    /// Jobs that have to be completed first, separated by commas.
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    depends_on: Vec<i64>,
    /// A key of your own: jobs with the same key are one. Without it, files of the same type and content are
    /// one job.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Submit the same file again.
    #[arg(long)]
    again: bool,
    /// Only print what would be submitted.
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Print one JSON object for each job.
    #[arg(long)]
    json: bool,
}

/// What the submissions of one command share.
#[derive(Debug)]
struct Run<'a> {
    server: &'a Server,
    notes: Option<Notes>,
    bar: ProgressBar,
    /// Whether the server has said that it stores no files.
    has_no_storage: bool,
}

fn json_value(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// Submit one job for each PDF below a folder, as `blobforge ingest`. A pointer of Git LFS stands for the file that
/// it names.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the original")]
pub(super) struct Ingest {
    /// The folder.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The type, by which workers claim.
    #[arg(long = "type", short = 'T', default_value = "pdf", value_name = "TYPE")]
    job_type: String,
    /// 1 (first) to 5 (last).
    #[arg(long, short, default_value_t = PRIORITY_DEFAULT, value_name = "N", value_parser = super::priority())]
    priority: i16,
    /// Attempts that may fail before a job is dead [default: the server's].
    #[arg(long, short, value_name = "N", value_parser = super::attempts())]
    max_attempts: Option<i32>,
    /// Also look into the folders below.
    #[arg(long, short, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set, value_name = "BOOL")]
    recursive: bool,
    /// Submit the files that pointers of Git LFS name; otherwise pointers are left out.
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set, value_name = "BOOL")]
    lfs: bool,
    /// Make tags of the folders and the name of each file.
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set, value_name = "BOOL")]
    tags: bool,
    /// Only print what would be submitted.
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Print one JSON object for each job.
    #[arg(long)]
    json: bool,
}

impl Ingest {
    pub(super) async fn run(self, server: &Server, notes: Option<Notes>) -> Result<ExitCode> {
        let levels = if self.recursive { files::DEPTH_MAX } else { 0 };
        let folders = [self.folder];
        let found = files::find(&folders, &self.job_type, levels)?;
        let submit = Submit {
            paths: Vec::new(),
            job_type: self.job_type,
            priority: self.priority,
            max_attempts: self.max_attempts,
            tags: Vec::new(),
            metadata: None,
            run_at: None,
            depends_on: Vec::new(),
            idempotency_key: None,
            again: false,
            dry_run: self.dry_run,
            json: self.json,
        };
        let [folder] = &folders;
        let tags = |path: &Path| if self.tags { files::tags_of(folder, path) } else { Vec::new() };
        submit.files(server, notes, found, self.lfs, tags).await
    }
}

impl Submit {
    pub(super) async fn run(self, server: &Server, notes: Option<Notes>) -> Result<ExitCode> {
        if self.paths.is_empty() {
            let body = self.body(None, &self.tags);
            if self.dry_run {
                output::list(body)?;
            } else {
                let answer = server.post(&["api", "jobs"], &body).await?;
                self.say(&answer, None)?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        let found = files::find(&self.paths, &self.job_type, files::DEPTH_MAX)?;
        if self.idempotency_key.is_some() && found.len() > 1 {
            bail!("--idempotency-key: {} files would be one job; submit them one by one", found.len());
        }
        self.files(server, notes, found, true, |_| self.tags.clone()).await
    }

    /// Submits files. One that cannot be read or is refused is named; the others are submitted.
    async fn files(
        &self,
        server: &Server,
        notes: Option<Notes>,
        found: Vec<PathBuf>,
        with_pointers: bool,
        tags: impl Fn(&Path) -> Vec<String>,
    ) -> Result<ExitCode> {
        let sizes: u64 = found.iter().filter_map(|path| path.metadata().ok()).map(|about| about.len()).sum();
        let bar = if self.json { ProgressBar::hidden() } else { output::byte_bar(Some(sizes)) };
        if let Some(notes) = &notes {
            notes.sweep();
        }
        let mut run = Run { server, notes, bar, has_no_storage: false };
        let mut code = ExitCode::SUCCESS;
        for path in found {
            run.bar.set_message(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
            let (reading, file) = (run.bar.clone(), path.clone());
            let source = tokio::task::spawn_blocking(move || files::hashed(&file, &reading)).await?;
            let submitted = match source {
                Ok(source) if source.is_pointer && !with_pointers => continue,
                Ok(source) => self.file(&mut run, &source, &tags(&path)).await,
                Err(error) => Err(error),
            };
            let Err(error) = submitted else { continue };
            if ends_all(&error) {
                return Err(error.context(path.display().to_string()));
            }
            notice(format_args!("quipu: {}: {error:#}", path.display()));
            code = ExitCode::FAILURE;
        }
        run.bar.finish_and_clear();
        Ok(code)
    }

    /// Uploads a file, and submits its job: a worker that claims it finds the source.
    async fn file(&self, run: &mut Run<'_>, source: &Source, tags: &[String]) -> Result<()> {
        let body = self.body(Some(source), tags);
        if self.dry_run {
            return output::list(body);
        }
        let mut stored = Stored::NoStorage;
        if !run.has_no_storage {
            run.bar.inc_length(source.size);
            stored = transfer::store_source(run.server, source, run.notes.as_ref(), &run.bar)
                .await
                .context("the file is not stored, and no job was submitted")?;
            if stored != Stored::Uploaded {
                run.bar.inc(source.size);
            }
            if stored == Stored::NoStorage {
                run.has_no_storage = true;
                notice(
                    "quipu: this server stores no files: workers find the source by source_path and source_hash",
                );
            }
        }
        let mut answer = run.server.post(&["api", "jobs"], &body).await?;
        if stored != Stored::NoStorage {
            answer["uploaded"] = (stored == Stored::Uploaded).into();
        }
        self.say(&answer, Some(source))
    }

    fn body(&self, source: Option<&Source>, tags: &[String]) -> Value {
        let mut body = json!({ "type": self.job_type, "priority": self.priority });
        if let Some(source) = source {
            body["source_hash"] = source.sha256.clone().into();
            body["source_path"] = source.path.display().to_string().into();
            body["source_size"] = source.size.into();
        }
        if self.again || (source.is_none() && self.idempotency_key.is_none()) {
            body["unique"] = false.into();
        }
        for (name, given) in [
            ("max_attempts", self.max_attempts.map(Value::from)),
            ("tags", (!tags.is_empty()).then(|| json!(tags))),
            ("metadata", self.metadata.clone()),
            ("run_at", self.run_at.map(|at| json!(at))),
            ("depends_on", (!self.depends_on.is_empty()).then(|| json!(self.depends_on))),
            ("idempotency_key", self.idempotency_key.clone().map(Value::from)),
        ] {
            if let Some(given) = given {
                body[name] = given;
            }
        }
        body
    }

    fn say(&self, answer: &Value, source: Option<&Source>) -> Result<()> {
        let path = source.map(|source| source.path.display().to_string());
        if self.json {
            let mut answer = answer.clone();
            if let Some(path) = path {
                answer["source_path"] = path.into();
            }
            return output::list(answer);
        }
        let word = if answer["existing"] == json!(true) { "known" } else { "submitted" };
        output::list(format_args!("{}  {word}  {}", answer["job_id"], path.unwrap_or_default()))
    }
}

/// Whether the files that are left would fail as well.
fn ends_all(error: &anyhow::Error) -> bool {
    let trouble = error.downcast_ref::<Trouble>();
    let trouble = trouble.or_else(|| error.downcast_ref::<TransferError>()?.trouble());
    let is_of_all = |trouble: &Trouble| {
        trouble.is_transient() || trouble.refusal().is_none_or(|(status, _)| matches!(status, 401 | 403))
    };
    error.is::<output::Closed>() || trouble.is_some_and(is_of_all)
}
