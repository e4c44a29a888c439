//! `quipu blobs upload` and `quipu blobs mirror`: store blobs on a Blossom server.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use futures_util::StreamExt as _;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;
use url::Url;

use super::server::{ANSWER_WITHIN, Ask, Server, ServerArgs};
use crate::base::Sha256;
use crate::cli::digest::digest;
use crate::cli::{Context, output};
use crate::net::{BodyBroken, Content, Verb};
use crate::services::blossom::decide::authorization::Verb as Action;
use crate::services::blossom::decide::references::hash_in;
use crate::telemetry::notice;

/// Bytes read from a file at a time.
const READ_BYTES: usize = 256 * 1024;

/// Time limit of an upload: [`ANSWER_WITHIN`], and a second for each of so many bytes.
const SLOW_BYTES: u64 = 64 * 1024;

/// Time limit for a copy that the server makes: it has to read and to store it.
const MIRROR_WITHIN: Duration = Duration::from_mins(30);

/// Upload files. What the server has already is not stored again.
#[derive(Debug, Args)]
pub(in crate::cli) struct Upload {
    /// The files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Their media type. Without it the server looks at the content.
    #[arg(long = "type", value_name = "TYPE", default_value = "application/octet-stream")]
    media_type: String,
    /// Print the descriptor of each blob as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

impl Upload {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode> {
        let server = self.server.open(context)?;
        let mut has_failed = false;
        for path in &self.files {
            match upload(&server, path, &self.media_type).await {
                Ok((status, descriptor)) => say(&descriptor, status, self.json)?,
                // One file that cannot be stored must not keep the others from it.
                Err(error) => {
                    has_failed = true;
                    notice(format_args!("quipu: {}: {error:#}", path.display()));
                }
            }
        }
        Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

async fn upload(server: &Server, path: &Path, media_type: &str) -> Result<(u16, Value)> {
    let about = std::fs::metadata(path)?;
    if !about.is_file() {
        bail!("not a file");
    }
    let bar = output::byte_bar(Some(about.len()));
    bar.set_message(path.display().to_string());
    let sent = send(server, path, media_type, &bar).await;
    bar.finish_and_clear();
    sent
}

/// Reads the file twice: its hash is sent before its content.
async fn send(server: &Server, path: &Path, media_type: &str, bar: &ProgressBar) -> Result<(u16, Value)> {
    let (file, hashing) = (path.to_owned(), bar.clone());
    let (sha256, bytes) = tokio::task::spawn_blocking(move || digest(&file, &hashing)).await??;
    bar.set_position(0);
    bar.reset_eta();
    let sending = bar.clone();
    let pieces = ReaderStream::with_capacity(File::open(path).await?.take(bytes), READ_BYTES);
    let body = pieces.map(move |piece| {
        let piece = piece.map_err(|error| BodyBroken(error.to_string()))?;
        sending.inc(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        Ok(piece)
    });
    let content =
        Content::Stream { body: body.boxed(), bytes: Some(bytes), media_type: media_type.to_owned() };
    let (status, descriptor): (u16, Value) = server
        .ask(Ask {
            verb: Verb::Put,
            path: "/upload",
            action: Action::Upload,
            blob: Some(sha256),
            content,
            within: ANSWER_WITHIN + Duration::from_secs(bytes / SLOW_BYTES),
        })
        .await?;
    if descriptor["sha256"].as_str() != Some(sha256.to_string().as_str()) {
        bail!("the server stored something else: it names the hash {}", descriptor["sha256"]);
    }
    Ok((status, descriptor))
}

/// Have the server copy blobs from URLs.
#[derive(Debug, Args)]
pub(in crate::cli) struct Mirror {
    /// Where they are, such as `https://server/<sha256>.png`.
    #[arg(required = true, value_name = "URL")]
    urls: Vec<Url>,
    /// The SHA-256, of a URL that does not contain it.
    #[arg(long = "hash", value_name = "SHA256")]
    hash: Option<Sha256>,
    /// Print the descriptor of each blob as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

impl Mirror {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode> {
        if self.hash.is_some() && self.urls.len() > 1 {
            bail!("--hash is for one URL");
        }
        let server = self.server.open(context)?;
        let mut has_failed = false;
        let bar = output::count_bar(u64::try_from(self.urls.len()).unwrap_or(u64::MAX), "blob", "blobs");
        for url in &self.urls {
            let mirrored = match self.hash.or_else(|| hash_in(url)) {
                Some(sha256) => mirror(&server, url, sha256).await,
                None => Err(anyhow::anyhow!("it contains no SHA-256: give --hash")),
            };
            bar.inc(1);
            match mirrored {
                Ok((status, descriptor)) => bar.suspend(|| say(&descriptor, status, self.json))?,
                Err(error) => {
                    has_failed = true;
                    notice(format_args!("quipu: {url}: {error:#}"));
                }
            }
        }
        bar.finish_and_clear();
        Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

async fn mirror(server: &Server, url: &Url, sha256: Sha256) -> Result<(u16, Value)> {
    let body = json!({ "url": url.as_str() }).to_string();
    let mirrored = server.ask(Ask {
        verb: Verb::Put,
        path: "/mirror",
        action: Action::Upload,
        blob: Some(sha256),
        content: Content::Json(body),
        within: MIRROR_WITHIN,
    });
    mirrored.await.context("the blob was not copied")
}

/// Says what was stored.
fn say(descriptor: &Value, status: u16, json: bool) -> Result<()> {
    if json {
        return output::list(descriptor);
    }
    let url = output::one_line(descriptor["url"].as_str().unwrap_or("(the server names no URL)"), 2_048);
    output::list(format_args!("{url}  {}", if status == 201 { "stored" } else { "there" }))
}
