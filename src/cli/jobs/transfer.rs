//! Sources and outputs of jobs: the files that the server gives URLs for. The URLs are signed and need no
//! credential.

use std::path::Path;
use std::time::Duration;

use indicatif::ProgressBar;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use tokio::fs::File;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::process::Command;

use super::client::{Server, Trouble};
use super::files::Source;
use super::resend::several_times;
use super::transfer_error::{FILE_BYTES_MAX, TransferError};
use super::upload::{Stored, Upload, put};
use super::upload_notes::Notes;
use crate::cli::digest::digest;
use crate::net::{Call, Content, Verb};

/// Longest time without a byte of a file.
const SILENT_MAX: Duration = Duration::from_mins(1);

/// A claimed job, as far as transfers need it.
#[derive(Debug, Clone)]
pub(super) struct Claimed {
    /// Number of the job.
    pub(super) job: i64,
    /// Number of the lease among those of the job, from 1.
    pub(super) attempt: i64,
    /// The proof of the lease.
    pub(super) lease_token: String,
    /// The worker that holds it.
    pub(super) worker: String,
    /// Hash of the source as the submitter stated it.
    pub(super) source_hash: String,
    /// Where the source is; `None` if the server stores none for this job.
    pub(super) source_url: Option<String>,
    /// Where the output goes, if the server said so with the claim, as the original does.
    pub(super) upload_url: Option<String>,
    /// The object that the output becomes; `None` if the server stores no files.
    pub(super) output_key: Option<String>,
}

/// Downloads the source of a job. Returns `false` if the server has none. A hash that is a SHA-256 is verified.
pub(super) async fn fetch_source(
    server: &Server,
    claimed: &Claimed,
    to: &Path,
) -> Result<bool, TransferError> {
    let Some(url) = &claimed.source_url else { return Ok(false) };
    let bar = ProgressBar::hidden();
    let received = several_times(|| async {
        let mut file = File::create(to).await?;
        receive(server, url, &mut file, &bar).await
    });
    received.await?.check(Some(&claimed.source_hash))?;
    Ok(true)
}

/// What was downloaded.
#[derive(Debug)]
pub(super) struct Received {
    /// Bytes.
    pub(super) size: u64,
    /// Hex digits.
    pub(super) sha256: String,
}

impl Received {
    /// Refuses another content than the stated one, if that is named by its SHA-256.
    pub(super) fn check(&self, stated: Option<&str>) -> Result<(), TransferError> {
        let stated = stated.unwrap_or_default().to_ascii_lowercase();
        let is_sha256 = stated.len() == 64 && stated.bytes().all(|digit| digit.is_ascii_hexdigit());
        if is_sha256 && self.sha256 != stated {
            return Err(TransferError::OtherContent { found: self.sha256.clone(), stated });
        }
        Ok(())
    }
}

/// Downloads a file by a signed URL.
pub(super) async fn receive(
    server: &Server,
    url: &str,
    to: &mut (impl AsyncWrite + Unpin),
    bar: &ProgressBar,
) -> Result<Received, TransferError> {
    let url = server.named(url)?;
    let call =
        Call { verb: Verb::Get, url: &url, headers: &[], content: Content::None, head_within: SILENT_MAX };
    let mut reply = server.send(call).await?;
    let (mut digest, mut size) = (Sha256::new(), 0);
    while let Some(chunk) = reply.chunk(SILENT_MAX).await? {
        size += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        if size > FILE_BYTES_MAX {
            return Err(TransferError::TooLong);
        }
        digest.update(&chunk);
        to.write_all(&chunk).await?;
        bar.set_position(size);
    }
    to.flush().await?;
    Ok(Received { size, sha256: hex::encode(digest.finalize()) })
}

/// Uploads the output of a job. Returns the object's key; `None` if the server stores no files.
pub(super) async fn store_output(
    server: &Server,
    claimed: &Claimed,
    from: &Path,
) -> Result<Option<String>, TransferError> {
    let Some(key) = &claimed.output_key else { return Ok(None) };
    let (file, bar) = (from.to_owned(), ProgressBar::hidden());
    let hashing = tokio::task::spawn_blocking(move || digest(&file, &ProgressBar::hidden()));
    let (sha256, size) = hashing.await.map_err(std::io::Error::other)??;
    let sha256 = sha256.to_string();
    let asked = json!({ "key": key, "worker_id": claimed.worker, "lease_token": claimed.lease_token });
    let upload = Upload { server, path: from, size, sha256: &sha256, asked, notes: None, bar: &bar };
    let is_refused =
        |error: &TransferError| matches!(error.trouble().and_then(Trouble::refusal), Some((401 | 403, _)));
    let stored = match upload.store().await {
        // A server of the original lets workers upload by the claim's URL alone.
        Err(error) if is_refused(&error) && claimed.upload_url.is_some() => Stored::NoStorage,
        stored => stored?,
    };
    if stored == Stored::NoStorage {
        let Some(url) = &claimed.upload_url else { return Ok(None) };
        let again = || async { put(server, url, &Value::Null, File::open(from).await?, size).await };
        several_times(again).await?;
    }
    Ok(Some(key.clone()))
}

/// Uploads the source of a job that is to be submitted, unless the storage has it already.
pub(super) async fn store_source(
    server: &Server,
    source: &Source,
    notes: Option<&Notes>,
    bar: &ProgressBar,
) -> Result<Stored, TransferError> {
    let upload = Upload {
        server,
        path: &source.path,
        size: source.size,
        sha256: &source.sha256,
        asked: json!({ "key": format!("sources/{}", source.sha256) }),
        notes,
        bar,
    };
    if !source.is_pointer {
        return upload.store().await;
    }
    if let Some(stored) = upload.look().await? {
        return Ok(stored);
    }
    let content = pulled(source).await?;
    Upload { path: content.path(), ..upload }.store().await
}

/// The content that a pointer of Git LFS names, in a file that is removed afterwards. The working tree stays as
/// it is.
async fn pulled(source: &Source) -> Result<NamedTempFile, TransferError> {
    let content = NamedTempFile::new()?;
    let folder =
        source.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut git = Command::new("git");
    git.args(["lfs", "smudge"]).current_dir(folder).kill_on_drop(true);
    git.stdin(std::fs::File::open(&source.path)?).stdout(content.reopen()?);
    let status = git.status().await?;
    let size = content.as_file().metadata()?.len();
    if !status.success() || size != source.size {
        return Err(TransferError::Lfs(status.code().unwrap_or(-1)));
    }
    Ok(content)
}
