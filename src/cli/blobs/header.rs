//! `quipu blobs auth-header`: a token for requests of other programs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use indicatif::ProgressBar;

use super::server::{KeyArgs, Wanted};
use crate::base::Sha256;
use crate::cli::digest::digest;
use crate::cli::{Context, output};
use crate::services::blossom::decide::authorization::Verb;

/// Print the header `Authorization` for a request: curl -H "$(quipu blobs auth-header --verb delete --hash …)".
#[derive(Debug, Args)]
pub(in crate::cli) struct AuthHeader {
    /// What the request does: get, upload, list, delete or media.
    #[arg(long, default_value = "upload", value_name = "VERB", value_parser = verb)]
    verb: Verb,
    /// The SHA-256 of a blob that it is about; may be repeated.
    #[arg(long = "hash", value_name = "SHA256")]
    hashes: Vec<Sha256>,
    /// A file whose hash is meant; may be repeated.
    #[arg(long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The only server that may accept it, by its host name. Without it every server may. An upload through Quipu
    /// needs a token that its upstreams accept as well.
    #[arg(long, value_name = "HOST")]
    for_server: Option<String>,
    /// Seconds for which it is valid.
    #[arg(long, default_value_t = 600, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=31_536_000))]
    valid_s: u32,
    #[command(flatten)]
    key: KeyArgs,
}

pub(super) fn verb(text: &str) -> Result<Verb, String> {
    Verb::parse(text).ok_or_else(|| "one of: get, upload, list, delete, media".to_owned())
}

impl AuthHeader {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode> {
        let keys = self.key.require(context)?;
        let mut blobs = self.hashes;
        for file in &self.files {
            let hashed = digest(file, &ProgressBar::hidden());
            blobs.push(hashed.with_context(|| format!("cannot read {}", file.display()))?.0);
        }
        if blobs.is_empty() && !matches!(self.verb, Verb::Get | Verb::List) {
            bail!("a token for {} has to name a blob: give --hash or --file", self.verb.as_str());
        }
        let wanted = Wanted { action: self.verb, blobs: &blobs, server: self.for_server.as_deref() };
        let value = wanted.sign(&keys, Duration::from_secs(self.valid_s.into()));
        // To be printed is its purpose.
        output::list(format_args!("Authorization: {}", value.expose()))?;
        Ok(ExitCode::SUCCESS)
    }
}
