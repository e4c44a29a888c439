//! Sources and outputs of jobs: the files that the server gives URLs for. The URLs are signed and need no
//! credential.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use thiserror::Error;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::client::{Server, Trouble};
use super::files::Source;
use crate::net::{Call, Content, FetchError, Verb};

/// The media type that the original's upload URLs are bound to.
const MEDIA_TYPE: &str = "application/octet-stream";

/// Longest time without a byte of a source.
const SILENT_MAX: Duration = Duration::from_mins(1);

/// Longest time of an upload. The lease is renewed meanwhile; this bounds an upload that hangs.
const UPLOAD_WITHIN: Duration = Duration::from_hours(6);

/// Longest source, bytes.
const SOURCE_BYTES_MAX: u64 = 1 << 40;

/// Why a file was not transferred.
#[derive(Debug, Error)]
pub(super) enum TransferError {
    #[error(transparent)]
    Server(#[from] Trouble),
    #[error("the source breaks off: {0}")]
    Source(#[from] FetchError),
    #[error("the file: {0}")]
    File(#[from] std::io::Error),
    #[error("the server names a URL that cannot be used: {0}")]
    Url(#[from] url::ParseError),
    #[error("the source has the SHA-256 {found}, and the job says {stated}")]
    OtherContent { found: String, stated: String },
    #[error("`git lfs smudge` does not give the file that the pointer names (exit code {0})")]
    Lfs(i32),
    #[error("the source has more than {SOURCE_BYTES_MAX} bytes")]
    TooLong,
}

/// A claimed job, as far as transfers need it.
#[derive(Debug, Clone)]
pub(super) struct Claimed {
    /// Number of the job.
    pub(super) job: i64,
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
    /// The object that the output becomes.
    pub(super) output_key: Option<String>,
}

/// Downloads the source of a job. Returns `false` if the server has none. A hash that is a SHA-256 is verified.
pub(super) async fn fetch_source(
    server: &Server,
    claimed: &Claimed,
    to: &Path,
) -> Result<bool, TransferError> {
    let Some(url) = &claimed.source_url else { return Ok(false) };
    let url = server.named(url)?;
    let call =
        Call { verb: Verb::Get, url: &url, headers: &[], content: Content::None, head_within: SILENT_MAX };
    let mut reply = server.send(call).await?;
    let (mut file, mut digest, mut bytes) = (File::create(to).await?, Sha256::new(), 0);
    while let Some(chunk) = reply.chunk(SILENT_MAX).await? {
        bytes += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        if bytes > SOURCE_BYTES_MAX {
            return Err(TransferError::TooLong);
        }
        digest.update(&chunk);
        file.write_all(&chunk).await?;
    }
    file.flush().await?;
    let (found, stated) = (hex::encode(digest.finalize()), claimed.source_hash.to_ascii_lowercase());
    let is_sha256 = stated.len() == 64 && stated.bytes().all(|digit| digit.is_ascii_hexdigit());
    if is_sha256 && found != stated {
        return Err(TransferError::OtherContent { found, stated });
    }
    Ok(true)
}

/// Uploads the output of a job. Returns the object's key; `None` if the server stores no files.
pub(super) async fn store_output(
    server: &Server,
    claimed: &Claimed,
    from: &Path,
) -> Result<Option<String>, TransferError> {
    if let Some(url) = &claimed.upload_url {
        put(server, url, from).await?;
        return Ok(claimed.output_key.clone());
    }
    let size = tokio::fs::metadata(from).await?.len();
    let asked = json!({
        "job_id": claimed.job, "worker_id": claimed.worker, "lease_token": claimed.lease_token,
        "key": claimed.output_key, "content_type": MEDIA_TYPE, "size": size,
    });
    let Some(answer) = upload_url(server, &asked).await? else { return Ok(None) };
    put(server, answer["url"].as_str().unwrap_or_default(), from).await?;
    Ok(answer["key"].as_str().map(str::to_owned).or_else(|| claimed.output_key.clone()))
}

/// Uploads the source of a new job. Returns `false` if the server stores no files.
pub(super) async fn store_source(server: &Server, job: i64, source: &Source) -> Result<bool, TransferError> {
    let key = format!("sources/{}", source.sha256);
    let asked = json!({ "job_id": job, "key": key, "content_type": MEDIA_TYPE, "size": source.size });
    let Some(answer) = upload_url(server, &asked).await? else { return Ok(false) };
    let url = answer["url"].as_str().unwrap_or_default();
    if source.is_pointer {
        let content = pulled(source).await?;
        put(server, url, content.path()).await?;
    } else {
        put(server, url, &source.path).await?;
    }
    Ok(true)
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

/// Asks for an upload URL; `None` if the server has no such request.
async fn upload_url(server: &Server, asked: &Value) -> Result<Option<Value>, TransferError> {
    match server.post(&["api", "files", "upload-url"], asked).await {
        Ok(answer) => Ok(Some(answer)),
        Err(trouble) if trouble.refusal().is_some_and(|(status, _)| matches!(status, 404 | 405 | 501)) => {
            Ok(None)
        }
        Err(trouble) => Err(trouble.into()),
    }
}

async fn put(server: &Server, url: &str, from: &Path) -> Result<(), TransferError> {
    let url = server.named(url)?;
    let file = File::open(from).await?;
    let bytes = file.metadata().await?.len();
    let content = Content::File { file, bytes, media_type: MEDIA_TYPE.to_owned() };
    let call = Call { verb: Verb::Put, url: &url, headers: &[], content, head_within: UPLOAD_WITHIN };
    server.send(call).await?;
    Ok(())
}
