//! `quipu jobs download`.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use tokio::fs::File;

use super::client::Server;
use super::resend::several_times;
use super::transfer::{Received, receive};
use crate::cli::output;

/// Download the output of a job, or its source. Its SHA-256 is checked.
#[derive(Debug, Args)]
pub(super) struct Download {
    /// The job's number.
    id: i64,
    /// The source instead of the output.
    #[arg(long)]
    source: bool,
    /// The file to write, `-` for standard output [default: the job's number and the name of the output, or
    /// the name of the source].
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the file if it exists.
    #[arg(long, short)]
    force: bool,
    /// Print one JSON object about the file.
    #[arg(long)]
    json: bool,
}

impl Download {
    pub(super) async fn run(self, server: &Server) -> Result<ExitCode> {
        let (id, kind) = (self.id.to_string(), if self.source { "source" } else { "output" });
        let job = server.get(server.at(&["api", "jobs", &id])).await?;
        let asked = server.get(server.at(&["api", "files", &id, kind, "url"])).await;
        let status = job["status"].as_str().unwrap_or_default();
        let answer = asked.with_context(|| format!("the {kind} of job {id}, which is {status}"))?;
        let url = answer["url"].as_str().context("the server's answer has no url")?;
        let (stated, size) = self.facts(&job);
        let is_quiet = self.json || self.output.as_deref() == Some(Path::new("-"));
        let bar = if is_quiet { ProgressBar::hidden() } else { output::byte_bar(size) };
        if self.output.as_deref() == Some(Path::new("-")) {
            receive(server, url, &mut tokio::io::stdout(), &bar).await?.check(stated)?;
            return Ok(ExitCode::SUCCESS);
        }
        let path = self.output.clone().unwrap_or_else(|| self.name(&job));
        if !self.force && path.exists() {
            bail!("{} exists: --force replaces it, --output names another file", path.display());
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let cannot = || format!("cannot write {}", path.display());
        // It appears whole or not at all.
        let access = Permissions::from_mode(0o666);
        let new = tempfile::Builder::new().permissions(access).tempfile_in(folder).with_context(cannot)?;
        let received = several_times(|| async {
            let mut file = File::create(new.path()).await?;
            receive(server, url, &mut file, &bar).await
        });
        let received: Received = received.await?;
        received.check(stated)?;
        let kept = if self.force { new.persist(&path) } else { new.persist_noclobber(&path) };
        kept.map_err(|error| error.error).with_context(cannot)?;
        bar.finish_and_clear();
        let Received { size, sha256 } = received;
        if self.json {
            let path = path.display().to_string();
            output::list(json!({ "job_id": self.id, "path": path, "size": size, "sha256": sha256 }))?;
        } else {
            output::list(format_args!("{id}  {size} bytes  {}", path.display()))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// SHA-256 and size of the file, as far as the job has them.
    fn facts<'a>(&self, job: &'a Value) -> (Option<&'a str>, Option<u64>) {
        if self.source {
            return (job["source_hash"].as_str(), job["source_size"].as_u64());
        }
        let output = &job["result"]["output"];
        (output["sha256"].as_str(), output["size"].as_u64())
    }

    /// The file's name. The server's texts choose no folder.
    fn name(&self, job: &Value) -> PathBuf {
        let text = if self.source { &job["source_path"] } else { &job["result"]["output_key"] };
        let name = Path::new(text.as_str().unwrap_or_default()).file_name().and_then(OsStr::to_str);
        let name = name.filter(|name| !name.starts_with('.') && !name.contains(char::is_control));
        match name {
            Some(name) if self.source => name.into(),
            None if self.source => format!("{}-source", self.id).into(),
            name => format!("{}-{}", self.id, name.unwrap_or("output")).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_in_this_folder_and_not_hidden() {
        let name = |source, job: Value| {
            let download = Download { id: 7, source, output: None, force: false, json: false };
            download.name(&job).display().to_string()
        };
        assert_eq!(
            name(false, json!({ "result": { "output_key": "outputs/7/1/pages.zip" } })),
            "7-pages.zip"
        );
        assert_eq!(name(false, json!({})), "7-output");
        assert_eq!(name(true, json!({ "source_path": "/books/a.pdf" })), "a.pdf");
        for path in ["../..", "/books/.profile", "a\u{1b}b", ""] {
            assert_eq!(name(true, json!({ "source_path": path })), "7-source", "{path}");
        }
    }
}
